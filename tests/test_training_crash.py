"""Trainings that are killed, interrupted, starved of disk, or begun twice: what was trained is there, once."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import keras
import numpy as np
import pytest

import exactness
import modelkeep as mk
from modelkeep.errors import Conflict, StorageError

pytestmark = [pytest.mark.keras, pytest.mark.slow]

KILLS = 200


class Trainer:
    """A process that trains in children of its own, whose present child can be killed at any moment."""

    def __init__(self, store: Path) -> None:
        command = [sys.executable, str(Path(__file__).parent / "trainer.py"), str(store)]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.told() == ("ready", 0)

    def told(self) -> tuple[str, int]:
        assert self.process.stdout is not None
        word, number = self.process.stdout.readline().split()
        return word, int(number)

    def begin(self) -> int:
        """The child that trains from now on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        word, child = self.told()
        assert word == "begun"
        return child

    def until(self, *words: str) -> tuple[dict[str, int], float]:
        """What the child tells until one of these words: of each word the last number; and how long that took."""
        started, told = time.monotonic(), {}
        while not told.keys() & set(words):
            word, number = self.told()
            told[word] = number
        return told, time.monotonic() - started

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    trainer = Trainer(tmp_path / "models")
    yield trainer
    trainer.close()


def usual_times(trainer: Trainer) -> tuple[float, float]:
    """Seconds until a child has resumed, and of three steps after the first."""
    child = trainer.begin()
    _, resuming = trainer.until("resumed")
    trainer.until("done")
    training = sum(trainer.until("done")[1] for _ in range(3))
    os.kill(child, signal.SIGKILL)
    trainer.until("ended")
    return resuming, training


def bytes_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_training_killed_at_any_moment_loses_one_interval_at_most(trainer, tmp_path):
    moment = random.Random(20)
    usual_times(trainer)  # a first one imports what is imported late
    resuming, training = usual_times(trainer)
    keep, done, lost = mk.open(tmp_path / "models"), None, 0
    for number in range(KILLS):
        child = trainer.begin()
        told: dict[str, int] = {}
        if number % 4:
            told, _ = trainer.until("resumed", "mixed")
        time.sleep(moment.random() * (training if told else resuming))
        os.kill(child, signal.SIGKILL)
        told |= trainer.until("ended")[0]
        assert told["ended"] == -signal.SIGKILL
        assert "mixed" not in told, f"kill {number} left weights of several steps"
        if "resumed" not in told:
            continue  # it was killed before it had begun
        # A step is done when its checkpoint was taken; then the one before it is durable.
        assert done is None or done - 1 <= told["resumed"] <= done + 1, f"kill {number}: {told['resumed']} after {done}"
        lost += max(0, (done or 0) - told["resumed"])
        done = told.get("done", told["resumed"])
        if number % 50 == 0:
            keep.gc(grace=timedelta(0))  # or it would come to gigabytes, of so many kills within its usual grace
    assert done > KILLS // 20, "hardly a kill came while it trained"
    keep.fsck().raise_for_failures()
    kept = keep.run("run").checkpoints
    assert len(kept) <= 3  # the third one is of a process that was killed before it could let the first one go
    keep.gc(grace=timedelta(0))  # what was written of checkpoints that never came to be
    assert bytes_on_disk(tmp_path / "models" / "blobs") < 1.01 * sum(one.size for one in kept)
    print(f"{KILLS} kills: {done} steps done, {lost} trained again")


# --- signals


@pytest.fixture(scope="module")
def zygote() -> Iterator[exactness.Zygote]:
    with exactness.Zygote("tensorflow") as zygote:
        yield zygote


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_takes_a_last_checkpoint_and_ends_the_process_as_it_would_have(zygote, tmp_path, number, code):
    told = exactness.reference(zygote, "dropout", tmp_path / "never")
    (tmp_path / "run").mkdir()
    at = ["train_batch_end", 1, 0]  # no checkpoint is due there
    life = exactness.Life("dropout", str(tmp_path / "run"), at=at, by_signal=number)
    assert zygote.live(life) == code, life.errors.read_text()
    goes_on = exactness.Life("dropout", str(tmp_path / "run"), number=1)
    assert zygote.live(goes_on) == 0, goes_on.errors.read_text()
    reached = exactness.place(told, life.lines()[-1]) + 1
    assert goes_on.lines() == told[reached:], "it goes on with the very next step"


# --- a disk that is full, and a run that is trained twice


def small(units: int = 512) -> keras.Model:
    model = keras.Sequential([keras.Input((units,)), keras.layers.Dense(units), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def ones(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((12, *model.input_shape[1:]), "float32"), np.ones((12, 1), "float32")


@pytest.fixture
def no_file_above_64_kib() -> Iterator[None]:
    """Any write beyond fails, as one to a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_goes_wrong_in_the_background_is_raised_in_the_loop(no_file_above_64_kib, tmp_path):
    model = small()
    checkpoints = mk.open(tmp_path / "models").checkpoints("run", every_steps=2)
    with pytest.raises(StorageError, match="File too large"):
        checkpoints.fit(model, *ones(model), batch_size=2, epochs=4, verbose=0)
    assert int(model.optimizer.iterations) <= 4, "when the next checkpoint is due at the latest"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    history = checkpoints.fit(model, *ones(model), batch_size=2, epochs=4, verbose=0)
    assert len(history.history["loss"]) == 4
    mk.open(tmp_path / "models").fsck().raise_for_failures()


def test_a_second_process_that_trains_the_run_is_refused(tmp_path):
    first, second = (mk.open(tmp_path / "models").checkpoints("run", every_steps=1) for _ in range(2))
    model, other = small(4), small(4)
    for checkpoints, trained in ((first, model), (second, other)):
        assert checkpoints.restore(trained) is None
    first.save(1, model)
    first.close()
    second.save(1, other)
    with pytest.raises(Conflict, match="another process trains 'run'"):
        second.save(2, other)
    first.save(2, model)
    first.close()
    assert [one.step for one in mk.open(tmp_path / "models").run("run").checkpoints] == [1, 2]
