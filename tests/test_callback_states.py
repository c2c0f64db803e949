"""What callbacks remember, taken in one training and given to new ones in another."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from modelkeep.errors import UsageError
from modelkeep.live.training import state
from modelkeep.live.training.callback_states import Watched, capture, capture_all, doubts, restore, restore_all
from modelkeep.report import Finding

pytestmark = pytest.mark.keras

# Good, better, and then never as good again: what the callbacks wait for.
LOSSES = [1.0, 0.5, 0.7, 0.6, 0.8, 0.55, 0.9, 0.65]

Callbacks = list[keras.callbacks.Callback]


class Losses(keras.callbacks.Callback):
    """Says the same losses whatever the model learns, to those that are called after it."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["val_loss"] = LOSSES[epoch]


class Checkpoint(keras.callbacks.Callback):
    """Gives the callbacks before it their states when training begins, and takes them at each epoch's end."""

    def __init__(self, callbacks: Callbacks, saved: Any) -> None:
        super().__init__()
        self.callbacks, self.saved, self.findings = callbacks, saved, tuple[Finding, ...]()

    def on_train_begin(self, logs: Any = None) -> None:
        if self.saved is not None:
            self.findings = restore_all(self.callbacks, self.saved)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        packed = state.pack(capture_all(self.callbacks))
        self.saved = state.unpack(packed.document, packed.arrays)


def trained(callbacks: Callbacks, epochs: range, before: tuple[Any, Any] = (None, None)) -> tuple[Any, Any]:
    """A small model trained for ``epochs``, and the states of its callbacks; ``before``: those to go on from."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="small")
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=keras.backend.backend() != "jax")  # quicker to begin
    earlier, saved = before
    if earlier is not None:
        model.set_weights(earlier["weights"])
        model.optimizer.learning_rate = earlier["learning_rate"]
    checkpoint = Checkpoint(callbacks, saved)
    running: dict[str, Any] = {}
    noted = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: running.update(weights=model.get_weights(), epoch=epoch)
    )
    model.fit(
        np.ones((4, 2)),
        np.ones((4, 1)),
        initial_epoch=epochs.start,
        epochs=epochs.stop,
        callbacks=[Losses(), *callbacks, noted, checkpoint],
        verbose=0,
    )
    assert not checkpoint.findings
    running.update(learning_rate=float(model.optimizer.learning_rate), final=model.get_weights())
    return running, checkpoint.saved


def told(callbacks: Callbacks) -> str:
    return state.digest(capture_all(callbacks))


def goes_on(make: Callable[[], Callbacks]) -> Callbacks:
    """Check that new callbacks go on as those of a training that was never interrupted; these."""
    whole, interrupted, resumed = make(), make(), make()
    expected, _ = trained(whole, range(8))
    half = trained(interrupted, range(4))
    found, _ = trained(resumed, range(4, 8), half)
    assert state.digest(found) == state.digest(expected)
    assert told(resumed) == told(whole)
    return whole


@pytest.mark.backends
def test_a_plateau_is_waited_for_across_an_interruption() -> None:
    (plateau,) = goes_on(lambda: [keras.callbacks.ReduceLROnPlateau(patience=3, cooldown=1)])
    assert plateau.best == 0.5


@pytest.mark.backends
def test_early_stopping_stops_when_it_would_have_and_goes_back_to_the_best_weights() -> None:
    (stopping,) = goes_on(lambda: [keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)])
    assert (stopping.stopped_epoch, stopping.best_epoch) == (4, 1)


def test_the_direction_of_a_monitored_value_is_turned_once() -> None:
    def callbacks() -> Callbacks:
        return [keras.callbacks.EarlyStopping(patience=9, min_delta=0.2, mode="min")]

    (stopping,) = goes_on(callbacks)
    assert stopping.min_delta == -0.2


def test_a_worse_model_never_takes_the_place_of_the_best_one(tmp_path: Path) -> None:
    file = tmp_path / "best.weights.h5"

    def callbacks() -> Callbacks:
        return [keras.callbacks.ModelCheckpoint(file, save_best_only=True, save_weights_only=True)]

    half = trained(callbacks(), range(4))
    best = file.read_bytes()
    trained(callbacks(), range(4, 8), half)
    assert file.read_bytes() == best


def test_batches_between_two_files_are_counted_across_an_interruption(tmp_path: Path) -> None:
    def callbacks() -> Callbacks:
        return [
            keras.callbacks.ModelCheckpoint(f"{tmp_path}/{{epoch}}.weights.h5", save_weights_only=True, save_freq=3)
        ]

    goes_on(callbacks)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["3", "6"]


@pytest.mark.parametrize("append", [False, True])
def test_a_csv_file_has_the_rows_of_a_training_that_was_never_interrupted(tmp_path: Path, append: bool) -> None:
    def callbacks(name: str) -> Callbacks:
        return [keras.callbacks.CSVLogger(tmp_path / name, append=append)]

    trained(callbacks("whole"), range(8))
    half = trained(callbacks("resumed"), range(4))
    trained(callbacks("resumed"), range(4, 6), half)  # rows of which no checkpoint knows
    trained(callbacks("resumed"), range(4, 8), half)
    assert (tmp_path / "resumed").read_text() == (tmp_path / "whole").read_text()


def test_a_csv_file_that_is_gone_is_written_again(tmp_path: Path) -> None:
    def callbacks() -> Callbacks:
        return [keras.callbacks.CSVLogger(tmp_path / "rows")]

    half = trained(callbacks(), range(4))
    (tmp_path / "rows").unlink()
    trained(callbacks(), range(4, 8), half)
    assert [row.split(",")[0] for row in (tmp_path / "rows").read_text().split()] == ["epoch", *"01234567"]


def test_rows_that_were_kept_by_nobody_are_said_to_be_lost(tmp_path: Path) -> None:
    logger = keras.callbacks.CSVLogger(tmp_path / "rows", append=True)
    _, saved = trained([logger], range(2))
    (tmp_path / "rows").write_text("something else\r\n")
    logger.on_train_begin()
    (finding,) = restore_all([logger], saved)
    logger.on_train_end()
    assert (finding.check, finding.subject) == ("csv-rows-lost", str(tmp_path / "rows"))
    assert (tmp_path / "rows").read_text() == "something else\n"


def test_tensorboard_goes_on_counting(tmp_path: Path) -> None:
    def callbacks() -> Callbacks:
        return [keras.callbacks.TensorBoard(tmp_path, write_graph=False, write_steps_per_second=True)]

    _, saved = trained(callbacks(), range(3))
    (resumed,) = callbacks()
    resumed.set_model(None)
    restore_all([resumed], saved)
    assert resumed._global_train_batch == 3
    assert resumed._previous_epoch_iterations == 2
    assert resumed._epoch_start_time > 0


def test_history_and_swapped_averages_are_kept() -> None:
    history, averages = keras.callbacks.History(), keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    history.epoch, history.history, averages._ema_weights_in_model = [0], {"loss": [1.0]}, True
    fresh: Callbacks = [keras.callbacks.History(), keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]
    restore_all(fresh, capture_all([history, averages]))
    assert (fresh[0].epoch, fresh[0].history, fresh[1]._ema_weights_in_model) == ([0], {"loss": [1.0]}, True)


# --- callbacks of users


class Counting(keras.callbacks.Callback):
    """Tells its state and takes it back."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(epoch)

    def get_state(self) -> Any:
        return tuple(self.seen)

    def set_state(self, value: Any) -> None:
        self.seen = list(value)


