"""Trainings killed again and again, held against ones that never were: whatever they tell must be equal to the bit.

``python tests/exactness.py`` kills each of ``trainings.py`` under each backend, at five moments and once more while it
goes on, and puts what came of it into the tables of ``docs/guide/exact-resume.md``. Under ``--zygote`` it is the
process in which backends are imported once: each life of a training is a child forked off it before any operation was
run, which costs milliseconds instead of the import.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")
PAGE = Path(__file__).parent.parent / "docs" / "guide" / "exact-resume.md"
KILLS = 5
PATIENCE = 240
"""Seconds after which a life counts as hanging."""

Line = list[Any]
"""One event: its name, where in training it was, and last what was seen, every float as ``float.hex`` tells it."""


@dataclass(frozen=True)
class Life:
    """One process that trains: where it writes, who keeps its checkpoints, and when it is killed."""

    training: str
    folder: str
    number: int = 0
    by: str = "modelkeep"  # or "keras": plain fit; or fit with one of KERAS
    at: Line | None = None  # the event after which it is killed
    operation: int | None = None  # or how many things it may do to files
    by_signal: int = signal.SIGKILL

    @property
    def log(self) -> Path:
        return Path(self.folder) / f"{self.number}.jsonl"

    @property
    def errors(self) -> Path:
        return Path(self.folder) / f"{self.number}.txt"

    def lines(self) -> list[Line]:
        """What it told before its end; a line that was cut off does not count."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


# --- the parent: lives, kills and comparisons


class Zygote:
    """A process with a backend in it, of which every life is a child."""

    def __init__(self, backend: str) -> None:
        self.compiled = tempfile.TemporaryDirectory()
        surroundings = {
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
            "JAX_PLATFORMS": "cpu",
            # What one life of a training compiled, the next ones need not.
            "JAX_COMPILATION_CACHE_DIR": self.compiled.name,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--zygote"],
            env={**os.environ, **surroundings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.trainings: dict[str, dict[str, Any]] = self._answer()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.compiled.cleanup()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline() or "null")

    def live(self, life: Life) -> int:
        """Its exit code; of a signal that killed it the negative number."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(life)) + "\n")
        self.process.stdin.flush()
        return int(self._answer())


@dataclass(frozen=True)
class Outcome:
    """How a training that was killed compares with one that never was."""

    kills: int
    difference: str | None  # the first one


def reference(zygote: Zygote, training: str, folder: Path, by: str = "modelkeep") -> list[Line]:
    """What it tells when nobody kills it."""
    life = Life(training, str(folder), by=by)
    folder.mkdir(parents=True)
    if code := zygote.live(life):
        raise RuntimeError(f"{training} ends with {code}: {life.errors.read_text(encoding='utf-8')[-3000:]}")
    return life.lines()


def killed(
    zygote: Zygote, training: str, folder: Path, told: list[Line], chance: random.Random, *, by: str = "modelkeep"
) -> Outcome:
    """Kill it at a random moment, once more while it goes on, and let it come to its end."""
    folder.mkdir(parents=True)
    events = len(told) - 1  # the last line is what training left
    kills, reached = 0, 0
    for number in range(3):
        at = operation = None
        if number == 0 and by == "modelkeep" and chance.random() < 0.4:
            operation = chance.randrange(1, 2 * events)
        elif number < 2 and reached < events:
            at = told[chance.randrange(reached, events)][:-1]
        life = Life(training, str(folder), number, by, at, operation)
        code = zygote.live(life)
        kills += code == -signal.SIGKILL
        if code not in (0, -signal.SIGKILL):
            return Outcome(kills, f"life {number} ends with {code}: {life.errors.read_text(encoding='utf-8')[-2000:]}")
        if difference := compare(told, life.lines(), reached):
            return Outcome(kills, f"life {number}: {difference}")
        reached = max([reached, *(place(told, line) + 1 for line in life.lines())])
        if code == 0:
            break
    return Outcome(kills, None if reached == len(told) else "it did not come to its end")


def place(told: list[Line], line: Line) -> int:
    """Which event of the whole training this is."""
    return next(index for index, other in enumerate(told) if other[:-1] == line[:-1])


def compare(told: list[Line], lines: list[Line], reached: int) -> str | None:
    """What a life told that the one that never was killed did not, or told otherwise; no event may be left out."""
    start: int | None = None
    for index, line in enumerate(lines):
        try:
            at = place(told, line)
        except StopIteration:
            return f"{line[:-1]} never was"
        if start is None:
            start = at
            if at > reached:
                return f"it goes on at {line[:-1]}, but {told[reached][:-1]} was not done"
        if at != start + index:
            return f"{line[:-1]} comes where {told[start + index][:-1]} should"
        if line != told[at]:
            return f"{line[:-1]}: {first_difference(told[at][-1], line[-1])}"
    return None


def first_difference(expected: Any, found: Any, where: str = "") -> str:
    """Where two values differ, and by what."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        return next(
            first_difference(expected[k], found[k], f"{where}/{k}") for k in expected if expected[k] != found[k]
        )
    if isinstance(expected, dict) and isinstance(found, dict):
        return f"{where} has {sorted(found.keys() - expected.keys())}, not {sorted(expected.keys() - found.keys())}"
    return f"{where or 'it'} is {str(found)[:200]}, not {str(expected)[:200]}"


