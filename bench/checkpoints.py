"""What checkpoints cost a training: against Keras' own, against asynchronous Orbax, against a plain copy in memory.

stall: how long the loop waits for a checkpoint, and how much slower the steps after it are; lost: both, in steps.
Every saver trains the same network in turn, in one process for each backend and size; medians side by side.
throughput: a training with a checkpoint every 10 seconds against one without. disk: 100 checkpoints of a network of
which 90 % are frozen, against one whole and 100 of what changes.
Run: ``python bench/checkpoints.py [stall] [throughput] [disk] [--backends …] [--sizes 100 300 1000] [--rounds n]``.
Orbax is measured where ``orbax-checkpoint`` is installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# MB of state → units of three Dense kernels (Adam keeps two more of each), examples in a batch.
SIZES = {"100": (1670, 32), "300": (2890, 64), "1000": (5270, 16), "many-100": (112, 32)}
STEPS, EVERY = 11, 6  # one checkpoint, after step 6, and what comes of it until step 11: never a second one that waits
WHAT = ["stall", "throughput", "disk"]
COPY, NONE, KEEP, H5 = "memcpy", "no checkpoints", "modelkeep", "ModelCheckpoint .weights.h5"
BARS = """bars: modelkeep's stall <= 1.2 x memcpy, on TensorFlow <= 5 ms; at 300 MB <= 2 steps lost, and at all sizes
      ModelCheckpoint >= 5 x, asynchronous Orbax more; throughput >= 97 %; disk <= 1.2 x one whole + what changed"""


def main() -> None:
    """Run every backend and size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*WHAT, []], default=WHAT)
    parser.add_argument("--backends", nargs="*", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=["100", "300", "1000"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        measure(given.what[0], given.sizes[0], given.rounds)
        return
    print(BARS)
    for backend in given.backends:
        for what in given.what:
            for size in given.sizes if what == "stall" else ["300"]:
                command = [sys.executable, __file__, what, "--here", "--sizes", size, "--rounds", str(given.rounds)]
                subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, check=True)


def measure(what: str, size: str, rounds: int) -> None:
    """Print one table."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("MODELKEEP_BENCH")) as folder:
        {"stall": stall, "throughput": throughput, "disk": disk}[what](Path(folder), size, rounds)
    sys.stdout.flush()


# --- what the loop waits for


def stall(folder: Path, size: str, rounds: int) -> None:
    """Train with every saver in turn; how long the loop stood after a checkpoint's step, and what came after."""
    import keras

    model, x, y = network(size), *data(size, STEPS)
    model.fit(x[:128], y[:128], batch_size=64, verbose=0)
    state = sum(sizes(model))
    taken: dict[str, list[Any]] = {}  # clocks
    copies = []
    for _ in range(rounds):
        copies.append(memcpy(model))
        for saver, fit in savers(folder).items():
            os.sync()
            clock = new_clock()
            fit(model, x, y, clock, SIZES[size][1])
            taken.setdefault(saver, []).append(clock)
            shutil.rmtree(folder)
            folder.mkdir()
    copy = statistics.median(copies)
    plain = [seconds for clock in taken[NONE] for seconds in clock.steps[1:]]
    step, gap = statistics.median(plain), statistics.median(g for clock in taken[NONE] for g in clock.gaps)
    print(f"\n{keras.backend.backend()}: {state / 1e6:.0f} MB of state, a step {step * 1e3:.0f} ms; median of {rounds}")
    print(f"{'':30}{'stall, ms':>11}{'to memcpy':>11}{'after, ms':>11}{'steps lost':>11}{'to modelkeep':>13}")
    print(f"{COPY:30}{copy * 1e3:11.1f}")
    rows = {
        saver: (
            statistics.median(clock.gaps[EVERY - 1] for clock in clocks) - gap,
            statistics.median(sum(clock.steps[EVERY:]) for clock in clocks) - (STEPS - EVERY) * step,
        )
        for saver, clocks in taken.items()
        if saver != NONE
    }
    ours = sum(rows[KEEP])
    for saver, (direct, after) in rows.items():
        lost = direct + after
        to_ours = f"{direct / rows[KEEP][0]:8.1f}{lost / ours:5.1f}" if saver != KEEP else ""
        print(f"{saver:30}{direct * 1e3:11.1f}{direct / copy:11.2f}{after * 1e3:11.1f}{lost / step:11.2f}{to_ours:>13}")


def savers(folder: Path) -> dict[str, Callable[..., None]]:
    """Each a training with a checkpoint after its sixth step, written by whom its name says."""
    import keras

    import modelkeep as mk

    def with_callback(make: Callable[[], Any]) -> Callable[..., None]:
        def fit(model: Any, x: Any, y: Any, clock: Any, batch: int) -> None:
            model.fit(x, y, batch_size=batch, verbose=0, shuffle=False, callbacks=[clock, make()])

        return fit

    def ours(model: Any, x: Any, y: Any, clock: Any, batch: int) -> None:
        checkpoints = mk.open(folder / "store").checkpoints("run", every_steps=EVERY)
        checkpoints.fit(model, x, y, batch_size=batch, verbose=0, shuffle=False, callbacks=[clock])

    built_in = keras.callbacks
    found = {
        NONE: with_callback(built_in.Callback),
        KEEP: ours,
        H5: with_callback(
            lambda: built_in.ModelCheckpoint(folder / "m.weights.h5", save_weights_only=True, save_freq=EVERY)
        ),
        "ModelCheckpoint .keras": with_callback(lambda: built_in.ModelCheckpoint(folder / "m.keras", save_freq=EVERY)),
        "BackupAndRestore": with_callback(lambda: built_in.BackupAndRestore(folder / "backup", save_freq=EVERY)),
    }
    if find_spec("orbax") and hasattr(built_in, "OrbaxCheckpoint"):
        found["OrbaxCheckpoint, asynchronous"] = with_callback(
            lambda: built_in.OrbaxCheckpoint(str(folder / "orbax"), save_freq=EVERY)
        )
    return found


def memcpy(model: Any) -> float:
    """Seconds to copy as many bytes as the model's state has, array by array, into memory used before."""
    import numpy as np

    pairs = [(np.ones(size, np.uint8), np.ones(size, np.uint8)) for size in sizes(model)]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        for source, target in pairs:
            np.copyto(target, source)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


# --- all in all


def throughput(folder: Path, size: str, rounds: int) -> None:
    """Trainings of half a minute with a checkpoint every 10 seconds and without, in turn."""
    import keras

    import modelkeep as mk

    model = network(size)
    x, y = data(size, 40)
    batch = SIZES[size][1]
    model.fit(x, y, batch_size=batch, verbose=0)
    start = time.perf_counter()
    model.fit(x, y, batch_size=batch, verbose=0)
    epochs = max(1, round(32 / (time.perf_counter() - start)))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for keeps in (False, True):
            clock = new_clock()
            # The same feed for both: only the checkpoints are to differ.
            every = 10 if keeps else 10**6
            checkpoints = mk.open(folder / "store").checkpoints(
                f"run-{len(seconds[keeps])}{keeps}", every_seconds=every
            )
            checkpoints.fit(model, x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=[clock])
            seconds[keeps].append(clock.last - clock.first)
            shutil.rmtree(folder / "store")
    without, with_them = (statistics.median(seconds[keeps]) for keeps in (False, True))
    print(
        f"\n{keras.backend.backend()}: {epochs * 40} steps take {without:.1f} s, with a checkpoint every 10 s "
        f"{with_them:.1f} s: throughput {without / with_them:.1%}; median of {rounds}"
    )


def disk(folder: Path, size: str, rounds: int) -> None:
    """A hundred checkpoints of a network of ten layers, of which nine are frozen."""
    import keras
    import numpy as np

    import modelkeep as mk

    model = keras.Sequential([keras.Input((600,)), *(keras.layers.Dense(600) for _ in range(10))])
    for layer in model.layers[:9]:
        layer.trainable = False
    model.compile("adam", "mse")
    x = np.random.default_rng(0).random((100, 600), "float32")
    keep = mk.open(folder / "store")
    keep.checkpoints("run", every_steps=1, keep_last=None).fit(model, x, x, batch_size=1, verbose=0)
    taken = sum(file.stat().st_size for file in (folder / "store").rglob("*") if file.is_file())
    whole = sum(sizes(model))
    changes = whole - sum(4 * prod(variable.shape) for variable in model.non_trainable_variables)
    count = len(keep.run("run").checkpoints)
    print(
        f"\n{keras.backend.backend()}: {count} checkpoints of {whole / 1e6:.1f} MB, {changes / 1e6:.1f} of it new, "
        f"take {taken / 1e6:.0f} MB: {taken / (whole + (count - 1) * changes):.3f} x one whole + what changed"
    )


# --- a training


def new_clock() -> Any:
    """A callback that times each step, and each gap until the next, in which other callbacks have their turn."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.steps: list[float] = []
            self.gaps: list[float] = []
            self.began = self.last = 0.0
            self.first = time.perf_counter()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()
            if self.steps:
                self.gaps.append(self.began - self.last)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float(logs["loss"])  # JAX is still computing until somebody asks
            self.last = time.perf_counter()
            self.steps.append(self.last - self.began)

        def get_state(self) -> dict[str, Any]:
            return {}  # what it measures is no part of the training

        def set_state(self, state: dict[str, Any]) -> None:
            pass

        def on_train_end(self, logs: Any = None) -> None:
            self.last = time.perf_counter()

    return Clock()


def network(size: str) -> Any:
    """A chain of Dense layers, trained by Adam."""
    import keras

    units = SIZES[size][0]
    depth = 220 if size.startswith("many") else 3
    model = keras.Sequential(
        [keras.Input((units,)), *(keras.layers.Dense(units, use_bias=False) for _ in range(depth))]
    )
    model.compile(keras.optimizers.Adam(1e-6), "mse")
    return model


def sizes(model: Any) -> list[int]:
    """Bytes of each of the network's variables and Adam's."""
    return [4 * prod(variable.shape) for variable in [*model.variables, *model.optimizer.variables]]


def data(size: str, steps: int) -> tuple[Any, Any]:
    """As many batches."""
    import numpy as np

    units, batch = SIZES[size]
    x = np.random.default_rng(0).random((steps * batch, units), "float32")
    return x, x


if __name__ == "__main__":
    main()
