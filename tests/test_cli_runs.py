"""Training runs on the command line: listed, watched, pruned, shown, over a real store."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelkeep.cli import completing, watch
from modelkeep.cli.main import main
from modelkeep.curves import Curves
from modelkeep.keep import Keep
from modelkeep.runs import Progress, Runs
from modelkeep.storage import marker
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.local import LocalStore
from small_runs import add

Run = Callable[..., str]
LONG_AGO = datetime(2026, 5, 1, tzinfo=UTC)


class Training:
    """A run of ten steps an epoch and ten steps a second, which tells and keeps what a real one would."""

    def __init__(self, store: LocalStore, name: str = "sentiment-run", began: datetime = LONG_AGO) -> None:
        self.store, self.name, self.began = store, name, began
        self.curves = Curves()
        self.runs = Runs(store, Blobs(store), clock=self.now)

    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.curves.count / 10)

    def train(self, steps: int) -> None:
        for step in range(self.curves.count + 1, self.curves.count + steps + 1):
            self.curves.add_step(step, (step - 1) // 10, {"loss": 1 / step, "accuracy": 1 - 1 / step})
            if step % 10 == 0:
                self.curves.add_epoch(step // 10, step, {"loss": 1 / step, "val_loss": 0.3 + abs(step - 20) / 100})

    def keep(self, *, finished: bool = False) -> None:
        step, logs = self.curves.count, (self.curves.epochs or self.curves.steps)[-1].logs
        where = {"epoch": step // 10, "step_in_epoch": step % 10, "reason": "end" if finished else "interval"}
        add(
            self.store,
            self.name,
            step,
            runs=self.runs,
            curves=self.curves,
            metrics=dict(logs),
            finished=finished,
            **where,
        )
        self.kept = step

    def tell(self) -> None:
        since: dict[str, Any] = msgspec.json.decode(self.curves.since(self.kept).to_json())
        newest = self.curves.steps[-1]
        told = Progress(step=newest.step, epoch=newest.epoch, of=10, logs=dict(newest.logs), curves=since)
        self.runs.put_progress(self.name, told)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "models")
    marker.ensure(store)
    return store


@pytest.fixture
def training(store: LocalStore) -> Training:
    """After steps 10, 20, 30 and 35 a checkpoint was kept; then it went silent at step 42."""
    training = Training(store)
    for steps in (10, 10, 10, 5):
        training.train(steps)
        training.keep()
    training.train(7)
    training.tell()
    return training


@pytest.fixture
def run(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line on the store, and return its stdout."""

    def run(*arguments: str, code: int = 0) -> str:
        assert main([*arguments, "--store", str(store.root)]) == code, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def answer(run: Run, *arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


# --- modelkeep checkpoints


def test_every_run_is_listed_with_how_it_stands(run: Run, training: Training) -> None:
    done = Training(training.store, "team/done")
    done.train(20)
    done.keep(finished=True)
    header, silent, finished = run("checkpoints").splitlines()
    assert header.split()[:5] == ["RUN", "STATE", "STEP", "EPOCH", "CHECKPOINTS"]
    assert "silent since 2026-05-01 00:00:04    42  4 of 10            4" in silent
    assert finished.split()[:5] == ["team/done", "finished", "20", "2", "1"]


def test_a_store_without_runs_says_so(run: Run) -> None:
    assert run("checkpoints") == "no training runs yet\n"
    assert answer(run, "checkpoints") == []


def test_the_checkpoints_of_a_run_say_which_is_the_best_and_which_the_last(run: Run, training: Training) -> None:
    lines = run("checkpoints", "sentiment-run").splitlines()[1:]
    assert [line.split()[0] for line in lines] == [f"sentiment-run@{step}" for step in (10, 20, 30, 35)]
    assert [line.split()[-1] for line in lines if line.endswith(("best", "last"))] == ["best", "last"]
    assert lines[1].endswith("best")
    assert "  3 +5   " in lines[3]


def test_checkpoints_for_programs(run: Run, training: Training) -> None:
    (told,) = answer(run, "checkpoints", "sentiment-run")
    assert (told["name"], told["state"], told["step"], told["epochs"]) == ("sentiment-run", "silent", 42, 10)
    assert [each["ref"] for each in told["checkpoints"] if each["best"]] == ["sentiment-run@20"]
    assert told["removed"] is None


def test_a_metric_that_is_no_number_is_text_for_programs(run: Run, store: LocalStore) -> None:
    add(store, "diverged", 5, metrics={"loss": math.nan})
    (told,) = answer(run, "checkpoints", "diverged")
    assert told["logs"] == told["checkpoints"][0]["metrics"] == {"loss": "nan"}


def test_a_damaged_entry_is_told_of_and_hides_no_other(run: Run, training: Training) -> None:
    entry = training.store.root / "checkpoints/sentiment-run/entries/000000000002.json"
    entry.chmod(0o644)
    entry.write_bytes(b"{}")
    out = run("checkpoints", "sentiment-run")
    assert "sentiment-run@30" in out
    assert "✗ checkpoint number 2 of 'sentiment-run' cannot be read" in out
    (told,) = answer(run, "checkpoints")
    assert list(told["damaged"]) == ["2"]


def test_a_prune_deletes_all_but_what_it_is_told_to_keep(run: Run, training: Training) -> None:
    kept = ("checkpoints", "sentiment-run", "--prune", "--keep-last", "1", "--keep-best", "val_loss")
    assert "would go: 2 of 4 checkpoints" in run(*kept, "--dry-run")
    assert len(run("checkpoints", "sentiment-run").splitlines()) == 5
    assert "deleted: 2 of 4 checkpoints" in run(*kept)
    left = answer(run, "checkpoints", "sentiment-run")[0]["checkpoints"]
    assert [each["step"] for each in left] == [20, 35]


def test_a_prune_tells_programs_what_went(run: Run, training: Training) -> None:
    (told,) = answer(run, "checkpoints", "sentiment-run", "--prune", "--keep-every", "20")
    assert told["removed"]["checkpoints"] == ["sentiment-run@10", "sentiment-run@30"]
    assert told["removed"]["bytes"] > 0
    assert told["removed"]["dry_run"] is False


def test_a_prune_beside_a_damaged_entry_says_that_no_bytes_go(run: Run, training: Training) -> None:
    entry = training.store.root / "checkpoints/sentiment-run/entries/000000000002.json"
    entry.chmod(0o644)
    entry.write_bytes(b"{}")
    out = run("checkpoints", "sentiment-run", "--prune", "--keep-last", "1")
    assert "! number 2 cannot be read, so no bytes go; run: modelkeep fsck" in out


def test_one_step_or_the_whole_run_is_deleted(run: Run, training: Training) -> None:
    assert "deleted: 1 of 4 checkpoints" in run("checkpoints", "sentiment-run", "--delete", "20")
    assert "would go: 3 of 3 checkpoints" in run("checkpoints", "sentiment-run", "--delete", "all", "--dry-run")
    run("checkpoints", "sentiment-run", "--delete", "all")
    run("checkpoints", "sentiment-run", code=10)


@pytest.mark.parametrize(
    "options",
    [
        ["sentiment-run", "--keep-last", "1"],
        ["sentiment-run", "--dry-run"],
        ["sentiment-run", "--prune"],
        ["sentiment-run", "--prune", "--keep-last", "1", "--delete", "all"],
        ["sentiment-run", "--delete", "everything"],
        ["--delete", "all"],
    ],
)
def test_options_that_do_not_go_together_delete_nothing(run: Run, training: Training, options: list[str]) -> None:
    run("checkpoints", *options, code=2)
    assert len(answer(run, "checkpoints")[0]["checkpoints"]) == 4


# --- modelkeep watch


def test_in_a_pipe_a_run_is_one_line(run: Run, training: Training) -> None:
    words = "silent since 2026-05-01 00:00:04  epoch 4 of 10  step 42  42 %  accuracy=0.97619 loss=0.0238095"
    assert run("watch", "sentiment-run", "--once") == f"sentiment-run  {words}\n"


def test_a_run_that_goes_on_tells_how_fast_and_how_long(run: Run, store: LocalStore) -> None:
    training = Training(store, began=datetime.now(UTC) - timedelta(seconds=5))
    training.train(20)
    training.keep()
    training.train(30)
    training.tell()
    assert "training  epoch 4 of 10  step 50  50 %  10 steps/s  5 s left" in run("watch", "sentiment-run", "--once")


def test_each_change_is_a_line_until_the_run_is_finished(
    run: Run, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile() -> Iterator[None]:
        yield  # nothing new
        training.train(8)
        training.tell()
        yield
        training.train(50)
        training.keep(finished=True)
        yield

    steps = meanwhile()
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: next(steps))
    lines = run("watch", "sentiment-run").splitlines()
    assert ["step 42" in lines[0], "step 50" in lines[1], "finished" in lines[2]] == [True] * 3
    assert len(lines) == 3


def test_ctrl_c_is_how_one_stops_looking(run: Run, training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupted)
    assert run("watch", "sentiment-run").count("\n") == 1


def test_on_a_terminal_there_are_curves_and_checkpoints(
    store: LocalStore, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"COLUMNS": "120", "LINES": "60", "TERM": "xterm-256color", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    training.train(8)
    training.keep()
    training.train(10)
    training.keep()
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    with contextlib.redirect_stdout(screen):
        assert main(["watch", "sentiment-run", "--once", "--store", str(store.root)]) == 0
    shown = screen.getvalue()
    assert "loss, ● val_loss, by step" in shown
    assert re.search(r"^ +1 ┤[⠁-⣿]", shown, re.MULTILINE)
    assert re.search(r"^accuracy +0.983333 +0 +0.983333 +▁.*█", shown, re.MULTILINE)
    assert "sentiment-run@60" in shown
    assert "and 1 older: modelkeep checkpoints sentiment-run" in shown


def test_watching_for_programs_is_one_snapshot_with_all_curves(run: Run, training: Training) -> None:
    told = answer(run, "watch", "sentiment-run")
    assert told["run"]["share"] == 0.42
    assert told["curves"]["steps"]["step"] == list(range(1, 43))
    assert told["curves"]["epochs"]["logs"]["val_loss"] == [0.4, 0.3, 0.4, 0.5]


def test_a_finished_run_still_shows_its_curves(run: Run, store: LocalStore) -> None:
    training = Training(store)
    training.train(20)
    training.keep(finished=True)
    assert run("watch", "sentiment-run").startswith("sentiment-run  finished  epoch 2  step 20  100 %")
    assert len(answer(run, "watch", "sentiment-run")["curves"]["steps"]["step"]) == 20


def test_a_run_that_has_told_but_kept_nothing_yet_is_watched(run: Run, store: LocalStore) -> None:
    training = Training(store)
    training.kept = 0
    training.train(3)
    training.tell()
    assert "epoch 0 of 10  step 3" in run("watch", "sentiment-run", "--once")
    assert run("checkpoints", "sentiment-run") == "no checkpoints yet\n"


def test_a_run_whose_every_entry_is_damaged_is_still_listed(run: Run, store: LocalStore) -> None:
    add(store, "r", 1)
    (entry,) = (store.root / "checkpoints/r/entries").iterdir()
    entry.chmod(0o644)
    entry.write_bytes(b"?")
    assert "silent since 1970" in run("checkpoints")


def test_a_run_that_is_not_there_is_named(run: Run, training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "other", "--store", str(training.store.root)]) == 10
    assert "no training run 'other'" in capsys.readouterr().err


# --- checkpoints where versions stand


def test_show_tells_where_training_stood(run: Run, training: Training) -> None:
    text = run("show", "sentiment-run@35")
    for words in (
        "sentiment-run@35",
        "3, and 5 steps of the next",
        "REASON         interval",
        "METRICS\nloss",
        "loss      0.1 █▃▁ 0.03",
    ):
        assert words in text
    told = answer(run, "show", "sentiment-run@best")
    assert (told["version"], told["checkpoint"]["step"]) == (None, 20)
    run("show", "sentiment-run@35", "--at", "2026-05-01", code=2)


def test_the_manifest_of_a_checkpoint_has_its_digest(run: Run, training: Training) -> None:
    import blake3

    printed = run("show", "sentiment-run@20", "--manifest")
    digest = answer(run, "show", "sentiment-run@20")["checkpoint"]["digest"]
    assert "blake3:" + blake3.blake3(printed.encode()).hexdigest() == digest


def test_two_checkpoints_are_compared(run: Run, training: Training) -> None:
    assert run("diff", "sentiment-run@10", "sentiment-run@20").startswith("sentiment-run@10 → sentiment-run@20\n")


def test_runs_and_their_checkpoints_are_completed(store: LocalStore, training: Training) -> None:
    import click

    context = click.Context(click.Command("watch"))
    context.params["store"] = str(store.root)
    parameter = click.Argument(["run"])
    assert completing.runs(context, parameter, "sent") == ["sentiment-run"]
    assert completing.checkpoints(context, parameter, "sentiment-run@3") == ["sentiment-run@35", "sentiment-run@30"]
    assert completing.refs(context, parameter, "sentiment-run@b") == ["sentiment-run@best"]


# --- modelkeep publish


@pytest.mark.keras
def test_a_checkpoint_becomes_a_version_with_its_metrics_and_what_the_command_says(store: LocalStore, run: Run) -> None:
    import keras
    import numpy as np

    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    Keep(store).checkpoints("sentiment-run").fit(model, np.ones((4, 2)), np.ones((4, 1)), epochs=2, verbose=0)
    assert run("publish", "sentiment-run@last", "sentiment", "--bump", "minor", "--tag", "nightly").startswith(
        "sentiment:1.0.0"
    )
    told = answer(run, "show", "sentiment")
    assert told["version"]["tags"] == ["nightly"]
    assert told["version"]["metrics"]["loss"] == answer(run, "watch", "sentiment-run")["run"]["logs"]["loss"]
    assert told["manifest"]["lineage"]["run"].startswith("sentiment-run@2")
    assert [epoch.step for epoch in Keep(store).curves("sentiment").epochs] == [1, 2]
    assert "\n\nCURVES\nloss  " in run("show", "sentiment")