# --- the zygote: one child a life


def main_of_zygote() -> None:
    """Fork a child for each life that is asked for on stdin; its exit code is answered on stdout."""
    answers = os.dup(1)
    os.dup2(2, 1)
    # Here, rather than in every child; none of them runs an operation when it is imported.
    import tensorflow  # noqa: F401
    import torch

    import modelkeep.live.training.checkpoints  # noqa: F401

    torch.set_num_threads(1)
    import trainings

    known = {
        name: {"section": one.section, "title": one.title, "backends": one.backends}
        for name, one in trainings.TRAININGS.items()
    }
    os.write(answers, (json.dumps(known) + "\n").encode())
    for request in sys.stdin:
        life = Life(**json.loads(request))
        child = os.fork()
        if child == 0:
            os.close(answers)
            _live(life)
        _, status = os.waitpid(child, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _live(life: Life) -> None:
    """Never returns."""
    signal.alarm(PATIENCE)
    errors = os.open(life.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    code = 0
    try:
        import trainings

        training = trainings.TRAININGS[life.training]
        with _Telling(life, training.options) as run:
            training.train(run)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001 - whatever it is, the parent tells of it
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


_CHANGES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime"}


class _Operations:
    """Counts what is done to files, and kills the process instead of the one that is one too many."""

    def __init__(self, allowed: int) -> None:
        self.left = allowed
        self.lock = threading.Lock()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        created = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if event in _CHANGES or created:
            with self.lock:
                self.left -= 1
                if self.left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)


class _Telling:
    """What a training is given (:class:`trainings.Run`): it writes down each event, and dies where it was told to."""

    def __init__(self, life: Life, options: dict[str, Any]) -> None:
        import keras

        import modelkeep as mk

        keras.utils.set_random_seed(5)
        self.folder = Path(life.folder)
        self.life = life
        self.log = os.open(life.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if life.by == "modelkeep":
            self.checkpoints = mk.open(self.folder / "models").checkpoints(
                "run", **{"every_steps": 4, "keep_last": 2, **options}
            )

    def __enter__(self) -> _Telling:
        if self.life.operation is not None:
            sys.addaudithook(_Operations(self.life.operation))
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.log)

    def tell(self, *event: Any, values: Any = None) -> None:
        # In one write, past any buffer: a process that is killed has told what it had told.
        os.write(self.log, (json.dumps([*event, exact(values)]) + "\n").encode())
        if list(event) == self.life.at:
            os.kill(os.getpid(), self.life.by_signal)

    def fit(
        self,
        model: Any,
        *data: Any,
        callbacks: Sequence[Any] = (),
        batched: bool = False,
        by_callback: bool = False,
        finish: bool = True,
        **options: Any,
    ) -> None:
        options = {"epochs": 3, "verbose": 0, **({} if batched else {"batch_size": 8}), **options}
        callbacks = [*callbacks, _recorder(self)]
        if self.life.by.startswith("BackupAndRestore"):
            callbacks.append(_backup(self.folder, self.life.by))
        if self.life.by == "modelkeep" and not by_callback:
            history = self.checkpoints.fit(model, *data, callbacks=callbacks, **options)
        else:
            if self.life.by == "modelkeep":
                callbacks.append(self.checkpoints.callback())
            history = model.fit(*data, callbacks=callbacks, **options)
        self.history = history.history
        if finish:
            self.finish(model)

    def finish(self, model: Any, **more: Any) -> None:
        left = {"history": getattr(self, "history", None), "variables": digests(model), "next": next_draws(), **more}
        self.tell("left", values=left)


def _backup(folder: Path, by: str) -> Any:
    import keras

    return keras.callbacks.BackupAndRestore(str(folder / "backup"), save_freq=4 if "save_freq=4" in by else "epoch")


def _recorder(run: _Telling) -> Any:
    import keras

    class Recorder(keras.callbacks.Callback):
        """Tells every event of a fit. Its own state, the epoch, comes back with the checkpoint's."""

        epoch = -1

        def get_state(self) -> dict[str, int]:
            return {"epoch": self.epoch}

        def set_state(self, state: dict[str, int]) -> None:
            self.epoch = state["epoch"]

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch  # told with what follows: an epoch that is gone on with begins once more

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            run.tell("train_batch_begin", self.epoch, batch)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            run.tell("train_batch_end", self.epoch, batch, values=logs)

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            run.tell("test_batch_end", self.epoch, batch, values=logs)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            run.tell("epoch_end", epoch, values=logs)

    return Recorder()


def exact(value: Any) -> Any:
    """Any value as JSON that tells every bit of it."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): exact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [exact(item) for item in value]
    import keras

    return exact(keras.ops.convert_to_numpy(value).tolist())


def digests(model: Any) -> dict[str, str]:
    """Of every variable that the model leads to, in its order: a digest of its bytes."""
    import keras

    optimizer = model.optimizer.variables if model.optimizer else []
    variables = [*model.variables, *optimizer, *model.metrics_variables]
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    return {
        f"{index} {variable.name}": hashlib.sha256(str(value.dtype).encode() + value.tobytes()).hexdigest()
        for index, (variable, value) in enumerate(zip(variables, values, strict=True))
    }


def next_draws() -> list[float]:
    """What each source of random numbers gives next."""
    import keras
    import numpy as np

    draws = [random.random(), float(np.random.random()), float(keras.random.uniform(()))]
    if keras.backend.backend() == "torch":
        import torch

        draws.append(float(torch.rand(())))
    return draws


# --- the page

KERAS = ("BackupAndRestore()", "BackupAndRestore(save_freq=4)")
"""What Keras has for the same; measured under TensorFlow."""
COMPARED = (
    "batch_normalization",
    "dropout",
    "shuffle",
    "py_dataset",
    "reduce_learning_rate",
    "early_stopping",
    "model_checkpoint",
)
TABLES = re.compile(r"(?<=<!-- tables -->\n).*(?=\n<!-- end of tables -->)", re.DOTALL)
_HEADS = ("killed with `kill -9`", "TensorFlow", "JAX", "PyTorch")
_COMPARISON = ("trainings equal to the bit", "modelkeep", *(f"`{by}`" for by in KERAS))


class Page:
    """The tables of the page, which are also where all that was measured is kept: each run renews its own cells."""

    def __init__(self, trainings: dict[str, dict[str, Any]]) -> None:
        self.trainings = trainings
        self.cells: dict[tuple[str, str], str] = {}  # by a training's title and the head of a column

    def put(self, training: str, column: str, text: str) -> None:
        page = PAGE.read_text(encoding="utf-8")
        for heads, rows in _read_tables(TABLES.findall(page)[0]):
            self.cells |= {(row[0], head): cell for row in rows for head, cell in zip(heads[1:], row[1:], strict=True)}
        self.cells[self.trainings[training]["title"], column] = text
        PAGE.write_text(TABLES.sub(lambda _: self.tables(), page), encoding="utf-8")

    def tables(self) -> str:
        text = "\n" + _row(_HEADS) + _row(["---"] * len(_HEADS))
        for section in dict.fromkeys(training["section"] for training in self.trainings.values()):
            text += _row([f"**{section}**", "", "", ""])
            titles = [one["title"] for one in self.trainings.values() if one["section"] == section]
            text += "".join(self._row(title, _HEADS) for title in titles)
        text += "\n" + _row(_COMPARISON) + _row(["---"] * len(_COMPARISON))
        return text + "".join(self._row(self.trainings[name]["title"], _COMPARISON) for name in COMPARED)

    def _row(self, title: str, heads: Sequence[str]) -> str:
        return _row([title, *(self.cells.get((title, head), "–") for head in heads[1:])])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n".replace("|  |", "| |").replace("|  |", "| |")


def _read_tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
        yield rows[0], [row for row in rows[2:] if len(row) == len(rows[0])]


def measure(backend: str, only: Sequence[str], kills: int, folder: Path) -> None:
    """Kill the trainings that run on this backend, and tell of it in the page."""
    with Zygote(backend) as zygote:
        page = Page(zygote.trainings)
        column = _HEADS[1 + BACKENDS.index(backend)]
        for training, about in zygote.trainings.items():
            if backend not in about["backends"] or (only and training not in only):
                continue
            chance = random.Random(f"{training} {backend}")
            outcomes = _outcomes(zygote, training, folder / backend / training, kills, chance)
            for difference in filter(None, (outcome.difference for outcome in outcomes)):
                print(f"{backend}: {training}: {difference}", flush=True)
            print(f"{backend}: {training}: {_cell(outcomes)}", flush=True)
            page.put(training, column, _cell(outcomes))
            if backend == "tensorflow" and training in COMPARED:
                page.put(training, "modelkeep", _share(outcomes))
                for by in KERAS:
                    outcomes = _outcomes(zygote, training, folder / by / training, kills, chance, by=by)
                    page.put(training, f"`{by}`", _share(outcomes))


def _outcomes(
    zygote: Zygote, training: str, folder: Path, kills: int, chance: random.Random, by: str = "modelkeep"
) -> list[Outcome]:
    try:
        told = reference(zygote, training, folder / "never", by="modelkeep" if by == "modelkeep" else "keras")
    except RuntimeError as error:
        return [Outcome(0, str(error))]
    return [killed(zygote, training, folder / str(kill), told, chance, by=by) for kill in range(kills)]


def _cell(outcomes: Sequence[Outcome]) -> str:
    """How many kills the training survived, equal to the bit."""
    if any(outcome.difference for outcome in outcomes):
        return f"**{_share(outcomes)} equal**"
    return f"equal after {sum(outcome.kills for outcome in outcomes)}"


def _share(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(outcome.difference is None for outcome in outcomes)} of {len(outcomes)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="names of trainings")
    parser.add_argument("--backend", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument(
        "--kills", type=int, default=KILLS, help="of a training; each is killed once more as it goes on"
    )
    parser.add_argument("--zygote", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.zygote:
        return main_of_zygote()
    with tempfile.TemporaryDirectory() as folder:
        for backend in options.backend:
            measure(backend, options.only, options.kills, Path(folder))
    return None


if __name__ == "__main__":
    main()
