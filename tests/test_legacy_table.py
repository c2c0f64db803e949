"""Every layer of Keras 2 and every operation between layers, as tf-keras writes them, under the Keras of today.

tf-keras runs in processes of its own, which write the files (``tests/foreign/*_of_keras2.py``). What becomes of each
is the table of ``docs/guide/legacy.md``, which running this file writes: ``python tests/test_legacy_table.py``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from modelkeep.errors import CannotLoad
from modelkeep.formats.forms import open_contents
from modelkeep.legacy.upgrading import RULES
from modelkeep.live.reading import h5

pytestmark = [
    pytest.mark.keras,
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="text and its layers are TensorFlow's alone"),
    # Of some layers Keras warns that no mask gets past them, which was so in Keras 2.
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask attached to it:UserWarning"),
    pytest.mark.skipif(find_spec("tf_keras") is None, reason="needs tf-keras, which writes the files"),
]

FOREIGN = Path(__file__).parent / "foreign"
PAGE = Path(__file__).parent.parent / "docs" / "guide" / "legacy.md"
# What has nothing in Keras 3, or was not written by Keras 2; each is refused with the reason.
REFUSED = {
    "Lambda": "bytecode only",
    "activation-tf-crelu": "crelu_v2: a function that is not Keras' own",
    "einsum": "was not written by Keras 2",
}


@dataclass
class Outcome:
    """What became of one file: the rules that did something, the largest difference, or why it was refused."""

    rules: set[str] = field(default_factory=set)
    difference: float = 0.0
    refusal: str = ""


@cache
def outcomes(script: str) -> dict[str, Outcome]:
    """Of every case that a script writes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", str(FOREIGN / script), folder]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
        return {file.stem: outcome(file) for file in sorted(Path(folder).glob("*.h5"))}


def outcome(file: Path) -> Outcome:
    keras.utils.clear_session(free_memory=False)
    try:
        with open_contents(file) as contents:
            found = h5.read(contents)
    except CannotLoad as refused:
        return Outcome(refusal=str(refused))
    except Exception as error:  # noqa: BLE001 - the table has to say so
        return Outcome(refusal=f"{type(error).__name__}: {error}")
    rules = {finding.details["rule"] for finding in found.findings if finding.check == "upgraded"}
    return Outcome(rules, largest_difference(found.model, np.load(file.with_suffix(".npz"))))


def largest_difference(model: keras.Model, arrays: Any) -> float:
    """Absolute, or of the value where that is above 1: pixels go to 255."""
    inputs = [given(arrays[name]) for name in sorted(arrays) if name.startswith("x")]
    outputs = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=False))
    expected = [arrays[name] for name in sorted(arrays) if name.startswith("y")]
    assert [tuple(output.shape) for output in outputs] == [array.shape for array in expected]
    pairs = zip(outputs, expected, strict=True)
    return max(
        float((np.abs(np.asarray(output, "float64") - array) / np.maximum(1, np.abs(array))).max())
        for output, array in pairs
    )


def given(array: Any) -> Any:
    import tensorflow as tf

    return tf.constant(array)


SCRIPTS = ["layers_of_keras2.py", "operations_of_keras2.py"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_answers_as_its_own_keras_did_or_is_refused_with_a_reason(script):
    found = outcomes(script)
    wrong = {name: each.difference for name, each in found.items() if not each.difference < 1e-5}
    assert wrong == {}
    refused = {name: each.refusal for name, each in found.items() if each.refusal}
    assert refused.keys() == REFUSED.keys() & found.keys()
    assert all(re.search(REFUSED[name], reason) for name, reason in refused.items())


def test_at_least_98_per_cent_of_layer_configs_open():
    found = outcomes("layers_of_keras2.py")
    opened = [name for name, each in found.items() if not each.refusal]
    assert len(opened) >= 0.98 * len(found)
    assert by_class(found).keys() >= set(exported_layers())


def exported_layers() -> Iterator[str]:
    """The classes that tf-keras exports, less those that are no layer by themselves."""
    script = (
        "import inspect, tf_keras.layers as L; B = L.Layer;"
        "print(*{c.__name__ for c in vars(L).values() if inspect.isclass(c) and issubclass(c, B)})"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    # Base classes, cells, and what only TensorFlow's feature columns and a bug of tf-keras' keep from being built.
    apart = {"Layer", "Wrapper", "AbstractRNNCell", "DenseFeatures", "SpectralNormalization"}
    return (name for name in done.stdout.split() if name not in apart and not name.endswith(("Cell", "RNN")))


def by_class(found: dict[str, Outcome]) -> dict[str, list[Outcome]]:
    classes: dict[str, list[Outcome]] = {}
    for name, each in found.items():
        classes.setdefault(name.partition("-")[0], []).append(each)
    return classes


# --- the page


def tables() -> str:
    """Layers, operations, rules."""
    text = ""
    for title, script in (("Layers", SCRIPTS[0]), ("Operations between layers", SCRIPTS[1])):
        found = outcomes(script)
        opened = sum(not each.refusal for each in found.values())
        text += f"\n### {title}: {opened} of {len(found)} configurations\n"
        text += "| what | opened | rules that did something |\n|---|---|---|\n"
        for name, cases in (by_class(found) if script == SCRIPTS[0] else {n: [o] for n, o in found.items()}).items():
            rules = ", ".join(sorted(set().union(*(each.rules for each in cases))))
            refused = [case for case in found if case in REFUSED and case.partition("-")[0] == name.partition("-")[0]]
            why = f"; refused: {', '.join(refused)}" if refused else ""
            text += f"| {name} | {sum(not each.refusal for each in cases)} of {len(cases)} | {rules}{why} |\n"
    text += "\n### Rules\n| rule | Keras | why |\n|---|---|---|\n"
    return text + "".join(f"| {rule.id} | {rule.versions} | {rule.why} |\n" for rule in RULES)


_TABLES = re.compile(r"(?<=<!-- tables -->\n).*(?=\n<!-- end of tables -->)", re.DOTALL)


def test_the_page_tells_what_these_tests_found():
    (found,) = _TABLES.findall(PAGE.read_text(encoding="utf-8"))
    assert found == tables(), "python tests/test_legacy_table.py"


if __name__ == "__main__":
    PAGE.write_text(_TABLES.sub(lambda _: tables(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
