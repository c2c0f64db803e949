"""A trained model saved and loaded, against plain Keras, the raw disk, and the bare hashing of its bytes.

All cases take turns in one process for each backend and size; medians side by side. Memory is what the process
holds privately beyond what it held before (RssAnon), sampled each millisecond.
Run: ``python bench/models.py [backend…] [--sizes few-100 many-100 few-1000] [--rounds n]``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Kernels of Dense layers, in units; Adam keeps two more tensors for each.
SIZES = {
    "few-100": [1450] * 4,  # 12 tensors of 8 MB
    "many-100": [112] * 667,  # 2,001 tensors of 50 kB
    "few-1000": [4590] * 4,  # 12 tensors of 84 MB
}
BARS = """bars: save <= 1.0 raw (few), 1.3 (many); .weights.h5 >= 15 x save (many); .keras >= 3 x save; memory <= 64 MB
      load <= 1.3 hashing (few); load_weights >= 4 x load, load_model >= 5 x load; memory <= 64 MB"""
RAW, SAVE, SAVE_WEIGHTS = "raw write + fsync", "modelkeep save", "modelkeep save, weights"
HASH, LOAD, LOAD_WEIGHTS = "hash all bytes", "modelkeep load", "modelkeep load, weights"


def main() -> None:
    """Run every backend and size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backends", nargs="*", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        measure(given.one, given.rounds)
        return
    print(BARS)
    for backend in given.backends:
        for size in given.sizes:
            command = [sys.executable, __file__, "--one", size, "--rounds", str(given.rounds)]
            subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, check=True)


def measure(size: str, rounds: int) -> None:
    """Save and load one model in every way, in turn, and print a table."""
    import keras

    from modelkeep.live.capture import capture
    from modelkeep.live.restore import restore, restore_into
    from modelkeep.manifest import Manifest, Part
    from modelkeep.storage.blobs import Blobs
    from modelkeep.storage.local import LocalStore

    model = trained(size)
    arrays = [
        memoryview(keras.ops.convert_to_numpy(v).reshape(-1).view("uint8"))
        for v in model.optimizer.variables + model.weights
    ]
    total = sum(len(array) for array in arrays)

    with tempfile.TemporaryDirectory(dir=os.environ.get("MODELKEEP_BENCH")) as name:
        folder = Path(name)
        weights, whole = folder / "model.weights.h5", folder / "model.keras"
        kept: dict[str, Any] = {}
        other = trained(size, fill=False)

        def save(*, architecture: bool = True) -> None:
            blobs = Blobs(LocalStore(folder / "store"))
            captured = capture(model, architecture=architecture)
            written = blobs.write(captured.tensors)
            parts = [Part(name=part, digest=blobs.put(data), size=len(data)) for part, data in captured.parts.items()]
            kept["manifest"] = Manifest(
                model="m",
                version="1.0.0",
                created="",
                writer="",
                parts=tuple(parts),
                tensors=written.tensors,
                signature=captured.signature,
            )
            kept["blobs"] = blobs
            kept["parts"] = {part.name: part.digest for part in parts}

        def read_part(part: str) -> bytes:
            data: bytes = kept["blobs"].get(kept["parts"][part])
            return data

        def views(verify: Any = "eager") -> Any:
            return kept["blobs"].map(kept["manifest"].tensors, verify=verify).views

        def synced(path: Path, write: Callable[[Any], Any]) -> None:
            write(path)
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

        saving: dict[str, Callable[[], Any]] = {
            RAW: lambda: raw(folder / "raw", arrays),
            SAVE_WEIGHTS: lambda: save(architecture=False),
            SAVE: save,
            ".weights.h5 + fsync": lambda: synced(weights, model.save_weights),
            ".keras + fsync": lambda: synced(whole, model.save),
        }
        loading: dict[str, Callable[[], Any]] = {
            HASH: lambda: hash_all(views(None)),
            LOAD_WEIGHTS: lambda: restore_into(other, kept["manifest"], read_part, views()),
            LOAD: lambda: restore(kept["manifest"], read_part, views()),
            "modelkeep load, lazily": lambda: restore(kept["manifest"], read_part, views("lazy")),
            "load_weights": lambda: other.load_weights(weights),
            "load_model": lambda: keras.saving.load_model(whole),
        }
        taken: dict[str, list[tuple[float, float]]] = {case: [] for case in (*saving, *loading)}
        for _ in range(rounds):
            for case, run in {**saving, **loading}.items():
                if case in (RAW, SAVE_WEIGHTS, SAVE):  # nobody is to gain from, or wait for, what lies there already
                    shutil.rmtree(folder / "store", ignore_errors=True)
                for file in (folder / "raw", *([weights, whole] if case == RAW else [])):
                    file.unlink(missing_ok=True)
                os.sync()
                taken[case].append(once(run))
    largest = max(prod(v.shape) * 4 for v in model.weights)
    title = f"{keras.backend.backend()}, {size}: {len(arrays)} tensors, {total / 1e6:.0f} MB"
    print(f"\n{title}, largest {largest / 1e6:.0f} MB; median of {rounds}")
    print(f"{'':24}{'seconds':>9}{'to raw/hash':>13}{'memory, MB':>12}")
    seconds, memory = (
        {case: statistics.median(row[column] for row in rows) for case, rows in taken.items()} for column in (0, 1)
    )
    for case in taken:
        unit = seconds[RAW if case in saving else HASH]
        print(f"{case:24}{seconds[case]:9.3f}{seconds[case] / unit:13.2f}{memory[case] / 1e6:12.0f}")
    for slow, fast in (
        (".weights.h5 + fsync", SAVE_WEIGHTS),
        (".keras + fsync", SAVE),
        ("load_weights", LOAD_WEIGHTS),
        ("load_model", LOAD),
    ):
        print(f"  {slow} takes {seconds[slow] / seconds[fast]:.1f} times {fast}")
    sys.stdout.flush()


