"""A ``.keras`` file, as Keras itself writes it, that plain Keras opens whole."""

from __future__ import annotations

import json
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path

import keras

from modelkeep.live import internals
from modelkeep.live.capture import LAYER_ASSETS, assets, configs
from modelkeep.live.golden import Predict
from modelkeep.live.variables import inventory
from modelkeep.live.writing import plain
from modelkeep.manifest import Signature
from modelkeep.report import Finding

BACKENDS = ("tensorflow", "jax", "torch")


def write(
    model: keras.Model, path: Path, *, form: str = "keras", signature: Signature | None = None
) -> tuple[Finding, ...]:
    """Write a ``.keras`` file; its findings say what of this model such a file cannot hold.

    The optimizer in it is the one the model has now: Keras writes the one given to ``compile``, which a save to
    ``.h5`` makes it forget. Raises CannotRebuild for a class without a config, UnsafeContent for lambdas.
    """
    config, compile_config, _ = configs(model)
    found = inventory(internals.walk(model))
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".modelkeep-") as folder,
        zipfile.ZipFile(path, "w") as file,
    ):
        weights = Path(folder, "model.weights.h5")
        model.save_weights(weights)
        file.writestr("metadata.json", json.dumps(_metadata()))
        file.writestr("config.json", json.dumps({**config, "compile_config": compile_config}))
        file.write(weights, weights.name)
        for name, data in assets(found).items():
            file.writestr(f"assets/{name.removeprefix(LAYER_ASSETS)}", data)
    return plain.not_held(found, "a .keras file")


def _metadata() -> dict[str, str]:
    return {"keras_version": keras.version(), "date_saved": datetime.now().strftime("%Y-%m-%d@%H:%M:%S")}


def reopen(path: Path, *, form: str = "keras", model: keras.Model) -> Predict:
    """What plain Keras makes of the file, after every weight and slot in it was compared with the model's."""
    return plain.reopen(path, model)


def copy_of(model: keras.Model) -> keras.Model:
    """The model written and loaded again, with weights that are all zero: for weights to be loaded into."""
    with tempfile.TemporaryDirectory(prefix="modelkeep-") as folder:
        path = Path(folder, "model.keras")
        write(model, path)
        copy = plain.load(path, model)
    for weight in copy.weights:
        weight.assign(keras.ops.zeros(weight.shape, weight.dtype))
    return copy
