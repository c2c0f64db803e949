"""Tensors into and out of a store on the real disk, against the raw disk and the bare hashing of the same bytes.

All cases take turns in one process, in another order each round, each on a quiet disk and with memory at hand (not
timed); medians side by side. The bytes are random, so nothing below can compress them.
Run: ``python bench/blobs.py [few-100 many-100 few-1000 many-1000] [--rounds n] [--folder on-a-real-disk]``.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import blake3

from modelkeep.manifest import Tensor
from modelkeep.storage.blobs import Blobs, TensorSource
from modelkeep.storage.local import LocalStore, write_all

MB = 10**6
SHAPES = {"few-100": (8, 100), "many-100": (2000, 100), "few-1000": (8, 1000), "many-1000": (2000, 1000)}
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Bar:
    """``case`` may take at most ``times`` the time of ``against``."""

    case: str
    against: str
    times: float


def bars(shape: str) -> list[Bar]:
    """What has to hold for a shape."""
    return [
        Bar("save", "plain write, fsync", 1.0 if shape.startswith("few") else 1.3),
        Bar("save again", "hash, all cores", 1.3),
        Bar("map, verified", "hash, all cores", 1.3),
    ]


def main() -> None:
    """Measure each shape, print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), metavar="shape", help=", ".join(SHAPES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; not a tmpfs")
    options = parser.parse_args()
    for shape in options.shapes:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-blobs-") as folder:
            report(shape, measure(shape, Path(folder), options.rounds))


def measure(shape: str, folder: Path, rounds: int) -> dict[str, float]:
    """Median seconds of each case."""
    count, megabytes = SHAPES[shape]
    data = [os.urandom(megabytes * MB // count) for _ in range(count)]
    case = Case(folder, data)
    cases: dict[str, Callable[[], None]] = {
        "plain write, fsync": case.plain,
        "early write-back, fsync": case.early,
        "save": case.save,
        "save again": case.save_again,
        "hash, all cores": case.hash_all,
        "map, verified": lambda: case.map("eager"),
        "map, verified later": lambda: case.map("lazy"),
    }
    samples: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    case.save()
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            samples[name].append(timed(cases[name], case))
    return {name: statistics.median(values) for name, values in samples.items()}


class Case:
    """The same bytes, written and read in each way."""

    def __init__(self, folder: Path, data: Sequence[bytes]) -> None:
        self.file = folder / "raw"
        self.store = folder / "store"
        self.data = data
        self.sources = [
            TensorSource(f"tensor/{number}", "uint8", (len(tensor),), len(tensor), partial(data.__getitem__, number))
            for number, tensor in enumerate(data)
        ]
        self.tensors: tuple[Tensor, ...] = ()

    def prepare(self, run: Callable[[], None]) -> None:
        """Remove what ``run`` is about to write, and let the disk come to rest."""
        if run == self.save:
            shutil.rmtree(self.store, ignore_errors=True)
            LocalStore(self.store).create("modelkeep.json", [b"{}"])
        # A virtual machine gives free memory back to its host, and whoever writes first pays for getting it again.
        self.file.unlink(missing_ok=True)
        with self.file.open("xb", buffering=0) as file:
            write_all(file.fileno(), self.data)
        os.sync()
        self.file.unlink()

    def plain(self) -> None:
        with self.file.open("xb", buffering=0) as file:
            for data in self.data:
                file.write(data)
            os.fsync(file.fileno())

    def early(self) -> None:
        with self.file.open("xb", buffering=0) as file:
            write_all(file.fileno(), self.data)
            os.fsync(file.fileno())

    def save(self) -> None:
        self.tensors = Blobs(LocalStore(self.store)).write(self.sources).tensors

    def save_again(self) -> None:
        known = {tensor.digest: tensor.pieces for tensor in self.tensors}
        written = Blobs(LocalStore(self.store)).write(self.sources, known=known)
        if written.new_bytes:
            raise SystemExit(f"an unchanged save wrote {written.new_bytes} bytes")

    def hash_all(self) -> None:
        if len(self.data[0]) >= 4 * MB:
            for data in self.data:
                blake3.blake3(data, max_threads=blake3.blake3.AUTO).digest()
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(hash_each, (self.data[start : start + 50] for start in range(0, len(self.data), 50))))

    def map(self, verify: str) -> None:
        mapped = Blobs(LocalStore(self.store)).map(self.tensors, verify=verify)  # type: ignore[arg-type]
        if len(mapped.views) != len(self.data):
            raise SystemExit("not every tensor was mapped")


def hash_each(group: Sequence[bytes]) -> None:
    """The digests of a few small tensors."""
    for data in group:
        blake3.blake3(data).digest()


def timed(run: Callable[[], None], case: Case) -> float:
    """Seconds that ``run`` takes."""
    case.prepare(run)
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def report(shape: str, seconds: dict[str, float]) -> None:
    """Print one shape's table."""
    count, megabytes = SHAPES[shape]
    print(f"\n{shape}: {count:,} tensors, {megabytes:,} MB")
    for name, value in seconds.items():
        print(f"  {name:26}{value * 1000:9.1f} ms{megabytes / 1000 / value:9.2f} GB/s")
    for bar in bars(shape):
        ratio = seconds[bar.case] / seconds[bar.against]
        verdict = "met" if ratio <= bar.times else "MISSED"
        print(f"  {bar.case} / {bar.against}: {ratio:.2f}, the bar is {bar.times} ({verdict})")


if __name__ == "__main__":
    main()
