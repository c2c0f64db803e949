"""Kept under one backend, a model opens under the others and answers the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

pytestmark = [pytest.mark.keras, pytest.mark.slow]

BACKENDS = ("tensorflow", "jax", "torch")
NAMES = ["averaged", "bidirectional", "custom_objects", "frozen", "functional", "int8", "lora", "mixed_float16",
         "nested", "normalized", "own_train_step", "sequential", "stateful_rnn", "subclassed"]  # fmt: skip
HALF = {"mixed_float16": 1e-2}  # sums of half-precision numbers


def start(verb: str, folder: Path, backend: str) -> subprocess.Popen[str]:
    tests = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(tests / "across.py"), verb, str(folder), *NAMES],
        env={**os.environ, "PYTHONPATH": str(tests), "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> dict[str, float | str]:
    output, _ = process.communicate()
    found: dict[str, float | str] = json.loads(output.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model, kept under every backend."""
    root = tmp_path_factory.mktemp("kept")
    for process in [start("keep", root / backend, backend) for backend in BACKENDS]:
        assert set(answer(process).values()) == {0.0}
    return root


@pytest.mark.parametrize(("saver", "opener"), list(permutations(BACKENDS, 2)))
def test_a_model_opens_under_the_other_backend_and_answers_the_same(kept: Path, saver: str, opener: str) -> None:
    opened = answer(start("open", kept / saver, opener))
    off = {name: found for name, found in opened.items() if isinstance(found, str) or found > HALF.get(name, 1e-5)}
    assert off == {}
