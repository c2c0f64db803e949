"""How long ``modelkeep list`` over 100 models of 20 versions takes beyond a bare interpreter's start.

Both run in turn, so that a busy machine slows both; medians side by side. Run: ``python bench/cold.py``.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from modelkeep.manifest import Manifest
from modelkeep.refs import SemVer
from modelkeep.registry import Registry
from modelkeep.storage import marker
from modelkeep.storage.local import LocalStore

MODELS, VERSIONS, ROUNDS = 100, 20, 21
BAR = 150  # milliseconds over a bare interpreter
BARE = "bare interpreter"


def main() -> None:
    """Build the store, run everything in turn, print a table."""
    with tempfile.TemporaryDirectory() as folder, compiled():
        build(Path(folder))
        commands = {
            BARE: ["-c", "pass"],
            "modelkeep --version": ["-m", "modelkeep", "--version"],
            "modelkeep --help": ["-m", "modelkeep", "--help"],
            "modelkeep list": ["-m", "modelkeep", "list", "--store", folder],
            "modelkeep versions": ["-m", "modelkeep", "versions", "team/model-050", "--store", folder],
            "modelkeep show": ["-m", "modelkeep", "show", "team/model-050@production", "--store", folder],
        }
        measured = in_turn(commands)
    wall, cpu = measured[BARE]
    print(f"{MODELS} models of {VERSIONS} versions, median of {ROUNDS}, milliseconds")
    print(f"{'':22}{'wall':>7}{'CPU':>7}{'wall over bare':>17}{'CPU over bare':>16}")
    for name, (own_wall, own_cpu) in measured.items():
        print(f"{name:22}{own_wall:7.0f}{own_cpu:7.0f}{own_wall - wall:17.0f}{own_cpu - cpu:16.0f}")
    over = measured["modelkeep list"][0] - wall
    print(f"the bar for modelkeep list: at most {BAR} over bare; it is {over:.0f}")


@contextmanager
def compiled() -> Iterator[None]:
    """Bytecode is kept between the runs, as pip keeps it for an installed package; in a folder of its own."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        yield


def build(folder: Path) -> None:
    """A store whose versions hold numbers and no tensors: listing reads nothing else."""
    store = LocalStore(folder)
    marker.ensure(store)
    registry = Registry(store)
    for model in (f"team/model-{number:03}" for number in range(MODELS)):
        for _ in range(VERSIONS):
            registry.publish(model, lambda number, model=model: manifest(model, number), bump="minor")
        registry.promote(f"{model}:1.5.0", "production")


def manifest(model: str, number: SemVer) -> Manifest:
    """A version as a saved one looks in a listing."""
    return Manifest(
        model=model,
        version=str(number),
        created="2026-05-01T12:00:00Z",
        writer="modelkeep",
        parameters=1_234_567,
        metrics={"accuracy": 0.92, "loss": 0.21},
        metadata={"dataset": "IMDB Reviews", "learning_rate": 1e-3},
        tags=("nightly",),
    )


def in_turn(commands: dict[str, Sequence[str]]) -> dict[str, tuple[float, float]]:
    """Median wall and CPU time of each command, in milliseconds; the commands take turns."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for arguments in commands.values():
        once(arguments)
    for _ in range(ROUNDS):
        for name, arguments in commands.items():
            samples[name].append(once(arguments))
    return {
        name: (statistics.median(wall for wall, _ in runs), statistics.median(cpu for _, cpu in runs))
        for name, runs in samples.items()
    }


def once(arguments: Sequence[str]) -> tuple[float, float]:
    """Wall and CPU time of one start of the interpreter, in milliseconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall * 1000, cpu * 1000


if __name__ == "__main__":
    main()
