"""Files of older releases of Keras 3, as they wrote them, with what the models in them answer.

Run once for each release, which is installed by itself (``pip install --no-deps --target FOLDER keras==3.0.5``)::

    PYTHONPATH=FOLDER KERAS_BACKEND=jax python tests/foreign/write_keras3.py

``tests/foreign/keras3/<release>-<backend>/`` then holds each model as ``.keras``, and ``answers.npz``. Keras 3.0 to 3.3
also want ``dm-tree``.
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent


def network() -> keras.Model:
    """Two inputs, shared and nested layers, recurrence, normalization, attention; Adam."""
    words, numbers = keras.Input((5,), dtype="int32", name="words"), keras.Input((3,), name="numbers")
    normalization = layers.Normalization(name="scaled")
    normalization.adapt(np.arange(12, dtype="float32").reshape(4, 3))
    shared = layers.Dense(3, activation="relu", name="shared")
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.BatchNormalization()], name="inner")
    text = layers.Embedding(7, 3)(words)
    text = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(text)
    text = layers.MultiHeadAttention(1, 2)(text, text)
    text = layers.GlobalAveragePooling1D()(layers.Dropout(0.3)(text))
    both = layers.Concatenate()([text, inner(shared(normalization(numbers))), shared(numbers)])
    model = keras.Model([words, numbers], layers.Dense(2, name="answer")(both), name="network")
    model.compile("adam", "mse")
    return model


def small() -> keras.Model:
    """Two layers of one class, without names of their own; Nadam, whose variables changed their order."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(3)])
    model.compile("nadam", "mse")
    return model


@keras.saving.register_keras_serializable("foreign")
class Written(keras.Model):
    """Layers in attributes, lists and mappings."""

    def __init__(self, units: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.first = layers.Dense(units, name="first")
        self.blocks = [layers.Dense(units), layers.Dense(units)]
        self.heads = {"a": layers.Dense(1), "b": layers.Dense(1)}

    def build(self, input_shape: Any) -> None:
        self.first.build(input_shape)
        for layer in (*self.blocks, *self.heads.values()):
            layer.build((None, self.units))
        self.built = True

    def call(self, inputs: Any) -> Any:
        x = self.first(inputs)
        for block in self.blocks:
            x = keras.ops.tanh(block(x))
        return self.heads["a"](x) - self.heads["b"](x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def subclassed() -> keras.Model:
    model = Written(units=3)
    model.build((None, 3))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


MODELS: dict[str, Callable[[], keras.Model]] = {"network": network, "small": small, "subclassed": subclassed}
NUMBERS = np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3)
INPUTS: dict[str, Any] = {
    "network": [np.arange(20, dtype="int32").reshape(4, 5) % 7, NUMBERS],
    "small": NUMBERS,
    "subclassed": NUMBERS,
}


def deflate(path: Path) -> None:
    """Compress the members, which Keras stores as they are; their bytes stay."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def main() -> None:
    random.seed(3)
    keras.utils.set_random_seed(3)
    folder = HERE / "keras3" / f"{keras.__version__}-{keras.backend.backend()}"
    folder.mkdir(parents=True, exist_ok=True)
    answers = {}
    for name, make in MODELS.items():
        model = make()
        targets = np.zeros(model(INPUTS[name]).shape, "float32")
        for _ in range(2):
            model.train_on_batch(INPUTS[name], targets)
        model.save(folder / f"{name}.keras")
        deflate(folder / f"{name}.keras")
        answers[f"{name}/outputs"] = keras.ops.convert_to_numpy(model(INPUTS[name]))
        # Each variable's own name tells which slot it is, whatever the order.
        for variable in model.optimizer.variables:
            values = keras.ops.convert_to_numpy(variable)
            answers[f"{name}/optimizer/{len(answers):03}/{variable.name}"] = values
    np.savez_compressed(folder / "answers.npz", **answers)


if __name__ == "__main__":
    main()
