"""Trains one run over and over, each time in a child of its own that may be killed; driven by test_training_crash.

The child tells ``begun <pid>``, then ``resumed <step>``, then ``done <step>`` after each step whose checkpoint was
taken. TensorFlow is imported once and begins to work in each child.
"""

from __future__ import annotations

import os
import sys

import keras
import numpy as np

import modelkeep as mk
import modelkeep.live.training.checkpoints

APART = 2**16


def tell(word: str, number: int) -> None:
    # In one write: a child may be killed between two, and leave half a line.
    os.write(1, f"{word} {number}\n".encode())


def build() -> keras.Model:
    """50 MB in five tensors, no two alike, and five small ones."""
    beginnings = [keras.initializers.Constant(number * APART) for number in range(5)]
    dense = [keras.layers.Dense(1581, kernel_initializer=beginning) for beginning in beginnings]
    model = keras.Sequential([keras.Input((1581,)), *dense])
    model.compile("sgd", "mse")
    return model


def train(store: str) -> None:
    """A step adds one to every weight, so that each tells how many steps it has seen."""
    tell("begun", os.getpid())
    model = build()
    checkpoints = mk.open(store).checkpoints("run", every_steps=1, keep_last=2)
    restored = checkpoints.restore(model)
    step = restored.step if restored else 0
    values = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    seen = {float(value) % APART for one in values for value in (one.min(), one.max())}
    tell("resumed" if seen == {float(step)} else "mixed", step)
    while True:
        step += 1
        for weight in model.weights:
            weight.assign_add(np.ones(weight.shape, "float32"))
        checkpoints.save(step, model)
        tell("done", step)


def main(store: str) -> None:
    tell("ready", 0)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            train(store)
        _, status = os.waitpid(child, 0)
        tell("ended", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1])
