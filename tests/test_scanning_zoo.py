"""Whatever Keras itself writes is not refused: every model of the zoo, in every form that Keras has for it."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import pytest

import zoo
from modelkeep.formats.limits import DEFAULT
from modelkeep.safety.rules import RULES, Level
from modelkeep.safety.scanning import scan, scan_here

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`"),  # nor needs one
]


def written(model: keras.Model, folder: Path) -> list[Path]:
    """The model in each form that Keras can write it in."""
    keras.saving.save_model(model, folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    (folder / "model.json").write_text(model.to_json())
    try:
        with warnings.catch_warnings(action="ignore"):
            keras.saving.save_model(model, folder / "model.h5")
    except (NotImplementedError, TypeError, ValueError):
        (folder / "model.h5").unlink(missing_ok=True)  # not every layer can be written as HDF5
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", zoo.here())
def test_what_keras_writes_is_not_refused(name: str, tmp_path: Path) -> None:
    for path in written(zoo.ZOO[name].build(), tmp_path):
        told = scan_here(path, limits=DEFAULT)
        refused = [one for one in told["problems"] if RULES[one[0]].level in (Level.CRITICAL, Level.HIGH)]
        assert refused == [], path.name
        assert told["form"] is not None


def test_an_application_is_clean(tmp_path: Path) -> None:
    model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=3)
    for path in written(model, tmp_path):
        found = scan(path)
        assert found.findings == (), str(found)


def test_a_lambda_that_keras_wrote_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)])
    whole = [path for path in written(model, tmp_path) if path.name != "model.weights.h5"]
    for found in map(scan, whole):
        assert {finding.rule for finding in found.refused} == {"code-by-value"}
        assert "give its function a name" in str(found)
