"""Trainings on eight devices of JAX, each life of them in a process of its own; it prints what it saw as one JSON line.

``python tests/meshes.py <store> <act>``, the acts in the order of their names in :data:`ACTS`: the first ones end in
``kill -9``, and the one after goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import prod
from typing import Any

if __name__ == "__main__":
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import keras
import numpy as np

import modelkeep as mk
from modelkeep.errors import CannotLoad

X = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
Y = X[:, :8] * 2
LAYOUTS: Mapping[str, Mapping[str, tuple[str | None, ...]]] = {
    "columns": {"wide.*kernel": (None, "model"), "wide.*bias": ("model",), "both.*kernel": ("batch", "model")},
    "rows": {"wide.*kernel": ("model", None), "both.*kernel": ("model", "batch")},
}


def spread(rows: int, columns: int, layout: str = "columns") -> None:
    """Lay what is made from now on over a mesh of so many devices."""
    devices = keras.distribution.list_devices("cpu")[: rows * columns]
    mesh = keras.distribution.DeviceMesh((rows, columns), ("batch", "model"), devices)
    layouts = keras.distribution.LayoutMap(mesh)
    for path, axes in LAYOUTS[layout].items():
        layouts[f".*{path}.*"] = axes
    keras.distribution.set_distribution(keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch"))


def replicate() -> None:
    keras.distribution.set_distribution(keras.distribution.DataParallel())


def network(dtype: str | None = None) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(48, "relu", name="wide", dtype=dtype),
            keras.layers.Dropout(0.2, name="dropout"),
            keras.layers.Dense(24, name="both", dtype=dtype),
            keras.layers.Dense(8, name="last"),
        ],
        name="network",
    )
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model


class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == 7:
            os.kill(os.getpid(), signal.SIGKILL)


def train(store: str, run: str, *, kill: bool = False, dtype: str | None = None) -> dict[str, Any]:
    model = network(dtype)
    checkpoints = mk.open(store).checkpoints(run, every_steps=2)
    callbacks = [Kill()] if kill else []
    history = checkpoints.fit(model, X, Y, batch_size=16, epochs=3, verbose=0, callbacks=callbacks)
    return {"history": history.history, "variables": digest(model)}


def digest(model: keras.Model) -> str:
    hashed = hashlib.sha256()
    for variable in (*model.variables, *model.optimizer.variables):
        hashed.update(np.asarray(variable.value).tobytes())
    return hashed.hexdigest()


def places(model: keras.Model) -> dict[str, list[int]]:
    """The shape of the part on one device, of the kernels and what the optimizer keeps of them."""
    kernels = {layer: model.get_layer(layer).kernel for layer in ("wide", "both")}
    slots = {
        one.name.removeprefix("network_"): one  # which of the weights' names follow depends on when it was built
        for one in model.optimizer.variables
        if "kernel" in one.name and "last" not in one.name
    }
    return {name: list(one.value.addressable_shards[0].data.shape) for name, one in (kernels | slots).items()}


@contextmanager
def watched() -> Iterator[set[str]]:
    """Notes each array that lies whole on one device and is as large as a variable that should be in parts.

    Whenever a function of modelkeep's live rooms calls another or ends, in every thread.
    """
    seen: set[str] = set()
    import jax

    earlier = jax.live_arrays()  # of other models; held, so that no new one takes the place of an old one
    known = set(map(id, earlier))

    def look(frame: Any, event: str, _: Any) -> None:
        if "modelkeep/live/" in frame.f_code.co_filename:
            for array in jax.live_arrays():
                if (
                    id(array) not in known
                    and array.shape in ((16, 48), (48, 24))
                    and prod(array.sharding.shard_shape(array.shape)) == array.size
                ):
                    seen.add(f"{frame.f_code.co_name} {array.shape}")

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


# --- acts


def undisturbed(store: str) -> None:
    spread(2, 4)
    told = {"parallel": train(store, "undisturbed")}
    replicate()
    told["replicated"] = train(store, "undisturbed-replicated")
    tell(told)
    spread(2, 4)
    train(store, "parallel", kill=True)


def resumed(store: str) -> None:
    spread(2, 4)
    tell({"parallel": train(store, "parallel")})
    replicate()
    train(store, "replicated", kill=True)


def elsewhere(store: str) -> None:
    """What was kept on two times four devices, on others."""
    replicate()
    told: dict[str, Any] = {"replicated": train(store, "replicated")}
    keep = mk.open(store)
    for name, mesh in {"2x2": (2, 2), "4x2 rows": (4, 2, "rows"), "1x3": (1, 3), "2x4": (2, 4)}.items():
        spread(*mesh)
        model = network()
        assert keep.checkpoints("undisturbed").restore(model) is not None
        told[name] = [digest(model), places(model)]
    spread(4, 2, "rows")
    loaded = keep.load("undisturbed@last").model
    told["loaded"] = [digest(loaded), places(loaded)]
    keras.distribution.set_distribution(None)
    model = network()
    assert keep.checkpoints("undisturbed").restore(model) is not None
    told["one"] = [digest(model), places(model)]
    published = keep.publish("undisturbed@last", "whole")
    told["published"] = digest(keep.load(published.ref).model)
    told["names"] = [tensor.name for tensor in published.manifest.tensors]
    told["measured"] = measured(store)
    tell(told)


def measured(store: str) -> dict[str, Any]:
    """Whether anything whole lies on one device while a checkpoint is made, restored and loaded."""
    import jax

    told: dict[str, Any] = {}
    spread(2, 4)
    model = network()
    model.optimizer.build(model.trainable_variables)
    keep = mk.open(store)
    with watched() as seen:
        checkpoints = keep.checkpoints("measured")
        checkpoints.save(1, model, force=True)
        checkpoints.close()
        told["saved"] = sorted(seen)
    with watched() as seen:
        checkpoints.restore(model)
        told["restored"] = sorted(seen)
    with watched() as seen:
        loaded = keep.load("measured@1").model
        told["loaded"] = sorted(seen)
    told["equal"] = digest(loaded) == digest(model)
    with watched() as seen:
        whole = jax.device_put(np.zeros((16, 48), "float32"), jax.devices()[3])
        keep.load("measured@1", compile=False)
        told["one whole"] = sorted({one.partition(" ")[2] for one in seen})
    del whole
    told["parts"] = {}
    for tensor in keep.manifest("measured@1").tensors:
        told["parts"].setdefault(tensor.name.partition("#")[0], []).append(tensor.shape)
    told["half"] = train(store, "half", dtype="bfloat16")["variables"]
    spread(4, 2, "rows")
    model = network("bfloat16")
    keep.checkpoints("half").restore(model)
    told["half elsewhere"] = digest(model)
    keras.distribution.set_distribution(None)
    model = network()
    told["transferred"] = keep.transfer("measured@1", into=model).report.ok
    with suppress(CannotLoad):
        keep.average(["measured@1", "undisturbed@last"])
        told["averaged"] = True
    told["equal kernels"] = np.array_equal(model.get_layer("both").kernel, loaded.get_layer("both").kernel)
    return told
    return told


ACTS = {act.__name__: act for act in (undisturbed, resumed, elsewhere)}


def tell(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    _, store, act = sys.argv
    ACTS[act](store)