class Forgetful(keras.callbacks.Callback):
    """Remembers, and tells nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs, self.name, self.weights, self.opaque = 0, "unchanged", np.zeros(20_000), object()
        self.generator, self.old, self.other = np.random.default_rng(0), np.random.RandomState(0), random.Random(0)
        self.mean, self.last, self.tensor = keras.metrics.Mean(), deque([0], maxlen=1), keras.ops.zeros(2)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1
        self.weights[3] += 1
        self.mean.update_state(self.generator.random() + self.old.rand() + self.other.random())
        self.last.append(1)
        self.tensor = self.tensor + 1


class Patient(keras.callbacks.EarlyStopping):
    """Keras' own, with a count and an argument besides."""

    def __init__(self, pace: float = 1.0, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.pace = pace
        self.disappointments = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self.disappointments += self.wait > 0


class Telling(keras.callbacks.EarlyStopping):
    """Keras' own, with a state of its own besides."""

    count = 0

    def get_state(self) -> Any:
        return {"count": self.count}

    def set_state(self, value: Any) -> None:
        self.count = value["count"]


def test_a_callback_tells_its_own_state() -> None:
    (counting,) = goes_on(lambda: [Counting()])
    assert counting.seen == list(range(8))


def test_a_subclass_of_keras_keeps_what_it_adds_and_what_keras_counts() -> None:
    (patient,) = goes_on(lambda: [Patient(patience=20)])
    assert (patient.disappointments, patient.wait) == (6, 6)
    telling, other = Telling(), Telling()
    telling.count, telling.wait = 4, 5
    restore(other, capture(telling) or {})
    assert (other.count, other.wait) == (4, 5)


def test_arguments_of_the_constructor_are_those_of_who_resumes() -> None:
    _, saved = trained([Patient(pace=1.0, patience=9)], range(4))
    resumed = Patient(pace=2.0, patience=5)
    restore_all([resumed], saved)
    assert (resumed.pace, resumed.patience, resumed.disappointments) == (2.0, 5, 2)


def test_a_state_that_cannot_be_kept_is_refused_by_its_path() -> None:
    counting = Counting()
    counting.seen = [object()]  # type: ignore[list-item]
    with pytest.raises(UsageError, match="0/2/own/0 cannot be kept"):
        state.pack(capture_all([counting]))


def test_what_changes_and_is_not_kept_is_said_once() -> None:
    forgetful, kept = Forgetful(), Counting()
    watched = Watched([forgetful, kept])
    assert watched.doubts() == ()
    trained([forgetful, kept], range(1))
    (finding,) = watched.doubts()
    changed = ["epochs", "generator", "last", "mean", "old", "other", "tensor", "weights"]
    assert finding.details["attributes"] == changed
    assert finding.subject.endswith("Forgetful")
    assert "get_state" in finding.message
    assert watched.doubts() == ()


def test_keras_own_callbacks_are_no_doubt(tmp_path: Path) -> None:
    callbacks = [
        keras.callbacks.EarlyStopping(restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(),
        keras.callbacks.ModelCheckpoint(tmp_path / "a.weights.h5", save_weights_only=True),
        keras.callbacks.CSVLogger(tmp_path / "rows"),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.TensorBoard(tmp_path),
        keras.callbacks.LambdaCallback(on_epoch_end=print),
    ]
    watched = Watched(callbacks)
    trained(callbacks, range(2))
    assert watched.doubts() == ()
    assert [finding for callback in callbacks[:-1] for finding in doubts(callback)] == []


def test_what_will_not_come_back_is_said_beforehand(tmp_path: Path) -> None:
    class Half(keras.callbacks.Callback):
        def get_state(self) -> int:
            return 1

    remembered: list[int] = []
    assert [finding.check for finding in doubts(Half())] == ["callback-not-kept"]
    assert [finding.check for finding in doubts(keras.callbacks.BackupAndRestore(tmp_path / "b"))] == ["two-keepers"]
    assert doubts(keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: remembered.append(epoch)))
    assert not doubts(keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None))
    assert "not on this machine" in doubts(keras.callbacks.CSVLogger("gs://bucket/rows"))[0].message


