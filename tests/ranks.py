"""One of two processes that train a network together; what it saw is one JSON line.

``python tests/ranks.py <store> <meeting point> <rank> <life>``: the first life of a run ends in ``kill -9``, the second
goes on. The meeting point is a file that is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ |= {"KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": ""}

import keras
import numpy as np
import torch
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

import modelkeep as mk

STEPS = 12


def network() -> keras.Model:
    keras.utils.set_random_seed(5)
    layers = [keras.layers.Dense(12, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((6,)), *layers], name="network")
    model.compile(keras.optimizers.Adam(0.01))
    model.optimizer.build(model.trainable_variables)
    return model


def train(store: str, run: str, rank: int, ends: str = "", **options: Any) -> dict[str, Any]:
    model = network()
    together = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    checkpoints = mk.open(store).checkpoints(run, **(options or {"every_steps": 2}))
    np.random.seed(100 + rank)  # each has data of its own
    restored = checkpoints.restore(model)
    first = restored.step + 1 if restored else 1
    losses, kept = [], []
    with checkpoints:
        for step in range(first, STEPS + 1):
            x = torch.from_numpy(np.random.normal(size=(8, 6)).astype("float32"))
            together.zero_grad()
            loss = keras.ops.mean((together(x, training=True) - keras.ops.sum(x, axis=1, keepdims=True)) ** 2)
            loss.backward()
            weights = model.trainable_weights
            model.optimizer.apply([one.value.grad for one in weights], weights)
            losses.append(float(loss.detach()))
            if ends == "signal" and step == 5 and rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            if checkpoints.save(step, model, metrics={"loss": losses[-1]}, extra={"rank": rank}):
                kept.append(step)
            if ends == "kill" and step == 7:
                os.kill(os.getpid(), signal.SIGKILL)
    return {
        "first": first,
        "extra": restored.extra if restored else None,
        "losses": losses,
        "kept": kept,
        "variables": digest(model),
        "findings": [finding.check for finding in checkpoints.findings],
    }


def digest(model: keras.Model) -> str:
    hashed = hashlib.sha256()
    for variable in (*model.variables, *model.optimizer.variables):
        hashed.update(keras.ops.convert_to_numpy(variable).tobytes())
    return hashed.hexdigest()


def watch(store: str) -> list[str]:
    """What this process opens to write, or makes, in a store."""
    seen: list[str] = []

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in ("os.mkdir", "os.link", "os.rename", "os.remove") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and isinstance(arguments[0], str | Path) and str(arguments[0]).startswith(f"{store}/"):
            seen.append(f"{event} {arguments[0]}")

    sys.addaudithook(look)
    return seen


def first_life(store: str, rank: int, told: dict[str, Any]) -> None:
    told["undisturbed"] = train(store, "undisturbed", rank)
    told["by time"] = train(store, "by-time", rank, every_seconds=0.02)
    print(json.dumps(told), flush=True)
    train(store, "run", rank, "kill")


def second_life(store: str, rank: int, told: dict[str, Any]) -> None:
    told["resumed"] = train(store, "run", rank)
    try:
        train(store, "signalled", rank, "signal")
    except SystemExit as end:
        told["exit"] = end.code
    newest = mk.open(store).run("signalled").newest
    told["last"] = [newest.step, newest.reason]
    destroy_process_group()
    if rank == 0:
        told["alone"] = train(store, "run", rank)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    _, store, meeting_point, rank, life = sys.argv
    init_process_group("gloo", init_method=f"file://{meeting_point}", rank=int(rank), world_size=2)
    told: dict[str, Any] = {"wrote": watch(store)}
    {"first": first_life, "second": second_life}[life](store, int(rank), told)
