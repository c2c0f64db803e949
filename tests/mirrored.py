"""Trainings on two replicas of ``tf.distribute`` in one process; what they saw is one JSON line.

``python tests/mirrored.py <store> <life>``: the first life of a run ends in ``kill -9``, the second goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import warnings
from contextlib import nullcontext
from typing import Any

if __name__ == "__main__":
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}

import keras
import numpy as np
import tensorflow as tf

import modelkeep as mk

X = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
Y = X[:, :8] * 2


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return X[:16], Y[:16]


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(12, "relu"), keras.layers.Dropout(0.2), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((16,)), *layers, keras.layers.Dense(8)], name="network")
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model


class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if keras.ops.convert_to_numpy(self.model.optimizer.iterations) == 8:
            os.kill(os.getpid(), signal.SIGKILL)


def train(store: str, run: str, *data: Any, kill: bool = False, within: bool = False, **options: Any) -> dict[str, Any]:
    with strategy.scope():
        model = network()
    checkpoints = mk.open(store).checkpoints(run, every_steps=3)
    callbacks = [Kill()] if kill else []
    with strategy.scope() if within else nullcontext():
        history = checkpoints.fit(model, *data, epochs=3, verbose=0, callbacks=callbacks, **options)
    findings = [finding.check for finding in checkpoints.findings]
    return {"history": history.history, "variables": digest(model), "findings": findings}


def digest(model: keras.Model) -> str:
    hashed = hashlib.sha256()
    for variable in (*model.variables, *model.optimizer.variables):
        hashed.update(np.asarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return hashed.hexdigest()


def first_life(store: str) -> None:
    told = {"whole": train(store, "whole", X, Y, batch_size=16), "batches": train(store, "batches", Batches())}
    print(json.dumps(told), flush=True)
    train(store, "run", X, Y, batch_size=16, kill=True)


def second_life(store: str) -> None:
    told: dict[str, Any] = {"resumed": train(store, "run", X, Y, batch_size=16, within=True)}
    keep = mk.open(store)
    model = network()
    assert keep.checkpoints("whole").restore(model) is not None
    told["alone"] = [digest(model), digest(keep.load("whole@last").model)]
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    _, store, life = sys.argv
    warnings.simplefilter("ignore")
    devices = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    {"first": first_life, "second": second_life}[life](store)
