"""Kept by the newest Keras, opened by the oldest that is supported, and back.

The oldest is 3.6: before it, Keras had no walk that leaves out the same attributes on every class, its variables
could not be told from others, and configs of dtype policies differ. ``MODELKEEP_OLDEST_KERAS`` names a folder it is
installed in by itself (``pip install --target … --no-deps``); ``make setup`` does that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from zoo import here

OLDEST = os.environ.get("MODELKEEP_OLDEST_KERAS", "")

pytestmark = [
    pytest.mark.keras,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(OLDEST, "keras").is_dir(), reason="NOT TESTED: MODELKEEP_OLDEST_KERAS names no Keras; run: make setup"
    ),
]

# What the oldest Keras itself cannot do: quantize to int4, load tf-idf weights, AUC under torch.
BEYOND_THE_OLDEST = {"int4", "looked_up_strings", *(["text"] if keras.backend.backend() == "torch" else [])}
# Kept by the newest with what the oldest has no word for: quantizers as objects, LoRA's alpha.
ONLY_NEWER = {"int8", "int8_lora", "lora"}


def run(verb: str, folder: Path, names: set[str], *, oldest: bool) -> dict[str, float | str]:
    tests = Path(__file__).parent
    path = [str(tests), *([OLDEST] if oldest else [])]
    process = subprocess.run(
        [sys.executable, "-W", "ignore", str(tests / "across.py"), verb, str(folder), *sorted(names)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, float | str] = json.loads(process.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("kept_by_oldest", [False, True], ids=["newest-to-oldest", "oldest-to-newest"])
def test_a_model_opens_in_the_other_keras_and_answers_the_same(kept_by_oldest: bool, tmp_path: Path) -> None:
    names = set(here()) - BEYOND_THE_OLDEST
    assert set(run("keep", tmp_path, names, oldest=kept_by_oldest).values()) == {0.0}
    opened = run("open", tmp_path, names, oldest=not kept_by_oldest)
    expected_to_fail = set() if kept_by_oldest else ONLY_NEWER
    failed = {name: error for name, error in opened.items() if isinstance(error, str)}
    assert {name: failed.get(name) for name in failed.keys() - expected_to_fail} == {}
    assert all(error.startswith(("CannotRebuild", "UnsafeContent")) for error in failed.values())
    assert all(difference < 1e-5 for difference in opened.values() if not isinstance(difference, str))
