"""Saves a model over and over, each time in a child of its own that may be killed; driven by test_crash.

The child tells ``saving <pid>`` before and ``saved <pid>`` after. Under torch, with one thread, a process can be forked
with a model in it, so that a try costs milliseconds instead of the import of a backend.
"""

from __future__ import annotations

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch

import modelkeep as mk

torch.set_num_threads(1)


def tell(word: str, pid: int) -> None:
    # In one write: a child may be killed between two, and leave half a line.
    os.write(1, f"{word} {pid}\n".encode())


def build() -> keras.Model:
    layers = [keras.Input((64,)), keras.layers.Dense(1024, name="wide"), keras.layers.Dense(8, name="head")]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def save(model: keras.Model, store: str, number: int) -> None:
    for variable in model.weights:
        variable.assign(np.full(variable.shape, number, "float32"))
    tell("saving", os.getpid())
    mk.open(store).save(model, "m", metrics={"number": number}, golden=np.ones((2, 64), "float32"))
    tell("saved", os.getpid())


def main(store: str) -> None:
    model = build()
    # Imported once, here, rather than in every child. Keras imports TensorFlow, where it is installed, to serialize.
    import modelkeep.live.saving  # noqa: F401

    keras.saving.serialize_keras_object(model)

    tell("ready", os.getpid())
    for number, _ in enumerate(sys.stdin, 1):
        child = os.fork()
        if child == 0:
            save(model, store, number)
            os._exit(0)
        os.waitpid(child, 0)
        tell("done", child)


if __name__ == "__main__":
    main(sys.argv[1])