def hash_all(views: dict[str, memoryview]) -> None:
    """Digest every tensor, on all cores, small ones together: what any verified load has to do."""
    from concurrent.futures import ThreadPoolExecutor

    from modelkeep.storage.hashing import digest_of

    batches: list[list[memoryview]] = [[]]
    for view in views.values():
        batches[-1].append(view)
        if sum(map(len, batches[-1])) > 4 * 2**20:
            batches.append([])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda batch: [digest_of(view) for view in batch], batches))


def trained(size: str, *, fill: bool = True) -> Any:
    """A chain of Dense layers with Adam's slots, no two tensors alike; cheap to build and never really trained."""
    import keras
    import numpy as np

    units = SIZES[size]
    x = inputs = keras.Input((units[0],))
    for width in units:
        x = keras.layers.Dense(width, use_bias=False, kernel_initializer="zeros")(x)
    model = keras.Model(inputs, x)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    if fill:
        block = np.random.default_rng(0).standard_normal(units[0] ** 2, dtype="float32").reshape(units[0], -1) * 0.02
        for number, variable in enumerate([*model.weights, *model.optimizer.variables[2:]]):
            variable.assign(block + np.float32(number * 1e-3))
    return model


def raw(path: Path, arrays: list[memoryview]) -> None:
    """The same bytes, written one after the other and synced: what any durable save has to do."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for start in range(0, len(arrays), 1000):
        left = arrays[start : start + 1000]
        while left:
            done = os.writev(descriptor, left)
            while left and done >= len(left[0]):
                done -= len(left.pop(0))
            if done:
                left[0] = left[0][done:]
    os.fsync(descriptor)
    os.close(descriptor)


def once(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds, and the peak of new private memory in bytes while it ran and its result was still held."""
    with peak() as memory:
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        time.sleep(0.01)
    del result
    return seconds, memory[0]


@contextmanager
def peak() -> Iterator[list[float]]:
    """Sample private memory; the list holds the highest value over the first."""
    highest = [0.0]
    before, over = private(), threading.Event()

    def sample() -> None:
        while not over.wait(0.001):
            highest[0] = max(highest[0], private() - before)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield highest
    finally:
        over.set()
        sampler.join()


def private() -> float:
    """Bytes this process holds for itself: RssAnon."""
    status = Path("/proc/self/status").read_text()
    return 1024 * float(status.partition("RssAnon:")[2].split()[0])


if __name__ == "__main__":
    main()