# --- another list than before


def stopping(wait: int, **arguments: Any) -> keras.callbacks.Callback:
    callback = keras.callbacks.EarlyStopping(**arguments)
    callback.wait = wait
    return callback


def told_of(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.check, finding.subject) for finding in findings]


def test_a_callback_is_found_wherever_it_stands() -> None:
    moved, new = stopping(0), keras.callbacks.ReduceLROnPlateau()
    findings = restore_all([new, moved], capture_all([stopping(3)]))
    assert told_of(findings) == [("callback-new", "ReduceLROnPlateau of val_loss")]
    assert moved.wait == 3


def test_two_of_a_class_are_told_apart_by_their_arguments() -> None:
    saved = capture_all([stopping(1, patience=1), stopping(2, patience=2), stopping(3, monitor="loss")])
    one, two, three = stopping(0, monitor="loss"), stopping(0, patience=2), stopping(0, patience=1)
    assert restore_all([one, two, three], saved) == ()
    assert (one.wait, two.wait, three.wait) == (3, 2, 1)
    left = stopping(0, patience=2)
    findings = restore_all([left], saved)
    assert told_of(findings) == [("callback-gone", f"EarlyStopping of {name}") for name in ("val_loss", "loss")]
    assert left.wait == 2


def test_arguments_may_change_where_it_is_clear_who_is_meant() -> None:
    one, two = stopping(0, patience=7), stopping(0, patience=2)
    assert restore_all([one, two], capture_all([stopping(1, patience=1), stopping(2, patience=2)])) == ()
    assert (one.wait, two.wait) == (1, 2)
    neither = stopping(0, patience=9)
    findings = restore_all([neither], capture_all([stopping(1, patience=1), stopping(2, patience=2)]))
    assert [check for check, _ in told_of(findings)] == ["callback-new", "callback-gone", "callback-gone"]
    assert neither.wait == 0


def test_what_is_gone_or_new_and_remembers_nothing_is_not_worth_a_word() -> None:
    plain = keras.callbacks.LambdaCallback()
    assert restore_all([stopping(0), plain], capture_all([stopping(1)])) == ()
    assert restore_all([stopping(0)], capture_all([stopping(1), plain])) == ()


def test_a_callback_that_no_longer_takes_its_state_back_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = capture_all([Counting()])
    monkeypatch.delattr(Counting, "set_state")
    assert told_of(restore_all([Counting()], saved)) == [("callback-state-dropped", "Counting")]
