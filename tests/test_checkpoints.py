"""A run goes on where it stopped, holds on to what it has, and says what it saw on the way."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import modelkeep as mk
from modelkeep.errors import CheckpointNotFound, Conflict, NotFaithful, StorageError, UsageError
from modelkeep.live import internals
from modelkeep.live.training.checkpoints import Checkpoints
from modelkeep.testing.faults import Fault, FaultyStore

pytestmark = [
    pytest.mark.keras,
    pytest.mark.backends,
    # Those that a test had in one part of a run and not in the next.
    pytest.mark.filterwarnings("ignore:.*what it remembered is dropped"),
]

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
STEPS = 5  # of an epoch, in batches of 8


class Killed(Exception):
    """In the place of a kill: the model in memory is thrown away afterwards."""


class Kill(keras.callbacks.Callback):
    """Ends training after so many steps."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def get_state(self) -> None:
        return None

    def set_state(self, _: None) -> None:
        pass

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.after -= 1
        if self.after == 0:
            raise Killed


def network(units: int = 3, dropout: float = 0.2) -> keras.Model:
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units, name="a"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(1, name="b"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model


def checkpoints(store: Path, **options: Any) -> Checkpoints:
    return mk.open(store).checkpoints("run", **{"every_steps": 2, **options})


def train(
    store: Path, *, epochs: int = 3, kill: int | None = None, **options: Any
) -> tuple[keras.Model, Any, Checkpoints]:
    model, run = network(), checkpoints(store, **options)
    callbacks = [keras.callbacks.EarlyStopping("loss", patience=50), *([Kill(kill)] if kill else [])]
    history = run.fit(model, X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks)
    return model, history, run


def weights(model: keras.Model) -> list[bytes]:
    return [keras.ops.convert_to_numpy(variable.value).tobytes() for variable in model.variables]


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, history, _ = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", kill=8)
    model, resumed, _ = train(tmp_path / "killed")
    assert weights(model) == weights(whole)
    assert resumed.history == history.history
    assert resumed.epoch == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:.*so nothing is trained")
def test_a_run_that_is_done_is_not_trained_again_and_can_be_given_more_epochs(tmp_path: Path) -> None:
    whole, _, _ = train(tmp_path / "whole", epochs=4)
    short, _, _ = train(tmp_path / "run", epochs=2)
    again, history, _ = train(tmp_path / "run", epochs=2)
    assert weights(again) == weights(short)
    assert history.epoch == [0, 1]
    longer, _, _ = train(tmp_path / "run", epochs=4)
    assert weights(longer) == weights(whole)


def test_a_signal_takes_a_last_checkpoint_and_then_ends_the_process(tmp_path: Path) -> None:
    class Ask(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    run = checkpoints(tmp_path, every_steps=1000)
    with pytest.raises(SystemExit) as ended:
        run.fit(network(), X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[Ask()])
    kept = mk.open(tmp_path).run("run").newest
    assert ended.value.code == 143
    assert (kept.step, kept.reason) == (3, "signal")


def test_what_goes_wrong_in_the_background_is_raised_in_the_loop_and_the_run_goes_on_afterwards(tmp_path: Path) -> None:
    full = Fault("create", call=1, error=errno.ENOSPC, key="entries", lasting=True)
    keep = mk.open(FaultyStore(mk.open(tmp_path).store, full))
    with pytest.raises(StorageError, match="No space left"):
        keep.checkpoints("run", every_steps=1).fit(network(), X, Y, batch_size=8, epochs=20, verbose=0)
    whole, _, _ = train(tmp_path / "whole")
    model, _, _ = train(tmp_path)
    assert weights(model) == weights(whole)


def test_a_second_process_that_trains_the_same_run_is_refused(tmp_path: Path) -> None:
    other = checkpoints(tmp_path)

    class TrainToo(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            with other:
                other.save(1, self.model, force=True)

    with pytest.raises(Conflict, match="another process trains 'run'"), other:
        checkpoints(tmp_path, every_steps=7).fit(
            network(), X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[TrainToo()]
        )


def test_of_the_checkpoints_stay_the_newest_and_the_best(tmp_path: Path) -> None:
    _, history, _ = train(tmp_path, epochs=6, every_steps=None, keep_last=2, keep_best="loss", keep_every=None)
    best = int(np.argmin(history.history["loss"])) + 1
    kept = {checkpoint.epoch for checkpoint in mk.open(tmp_path).run("run").checkpoints}
    assert kept == {5, 6, best}
    assert mk.open(tmp_path).fsck().ok


def test_another_model_does_not_go_on_with_the_run(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    with pytest.raises(NotFaithful, match="another shape"):
        checkpoints(tmp_path).fit(network(units=5), X, Y, batch_size=8, epochs=2, verbose=0)


def test_other_data_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, kill=3)
    with pytest.raises(NotFaithful, match="other batches"):
        checkpoints(tmp_path).fit(network(), X, Y, batch_size=4, epochs=2, verbose=0)
    run = checkpoints(tmp_path)
    with pytest.warns(UserWarning, match="the data is not what it was"):
        run.fit(network(), X + 1, Y, batch_size=8, epochs=1, verbose=0)
    assert "data-changed" in {finding.check for finding in run.findings}


def test_another_learning_rate_in_compile_is_said_and_the_kept_one_is_used(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    model = network()
    model.compile(keras.optimizers.Adam(0.5), "mse", metrics=["mae"])
    run = checkpoints(tmp_path)
    with pytest.warns(UserWarning, match=r"optimizer.learning_rate: compile was told 0.0.* and is told 0.5"):
        run.fit(model, X, Y, batch_size=8, epochs=2, verbose=0)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_a_step_that_gives_another_loss_when_it_is_trained_again_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelkeep.live.training.keeping.TELL_EVERY", 0.0)

    class Shake(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            kernel = self.model.get_layer("a").kernel
            internals.sync_jax(self.model)
            kernel.assign_add(np.random.default_rng().normal(size=kernel.shape))
            time.sleep(0.03)  # in which progress is told

    options: dict[str, Any] = {"batch_size": 8, "epochs": 4, "verbose": 0}
    run = checkpoints(tmp_path, every_steps=7)
    with pytest.raises(Killed):
        run.fit(network(), X, Y, callbacks=[Shake(), Kill(13)], **options)
    run = checkpoints(tmp_path)
    with pytest.warns(UserWarning, match="not determined"):
        run.fit(network(), X, Y, callbacks=[Shake()], **options)
    assert "not-deterministic" in {finding.check for finding in run.findings}


def test_a_model_that_is_built_by_its_first_batch_goes_on_too(tmp_path: Path) -> None:
    def lazy() -> keras.Model:
        keras.utils.set_random_seed(7)
        model = keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    options: dict[str, Any] = {"batch_size": 8, "epochs": 3, "verbose": 0}
    whole = lazy()
    checkpoints(tmp_path / "whole").fit(whole, X, Y, **options)
    with pytest.raises(Killed):
        checkpoints(tmp_path / "run").fit(lazy(), X, Y, callbacks=[Kill(8)], **options)
    model = lazy()
    checkpoints(tmp_path / "run").fit(model, X, Y, **options)
    assert weights(model) == weights(whole)


def test_a_model_without_a_config_is_kept_all_the_same(tmp_path: Path) -> None:
    class Scaled(keras.layers.Layer):
        def __init__(self, scale: object) -> None:
            super().__init__()
            self.scale = scale

        def call(self, inputs: Any) -> Any:
            return inputs * 2.0

    def model() -> keras.Model:
        keras.utils.set_random_seed(7)
        made = keras.Sequential([keras.Input((4,)), Scaled(object()), keras.layers.Dense(1)])
        made.compile("sgd", "mse")
        return made

    run = checkpoints(tmp_path)
    with pytest.warns(UserWarning, match="cannot be published whole"):
        run.fit(model(), X, Y, batch_size=8, epochs=1, verbose=0)
    again = model()
    with pytest.warns(UserWarning, match="cannot be published whole"):
        history = run.fit(again, X, Y, batch_size=8, epochs=2, verbose=0)
    assert history.epoch == [0, 1]


@pytest.mark.parametrize(
    "options", [{}, {"class_weight": {0: 2.0}}, {"sample_weight": X[:, 0] ** 2}], ids=["plain", "classes", "samples"]
)
def test_without_shuffling_a_model_is_trained_as_by_fit_itself(tmp_path: Path, options: dict[str, Any]) -> None:
    # Without dropout: under PyTorch each DataLoader of Keras' own takes a number from the generator it draws from.
    labels = (X[:, 0] > 0).astype("int32") if "class_weight" in options else Y
    told: dict[str, Any] = {"batch_size": 9, "epochs": 2, "verbose": 0, "shuffle": False, **options}
    ours = network(dropout=0)
    history = checkpoints(tmp_path).fit(ours, X, labels, **told)
    theirs = network(dropout=0)
    assert history.history == theirs.fit(X, labels, **told).history
    assert weights(ours) == weights(theirs)


def test_validation_split_takes_the_end_of_the_arrays_as_fit_does(tmp_path: Path) -> None:
    ours = network(dropout=0)
    history = checkpoints(tmp_path).fit(ours, X, Y, batch_size=8, verbose=0, shuffle=False, validation_split=0.2)
    theirs = network(dropout=0)
    plain = theirs.fit(X, Y, batch_size=8, verbose=0, shuffle=False, validation_split=0.2)
    assert history.history == plain.history


# --- a loop of one's own


def loop(store: Path, steps: int) -> tuple[keras.Model, list[Any]]:
    model, seen = network(), []
    with checkpoints(store, every_steps=4) as run:
        restored = run.restore(model)
        for step in range(restored.step if restored else 0, steps):
            rows = slice(step % STEPS * 8, step % STEPS * 8 + 8)
            model.train_on_batch(X[rows], Y[rows])
            run.save(step + 1, model, extra={"rows": [rows.start, rows.stop]}, metrics={"step": float(step)})
        seen.append(restored)
    return model, seen


def test_a_loop_of_ones_own_goes_on_from_its_newest_checkpoint(tmp_path: Path) -> None:
    whole, (nothing,) = loop(tmp_path / "whole", 13)
    loop(tmp_path / "run", 7)
    model, (restored,) = loop(tmp_path / "run", 13)
    assert nothing is None
    assert (restored.step, restored.extra) == (4, {"rows": [24, 32]})
    assert weights(model) == weights(whole)


def test_an_optimizer_that_the_model_was_not_compiled_with_is_kept_where_it_is_given(tmp_path: Path) -> None:
    def one_step(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        variables = model.trainable_variables
        if not optimizer.built:
            optimizer.build(variables)
        optimizer.apply([keras.ops.ones(variable.shape) for variable in variables], variables)

    def fresh() -> tuple[keras.Model, keras.optimizers.Optimizer]:
        keras.utils.set_random_seed(7)
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), keras.optimizers.Adam(0.1)

    whole, its = fresh()
    with checkpoints(tmp_path) as run:
        one_step(whole, its)
        assert run.save(1, whole, optimizers={"adam": its}, force=True)
        model, optimizer = fresh()
        assert run.restore(model, optimizers={"adam": optimizer}).step == 1
        one_step(whole, its)
        one_step(model, optimizer)
        with pytest.raises(NotFaithful, match="not the optimizers"):
            run.restore(model, optimizers={"sgd": optimizer})
    assert weights(model) == weights(whole)


def test_a_run_is_gone_on_with_in_the_way_it_was_begun(tmp_path: Path) -> None:
    loop(tmp_path / "loop", 5)
    with pytest.raises(UsageError, match="as the run was begun"):
        checkpoints(tmp_path / "loop").callback()
    with pytest.raises(UsageError, match="as the run was begun"):
        checkpoints(tmp_path / "loop").fit(network(), X, Y, verbose=0)
    network().fit(X, Y, verbose=0, callbacks=[checkpoints(tmp_path / "callback").callback()])
    with pytest.raises(UsageError, match="does not tell where the data stood"):
        checkpoints(tmp_path / "callback").fit(network(), X, Y, epochs=2, verbose=0)


def test_a_loop_of_ones_own_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelkeep.live.training.keeping.TELL_EVERY", 0.0)
    model = network()
    with checkpoints(tmp_path, every_steps=100) as run:
        for step in range(1, 5):
            run.save(step, model, metrics={"loss": 1 / step})
            time.sleep(0.03)
    progress = mk.open(tmp_path).run("run").progress
    assert progress.step >= 3
    assert progress.logs == {"loss": 1 / progress.step}


def test_any_step_that_is_still_there_can_be_gone_back_to(tmp_path: Path) -> None:
    whole, _ = loop(tmp_path, 13)
    model = network()
    run = checkpoints(tmp_path)
    assert run.restore(model, at=8).checkpoint.ref == "run@8"
    assert weights(model) != weights(whole)
    with pytest.raises(CheckpointNotFound, match="after step 9"):
        run.restore(model, at=9)


def test_a_rhythm_and_a_name_that_make_no_sense_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    keep = mk.open(tmp_path)
    with pytest.raises(UsageError, match="one rhythm"):
        keep.checkpoints("run", every_steps=1, every_epochs=1)
    with pytest.raises(UsageError, match="name"):
        keep.checkpoints("../run")
    assert not list(tmp_path.iterdir())
