"""What could be lost, or become another training, without a word: each was so once, or was feared to be."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import modelkeep as mk
from modelkeep.errors import NotFaithful, UsageError
from modelkeep.live.training.background import Background
from modelkeep.live.training.checkpoints import Checkpoints
from modelkeep.live.training.interruption import Interruption

pytestmark = [
    pytest.mark.keras,
    pytest.mark.backends,
    # Of callbacks that only one part of a run had.
    pytest.mark.filterwarnings("ignore:.*At. (there is none like it now|the checkpoint knows none like it)"),
]

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
HELD_OUT = (X[:16] + 1, Y[:16])
FIVE_STEPS: dict[str, Any] = {"batch_size": 8, "verbose": 0}


class Killed(Exception):
    """In the place of a kill: the model in memory is thrown away afterwards."""


class At(keras.callbacks.Callback):
    """Does something at the so-manieth call of one of a callback's methods."""

    def __init__(self, method: str, number: int, do: Any) -> None:
        super().__init__()
        self.left = number
        setattr(self, method, lambda *_, logs=None: self.count(do))

    def get_state(self) -> None:
        return None

    def set_state(self, _: None) -> None:
        pass

    def count(self, do: Any) -> None:
        self.left -= 1
        if self.left == 0:
            do(self.model)


