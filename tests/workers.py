"""One of two workers of ``tf.distribute`` that train a network together; what it saw is one JSON line.

``python tests/workers.py <store> <rank> <port> <other port> <life>``: the first life of a run ends in ``kill -9``, the
second goes on. The loop is one of its own: Keras' ``fit`` does not train under this strategy.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from typing import Any

if __name__ == "__main__":
    _, store, rank, *ports, life = sys.argv
    workers = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": workers, "task": {"type": "worker", "index": int(rank)}})

import keras
import numpy as np
import tensorflow as tf

import modelkeep as mk

STEPS = 8


def train(store: str, run: str, *, kill: bool = False) -> dict[str, Any]:
    with strategy.scope():
        keras.utils.set_random_seed(5)
        layers = [keras.layers.Dense(12, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((6,)), *layers], name="network")
        model.compile(keras.optimizers.Adam(0.01))
        model.optimizer.build(model.trainable_variables)

    def replica(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - 1.0) ** 2)
        weights = model.trainable_weights
        model.optimizer.apply(tape.gradient(loss, [one.value for one in weights]), weights)
        return loss

    step_of_all = tf.function(lambda x: strategy.run(replica, (x,)))
    np.random.seed(100 + int(rank))  # each has data of its own
    checkpoints = mk.open(store).checkpoints(run, every_steps=2)
    restored = checkpoints.restore(model)
    first, losses = restored.step + 1 if restored else 1, []
    with checkpoints:
        for step in range(first, STEPS + 1):
            x = tf.constant(np.random.normal(size=(8, 6)), tf.float32)
            losses.append(float(step_of_all(x)))
            checkpoints.save(step, model, extra=rank)
            if kill and step == 5:
                os.kill(os.getpid(), signal.SIGKILL)
    extra = restored.extra if restored else None
    return {"first": first, "losses": losses, "variables": digest(model), "extra": extra}


def digest(model: keras.Model) -> str:
    hashed = hashlib.sha256()
    for variable in (*model.variables, *model.optimizer.variables):
        hashed.update(np.asarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return hashed.hexdigest()


if __name__ == "__main__":
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    run = {"first": "whole", "second": "run"}[life]
    print(json.dumps(train(store, run)), flush=True)
    if life == "first":
        train(store, "run", kill=True)
