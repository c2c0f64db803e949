"""How long it takes to look into and to scan model files of 1 GB, and how much memory, from the command line.

Both run in turn with a bare read of every byte, so that a busy machine slows all; medians side by side. Memory is the
largest resident set of the command and of every process it starts. Run: ``python bench/files.py [--megabytes n]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

ROUNDS = 5
FILES = ("model.keras", "model.weights.h5", "saved_model", "model.safetensors")
BARS = "bars for 1 GB: inspect < 1 s; scan of .keras and SavedModel < 2 s and < 200 MB"
READ = "import sys, zlib\nfor path in sys.argv[1:]:\n    file = open(path, 'rb')\n    while file.read(2**24): pass\n"


def main() -> None:
    """Write the files, run everything in turn, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = given.megabytes
    if given.write:
        write(given.write, size)
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("MODELKEEP_BENCH")) as folder:
        # In a process of its own: a child's largest resident set begins with what its parent had.
        subprocess.run([sys.executable, __file__, "--megabytes", str(size), "--write", folder], check=True)
        files = [Path(folder, name) for name in FILES]
        print(f"{BARS}\n{size} MB, median of {ROUNDS}\n{'':38}{'wall, s':>9}{'CPU, s':>9}{'memory, MB':>12}")
        for path in files:
            commands = {
                "read every byte": ["-c", READ, *map(str, everything(path))],
                "modelkeep inspect": ["-m", "modelkeep", "inspect", str(path)],
                "modelkeep scan": ["-m", "modelkeep", "scan", str(path)],
            }
            for name, taken in in_turn(commands).items():
                print(f"{path.name:20}{name:18}{taken[0]:9.2f}{taken[1]:9.2f}{taken[2]:12.0f}", flush=True)


def write(folder: Path, megabytes: int) -> None:
    """One model in every form that is large: random weights, which nothing can compress."""
    import keras
    import numpy as np

    units = int((megabytes * 1e6 / 4 / 4) ** 0.5)
    model = keras.Sequential([keras.Input((units,)), *(keras.layers.Dense(units, use_bias=False) for _ in range(4))])
    for layer in model.layers:
        layer.set_weights([np.random.default_rng(0).standard_normal((units, units), dtype="float32")])
    paths = [folder / name for name in FILES]
    model.save(paths[0])
    model.save_weights(paths[1])
    model.export(paths[2], verbose=False)

    import modelkeep as mk

    mk.save(model, paths[3], golden=np.zeros((2, units), "float32"))


def everything(path: Path) -> Sequence[Path]:
    """The files of a folder, or the file itself."""
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def in_turn(commands: dict[str, list[str]]) -> dict[str, tuple[float, float, float]]:
    """Seconds by the clock and of CPU, and megabytes, of each command: medians of the rounds."""
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            taken[name].append(once([sys.executable, *command]))
    return {
        name: (
            statistics.median(row[0] for row in rows),
            statistics.median(row[1] for row in rows),
            statistics.median(row[2] for row in rows),
        )
        for name, rows in taken.items()
    }


def once(command: Sequence[str]) -> tuple[float, float, float]:
    """One run of a command and all it starts."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


if __name__ == "__main__":
    main()
