"""Files that a real TensorFlow 2.12 wrote (``tests/foreign/write_keras2.py``), under the Keras of today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from modelkeep.formats.forms import open_contents
from modelkeep.live.building import build
from modelkeep.live.reading import Read, h5
from modelkeep.report import Severity

pytestmark = pytest.mark.keras

FOLDER = Path(__file__).parent / "foreign" / "keras2"
ANSWERS = np.load(FOLDER / "answers.npz")
ARCHITECTURES = json.loads((FOLDER / "architectures.json").read_text())
KINDS = sorted(ARCHITECTURES)
ALONE = sorted(path.name.removesuffix("-weights.h5") for path in FOLDER.glob("*-weights.h5"))
TRAINED = sorted({name.partition("/")[0] for name in ANSWERS} - set(KINDS))
# Their state is kept in another form by Keras 3, or not kept whole by Keras 2.
FRESH = ("adafactor", "legacy_nadam", "nadam")


# What every backend is tried with: they differ in how variables are made and filled, hardly by layer.
EVERYWHERE = ("adam", "bidirectional", "gru", "legacy_sgd", "nested", "operations", "slashes")


def everywhere(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.backends] if name in EVERYWHERE else []) for name in names]


def arrays(name: str, letter: str) -> list[Any]:
    keys = [f"{name}/{letter}{index}" for index in range(9)]
    return [ANSWERS[key] for key in keys if key in ANSWERS]


def read(name: str, **options: Any) -> Read:
    with open_contents(FOLDER / name) as contents:
        return h5.read(contents, **options)


def answers(model: keras.Model, name: str) -> list[Any]:
    inputs = arrays(name, "x")
    if name == "dictionaries":
        inputs = dict(zip("ab", inputs, strict=True))
    outputs = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=False))
    return [keras.ops.convert_to_numpy(output) for output in outputs]


def assert_answers(model: keras.Model, name: str, *, within: float = 1e-5) -> None:
    found, expected = answers(model, name), arrays(name, "y")
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=within, rtol=1e-5)


@pytest.mark.parametrize("name", everywhere(KINDS))
def test_a_whole_model_answers_as_it_did(name: str) -> None:
    found = read(f"{name}.h5")
    assert_answers(found.model, name, within=2e-3 if name == "mixed_precision" else 1e-5)
    assert found.model.compiled


@pytest.mark.parametrize("name", KINDS)
def test_an_architecture_as_json_builds_the_same_variables(name: str) -> None:
    built = build(ARCHITECTURES[name], keras_version=ARCHITECTURES[name]["keras_version"]).model
    shapes = [tuple(variable.shape) for variable in built.weights]
    assert shapes == [tuple(variable.shape) for variable in read(f"{name}.h5", compile=False).model.weights]


@pytest.mark.parametrize("name", ALONE)
def test_weights_alone_go_into_the_architecture(name: str) -> None:
    model = build(ARCHITECTURES[name], keras_version="2.12.0").model
    with open_contents(FOLDER / f"{name}-weights.h5") as contents:
        h5.read(contents, into=model)
    assert_answers(model, name)


@pytest.mark.parametrize("name", everywhere(TRAINED))
def test_training_goes_on_where_it_stood(name: str) -> None:
    found = read(f"{name}.h5")
    assert_answers(found.model, name)
    fresh = [finding for finding in found.findings if finding.check == "optimizer-fresh"]
    assert [finding.severity for finding in fresh] == ([Severity.WARNING] if name in FRESH else [])
    found.model.train_on_batch(ANSWERS[f"{name}/x0"], ANSWERS[f"{name}/target"])
    if name not in FRESH:
        after = [ANSWERS[f"{name}/after/{index}"] for index in range(len(found.model.weights))]
        for weight, expected in zip(found.model.get_weights(), after, strict=True):
            np.testing.assert_allclose(weight, expected, atol=2e-6)