class Slow(keras.callbacks.Callback):
    """Leaves time to tell how far training is."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        time.sleep(0.03)


def die(_: keras.Model) -> None:
    raise Killed


def terminate(_: keras.Model) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def network(rate: float = 0.01) -> keras.Model:
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(rate), "mse", metrics=["mae"])
    return model


def run(store: Path, **options: Any) -> Checkpoints:
    return mk.open(store).checkpoints("run", **options)


def weights(model: keras.Model) -> list[bytes]:
    return [keras.ops.convert_to_numpy(variable.value).tobytes() for variable in model.variables]


def checks(checkpoints: Checkpoints) -> set[str]:
    return {finding.check for finding in checkpoints.findings}


# --- a fit that is stopped


def test_a_training_that_was_stopped_within_an_epoch_still_ends_that_epoch(tmp_path: Path) -> None:
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training |= self.model.optimizer.iterations == 8

    def train(store: Path, *callbacks: Any) -> tuple[keras.Model, Any]:
        model = network()
        told = {**FIVE_STEPS, "epochs": 4, "validation_data": HELD_OUT, "callbacks": [Stop(), *callbacks]}
        return model, run(store, every_steps=1).fit(model, X, Y, **told).history

    whole, history = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "run", At("on_test_begin", 2, die))
    model, resumed = train(tmp_path / "run")
    assert len(history["val_loss"]) == 2
    assert resumed == history
    assert weights(model) == weights(whole)


def test_a_signal_in_the_first_validation_leaves_the_metrics_of_the_epoch(tmp_path: Path) -> None:
    def train(store: Path, *callbacks: Any) -> Any:
        told = {**FIVE_STEPS, "epochs": 2, "validation_data": HELD_OUT, "callbacks": callbacks}
        return run(store).fit(network(), X, Y, **told).history

    history = train(tmp_path / "whole")
    with pytest.raises(SystemExit):
        train(tmp_path / "run", At("on_test_batch_begin", 2, terminate))
    assert train(tmp_path / "run") == history


@pytest.mark.parametrize("method", ["on_train_end", "on_epoch_end"])
def test_a_signal_at_the_very_end_ends_the_process_all_the_same(tmp_path: Path, method: str) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path).fit(network(), X, Y, **FIVE_STEPS, epochs=1, callbacks=[At(method, 1, terminate)])
    assert mk.open(tmp_path).run("run").finished


def test_a_signal_after_the_last_step_of_a_loop_of_ones_own_ends_the_process_all_the_same(tmp_path: Path) -> None:
    model = network()
    with pytest.raises(SystemExit), run(tmp_path, every_steps=1):
        terminate(model)


def test_a_model_whose_fit_failed_goes_on_in_the_same_process(tmp_path: Path) -> None:
    def train(store: Path, model: keras.Model, *callbacks: Any) -> None:
        run(store, every_steps=2).fit(model, X, Y, **FIVE_STEPS, epochs=3, callbacks=callbacks)

    whole = network()
    train(tmp_path / "whole", whole)
    model = network()
    for after in (4, 3, 6):
        with pytest.raises(Killed):
            train(tmp_path / "run", model, At("on_train_batch_end", after, die))
    train(tmp_path / "run", model)
    assert weights(model) == weights(whole)


def test_a_model_whose_data_failed_while_steps_were_passed_by_is_trained_by_its_next_fit(tmp_path: Path) -> None:
    def batches(fail: bool) -> Any:
        yield from [(X[:8], Y[:8])] * 2
        if fail:
            raise Killed
        yield from [(X[:8], Y[:8])] * 8

    told = {"steps_per_epoch": 5, "verbose": 0, "shuffle": False}
    late = At("on_train_batch_end", 4, die)
    with pytest.raises(Killed):
        network().fit(batches(False), **told, callbacks=[run(tmp_path, every_steps=1).callback(), late])
    model = network()
    with pytest.raises(Exception, match=r"Killed|^$"):
        model.fit(batches(True), **told, callbacks=[run(tmp_path).callback()])
    before = weights(model)
    model.fit(X, Y, **FIVE_STEPS)
    assert weights(model) != before
    assert float(model.optimizer.iterations) == 8


# --- a fit that changes


def test_a_train_function_that_a_callback_makes_anew_is_used_from_then_on(tmp_path: Path) -> None:
    def train(store: Path | None, *callbacks: Any) -> tuple[keras.Model, Any]:
        model = network()
        anew = At("on_epoch_begin", 2, lambda model: model.make_train_function(force=True))
        told = {**FIVE_STEPS, "epochs": 3, "callbacks": [anew, *callbacks]}
        return model, run(store, every_steps=2).fit(model, X, Y, **told).history

    whole, history = train(tmp_path / "whole")
    plain = network()
    run(tmp_path / "plain").fit(plain, X, Y, **FIVE_STEPS, epochs=3)
    assert weights(whole) == weights(plain)
    with pytest.raises(Killed):
        train(tmp_path / "run", At("on_train_batch_end", 8, die))
    model, resumed = train(tmp_path / "run")
    assert (weights(model), resumed) == (weights(whole), history)


@pytest.mark.parametrize("eagerly", [False, True])
def test_callbacks_may_evaluate_predict_and_save(tmp_path: Path, eagerly: bool) -> None:
    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["held_out"] = self.model.evaluate(*HELD_OUT, verbose=0)[0]
            logs["mean"] = float(np.mean(self.model.predict(X, verbose=0)))
            self.model.save(tmp_path / "saved.keras")

    def train(store: Path, *callbacks: Any) -> tuple[list[bytes], Any]:
        model = network()
        model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"], run_eagerly=eagerly)
        told = {**FIVE_STEPS, "epochs": 3, "validation_data": HELD_OUT, "validation_freq": 2}
        history = run(store, every_steps=3).fit(model, X, Y, **told, callbacks=[Look(), *callbacks])
        return weights(model), history.history

    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "run", At("on_train_batch_end", 8, die))
    assert train(tmp_path / "run") == whole


def test_what_a_callback_compiles_at_the_end_stays(tmp_path: Path) -> None:
    model = network()
    again = At("on_train_end", 1, lambda model: model.compile("sgd", "mse"))
    run(tmp_path).fit(model, X, Y, **FIVE_STEPS, epochs=1, callbacks=[again])
    assert model.train_function is None


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="its step is written for TensorFlow")
def test_optimizers_that_only_the_models_own_step_knows_are_kept_with_their_slots(tmp_path: Path) -> None:
    import tensorflow as tf

    class Pair(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            keras.utils.set_random_seed(7)
            self.one = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
            self.two = keras.Sequential([keras.Input((1,)), keras.layers.Dense(4)])

        def compile(self, first: Any, second: Any) -> None:
            super().compile()
            self.first, self.second = first, second

        def train_step(self, data: Any) -> Any:
            x, _ = data
            with tf.GradientTape(persistent=True) as tape:
                loss = tf.reduce_mean((self.two(self.one(x)) - x) ** 2)
            self.first.apply(tape.gradient(loss, self.one.trainable_variables), self.one.trainable_variables)
            self.second.apply(tape.gradient(loss, self.two.trainable_variables), self.two.trainable_variables)
            return {"loss": loss}

    def train(store: Path, *callbacks: Any) -> keras.Model:
        model = Pair()
        model.compile(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, momentum=0.9))
        run(store, every_steps=2).fit(model, X, Y, **FIVE_STEPS, epochs=2, callbacks=list(callbacks))
        return model

    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "run", At("on_train_batch_end", 7, die))
    model = train(tmp_path / "run")
    for optimizer in ("first", "second"):
        its, ours = (getattr(one, optimizer).variables for one in (whole, model))
        assert [np.asarray(one).tolist() for one in its] == [np.asarray(one).tolist() for one in ours]
    assert weights(model) == weights(whole)


# --- what a user may not expect


def test_the_best_epoch_has_a_checkpoint_whatever_the_rhythm(tmp_path: Path) -> None:
    told = {**FIVE_STEPS, "epochs": 4, "validation_data": HELD_OUT}
    worse = At("on_epoch_begin", 4, lambda model: model.layers[-1].kernel.assign(model.layers[-1].kernel * 9))
    history = run(tmp_path, every_steps=2, keep_last=1, keep_best="val_loss").fit(
        network(), X, Y, **told, callbacks=[worse]
    )
    best = int(np.argmin(history.history["val_loss"]))
    kept = mk.open(tmp_path).run("run")
    assert best < 3
    assert kept.best.metrics["val_loss"] == history.history["val_loss"][best]
    assert [one.epoch for one in kept.checkpoints] == [best + 1, 4]


def test_a_metric_to_keep_the_best_by_that_nobody_logs_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="keep_best finds no val_loss"):
        run(tmp_path, keep_best="val_loss").fit(network(), X, Y, **FIVE_STEPS, epochs=2)


def test_that_a_run_is_done_is_said(tmp_path: Path) -> None:
    run(tmp_path).fit(network(), X, Y, **FIVE_STEPS, epochs=2)
    again = run(tmp_path)
    with pytest.warns(UserWarning, match="2 epochs are done and 1 asked for, so nothing is trained"):
        again.fit(network(), X, Y, **FIVE_STEPS, epochs=1)
    assert checks(again) == {"run-done"}


def test_what_was_gone_back_to_is_where_fit_goes_on(tmp_path: Path) -> None:
    whole = network()
    run(tmp_path, keep_last=None).fit(whole, X, Y, **FIVE_STEPS, epochs=3)
    checkpoints, model = run(tmp_path), network()
    checkpoints.restore(model, at=5)
    checkpoints.fit(model, X, Y, **FIVE_STEPS, epochs=3)
    assert [one.follows for one in mk.open(tmp_path).run("run").checkpoints][-2:] == [1, 4]
    assert weights(model) == weights(whole)


def test_validation_that_remembers_where_it_was_is_said(tmp_path: Path) -> None:
    told = {**FIVE_STEPS, "validation_steps": 1}
    with pytest.warns(UserWarning, match="each validation goes on where the one before ended"):
        run(tmp_path).fit(network(), X, Y, **told, validation_data=(one for one in [(X[:8], Y[:8])] * 3))


def test_an_epoch_under_way_that_has_other_steps_now_is_said(tmp_path: Path) -> None:
    told = {**FIVE_STEPS, "epochs": 1, "shuffle": False}
    with pytest.raises(Killed):
        run(tmp_path, every_steps=1).fit(
            network(), X, Y, **told, steps_per_epoch=5, callbacks=[At("on_train_batch_end", 4, die)]
        )
    with pytest.warns(UserWarning, match="had 5 steps, and has 4 now"):
        run(tmp_path).fit(network(), X, Y, **told, steps_per_epoch=4)
    assert mk.open(tmp_path).run("run").newest.step == 4


def test_an_epoch_that_has_fewer_steps_than_were_done_is_refused(tmp_path: Path) -> None:
    told = {**FIVE_STEPS, "shuffle": False}
    with pytest.raises(Killed):
        run(tmp_path, every_steps=1).fit(
            network(), X, Y, **told, steps_per_epoch=5, callbacks=[At("on_train_batch_end", 5, die)]
        )
    with pytest.raises(NotFaithful, match="more steps behind it"):
        run(tmp_path).fit(network(), X, Y, **told, steps_per_epoch=2)


def test_data_in_batches_of_another_size_is_said_between_two_epochs(tmp_path: Path) -> None:
    class Halves(keras.utils.PyDataset):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.size = size

        def __len__(self) -> int:
            return len(X) // self.size

        def __getitem__(self, index: int) -> Any:
            rows = slice(index * self.size, index * self.size + self.size)
            return X[rows], Y[rows]

    run(tmp_path).fit(network(), Halves(8), verbose=0)
    with pytest.warns(UserWarning, match="has 10 batches a pass, and had 5"):
        run(tmp_path).fit(network(), Halves(4), epochs=2, verbose=0)


def test_an_epoch_that_fit_was_told_to_begin_with_counts_as_what_comes_before(tmp_path: Path) -> None:
    told = {**FIVE_STEPS, "epochs": 4, "initial_epoch": 2}
    with pytest.raises(Killed):
        run(tmp_path, every_steps=1).fit(network(), X, Y, **told, callbacks=[At("on_train_batch_end", 4, die)])
    newest = mk.open(tmp_path).run("run").newest
    assert (newest.epoch, newest.step_in_epoch) == (2, 3)
    assert run(tmp_path).fit(network(), X, Y, **{**told, "initial_epoch": 3}).epoch == [2, 3]


def test_another_release_than_a_checkpoint_was_kept_with_is_said(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelkeep.environment.installed", lambda name: "3.0.0")
        run(tmp_path).fit(network(), X, Y, **FIVE_STEPS, epochs=1)
    with pytest.warns(UserWarning, match=r"kept with .*keras 3.0.0.* to the bit"):
        run(tmp_path).fit(network(), X, Y, **FIVE_STEPS, epochs=2)


def test_what_an_attempt_logged_that_left_no_checkpoint_is_compared_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelkeep.live.training.keeping.TELL_EVERY", 0.0)
    with pytest.raises(Killed):
        run(tmp_path).fit(network(), X, Y, **FIVE_STEPS, callbacks=[Slow(), At("on_train_batch_end", 5, die)])
    assert mk.open(tmp_path).run("run").progress.step
    other = run(tmp_path)
    other.fit(network(rate=0.5), X, Y, **FIVE_STEPS)
    assert not other.findings


def test_callbacks_in_a_list_of_keras_own_are_kept_too(tmp_path: Path) -> None:
    early = keras.callbacks.EarlyStopping("loss", patience=50)
    run(tmp_path).fit(network(), X, Y, **FIVE_STEPS, epochs=1, callbacks=keras.callbacks.CallbackList([early]))
    again = keras.callbacks.EarlyStopping("loss", patience=50)
    with pytest.warns(UserWarning, match="nothing is trained"):
        run(tmp_path).fit(network(), X, Y, **FIVE_STEPS, epochs=1, callbacks=[again])
    assert again.best == early.best


def test_a_callback_is_for_one_fit_and_a_fit_for_one_run(tmp_path: Path) -> None:
    model = network()
    callback = run(tmp_path).callback()
    model.fit(X, Y, **FIVE_STEPS, callbacks=[callback])
    with pytest.raises(UsageError, match="had its fit already"):
        model.fit(X, Y, **FIVE_STEPS, callbacks=[callback])
    other = mk.open(tmp_path).checkpoints("other").callback()
    with pytest.raises(UsageError, match="two runs"):
        mk.open(tmp_path).checkpoints("third").fit(model, X, Y, **FIVE_STEPS, callbacks=[other])


def test_a_fit_of_ones_own_after_a_callback_that_failed_begins_at_its_beginning(tmp_path: Path) -> None:
    network().fit(X, Y, **FIVE_STEPS, callbacks=[run(tmp_path).callback()])
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    with pytest.raises(NotFaithful), pytest.warns(UserWarning, match="compile was told"):
        model.fit(X, Y, **FIVE_STEPS, epochs=2, callbacks=[run(tmp_path).callback()])
    assert model.fit(X, Y, **FIVE_STEPS, epochs=2).epoch == [0, 1]


def test_a_loop_that_would_quietly_keep_nothing_or_throw_a_run_away_is_refused(tmp_path: Path) -> None:
    model = network()
    first = run(tmp_path)
    with pytest.raises(UsageError, match="nothing tells how many are done"):
        first.save(1, model)
    first.save(3, model, force=True)
    with pytest.raises(UsageError, match="counted over the whole run"):
        first.save(2, model, force=True)
    first.close()
    with pytest.raises(UsageError, match="did not go on from them"):
        run(tmp_path).save(1, model, force=True)


# --- other processes


def _stay(there: Any) -> None:
    there.set()
    time.sleep(30)


def _leave() -> None:
    pass


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX's
def test_processes_that_a_training_forks_end_when_they_are_told_to() -> None:
    fork = multiprocessing.get_context("fork")
    with Interruption():
        there = fork.Event()
        child = fork.Process(target=_stay, args=(there,))
        child.start()
        there.wait(5)
        child.terminate()
        child.join(5)
        ended = child.exitcode
        child.kill()
    assert ended == -signal.SIGTERM


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX's
def test_a_process_forked_while_a_checkpoint_is_written_does_not_wait_for_it() -> None:
    fork = multiprocessing.get_context("fork")
    with Background() as background:
        background.submit(lambda: time.sleep(1))
        child = fork.Process(target=_leave)
        child.start()
        child.join(5)
        ended = child.exitcode
        child.kill()
    assert ended == 0
