"""Event files, read back by TensorBoard itself: every point once, and none of what was undone."""

from __future__ import annotations

import math
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from modelkeep.errors import StorageError
from modelkeep.live.training.tensorboard import Events

pytestmark = pytest.mark.keras  # TensorBoard reads by TensorFlow where that is installed


def shown(folder: Path, part: str, tag: str) -> list[tuple[int, float]]:
    """Step and value of what TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / part), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def train(folder: Path, first: int, last: int, value: float, *, resume_at: int | None = None) -> None:
    """One attempt: steps from ``first`` to ``last``, four to an epoch."""
    with closing(Events(folder, resume_at)) as events:
        for step in range(first, last + 1):
            events.step(step, {"loss": value})
            if step % 4 == 0:
                events.epoch(step // 4 - 1, {"loss": value, "val_loss": value + 1, "f1": [0.5, 0.5]})


def test_steps_and_epochs_have_the_names_of_keras_own_callback(tmp_path: Path) -> None:
    train(tmp_path, 1, 8, 0.5)
    assert shown(tmp_path, "steps", "batch_loss") == [(step, 0.5) for step in range(1, 9)]
    assert shown(tmp_path, "train", "epoch_loss") == [(0, 0.5), (1, 0.5)]
    assert shown(tmp_path, "validation", "epoch_loss") == [(0, 1.5), (1, 1.5)]


def test_a_resumed_run_shows_each_point_once_and_nothing_of_the_killed_attempt(tmp_path: Path) -> None:
    train(tmp_path, 1, 14, 0.5)
    train(tmp_path, 7, 9, 0.25, resume_at=6)
    assert shown(tmp_path, "steps", "batch_loss") == [(s, 0.5 if s <= 6 else 0.25) for s in range(1, 10)]
    assert shown(tmp_path, "train", "epoch_loss") == [(0, 0.5), (1, 0.25)]
    assert shown(tmp_path, "validation", "epoch_loss") == [(0, 1.5), (1, 1.25)]


def test_killed_again_and_again_it_still_shows_each_point_once(tmp_path: Path) -> None:
    train(tmp_path, 1, 9, 1.0)
    train(tmp_path, 5, 7, 2.0, resume_at=4)
    train(tmp_path, 5, 11, 3.0, resume_at=4)
    assert shown(tmp_path, "steps", "batch_loss") == [(s, 1.0 if s <= 4 else 3.0) for s in range(1, 12)]


def test_a_run_that_begins_anew_shows_nothing_of_the_one_before(tmp_path: Path) -> None:
    train(tmp_path, 1, 9, 1.0)
    train(tmp_path, 1, 4, 2.0)
    assert shown(tmp_path, "steps", "batch_loss") == [(step, 2.0) for step in range(1, 5)]
    assert shown(tmp_path, "train", "epoch_loss") == [(0, 2.0)]


def test_an_event_is_with_the_system_at_once_and_one_that_was_cut_off_hides_no_other(tmp_path: Path) -> None:
    with closing(Events(tmp_path)) as events:
        events.step(1, {"loss": 1.0})
        assert shown(tmp_path, "steps", "batch_loss") == [(1, 1.0)]
        events.step(2, {"loss": 1.0})
    (file,) = (tmp_path / "steps").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    train(tmp_path, 2, 3, 2.0, resume_at=1)
    assert shown(tmp_path, "steps", "batch_loss") == [(1, 1.0), (2, 2.0), (3, 2.0)]


def test_of_many_steps_few_are_written_and_the_same_after_a_kill(tmp_path: Path) -> None:
    train(tmp_path, 1, 9_000, 1.0)
    steps = [step for step, _ in shown(tmp_path, "steps", "batch_loss")]
    assert steps[:999] == list(range(1, 1_000))
    assert len(steps) < 5_000
    train(tmp_path, 7_002, 9_000, 1.0, resume_at=7_001)
    assert [step for step, _ in shown(tmp_path, "steps", "batch_loss")] == steps


def test_what_is_not_finite_is_shown_as_it_is(tmp_path: Path) -> None:
    train(tmp_path, 1, 4, math.inf)
    assert shown(tmp_path, "train", "epoch_loss") == [(0, math.inf)]


def test_writing_events_needs_no_tensorflow() -> None:
    script = (
        "import sys, tempfile\n"
        "from modelkeep.live.training.tensorboard import Events\n"
        "Events(tempfile.mkdtemp()).step(1, {'loss': 0.5})\n"
        "assert not {'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_tensorboard_the_line_to_install_it_is_named() -> None:
    script = (
        "import sys\n"
        "sys.modules['tensorboard'] = None\n"
        "from modelkeep.errors import MissingExtra\n"
        "try:\n"
        "    import modelkeep.live.training.tensorboard\n"
        "except MissingExtra as error:\n"
        "    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert "pip install 'modelkeep[tensorboard]'" in told


def test_a_folder_that_cannot_be_made_is_an_error_of_storage(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(StorageError, match="no event file can be made"):
        Events(tmp_path / "logs")


def test_a_training_that_was_killed_shows_what_it_logged_and_no_more(tmp_path: Path) -> None:
    import keras
    import numpy as np

    import modelkeep as mk

    class Killed(Exception):
        pass

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if len(self.model.history.epoch) == 2 and batch == 2:
                raise Killed

    def fit(*callbacks: keras.callbacks.Callback) -> None:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        data = {"x": np.ones((32, 2)), "y": np.ones((32, 1)), "validation_split": 0.25, "batch_size": 4}
        checkpoints = mk.open(tmp_path / "models").checkpoints("run", every_steps=5, tensorboard=tmp_path / "logs")
        checkpoints.fit(model, **data, epochs=3, verbose=0, callbacks=list(callbacks))

    with pytest.raises(Killed):
        fit(Kill())
    fit()
    curves = mk.open(tmp_path / "models").run("run").curves
    logged = [(point.step, pytest.approx(point.logs["loss"])) for point in curves.steps]
    assert shown(tmp_path / "logs", "steps", "batch_loss") == logged
    validated = [(point.epoch - 1, pytest.approx(point.logs["val_loss"])) for point in curves.epochs]
    assert shown(tmp_path / "logs", "validation", "epoch_loss") == validated
