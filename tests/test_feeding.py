"""Feeds: whatever batch a training stopped after, going on gives the batches that never stopping gives."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

from modelkeep.live.training import feeding, state
from modelkeep.live.training.feeding import drawing

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:.*ran out of data.*"),  # what Keras says where data is shorter than asked for
]

Make = Callable[..., feeding.Feed]

X = np.arange(46, dtype="float32").reshape(23, 2)
Y = np.arange(23, dtype="float32").reshape(23, 1)


class Noisy(keras.utils.PyDataset):
    """Draws from three generators, and shuffles itself after each epoch."""

    def __init__(self, **workers: Any) -> None:
        super().__init__(**workers)
        self.rows = np.arange(20)
        self.generator = np.random.default_rng(3)
        self.made = 0
        self.hooks: list[str] = []

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.made += 1
        rows = self.rows[index * 4 : index * 4 + 4]
        noise = self.generator.normal() + np.random.normal() + random.random()
        return X[rows] + np.float32(noise), Y[rows]

    def on_epoch_begin(self) -> None:
        self.hooks.append("begin")

    def on_epoch_end(self) -> None:
        self.hooks.append("end")
        np.random.shuffle(self.rows)


class Countdown:
    """An iterator with a state of its own."""

    def __init__(self) -> None:
        self.left = 100

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> tuple[Any, Any]:
        self.left -= 1
        return X[:4] + self.left, Y[:4]

    def state_dict(self) -> dict[str, int]:
        return {"left": self.left}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.left = state["left"]


def arrays(**options: Any) -> feeding.Feed:
    return feeding.feed(X, Y, batch_size=5, seed=7, **options)


def noisy(**options: Any) -> feeding.Feed:
    return feeding.feed(Noisy(), seed=7, **options)


def loader(**options: Any) -> feeding.Feed:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return feeding.feed(torch.utils.data.DataLoader(data, batch_size=5, shuffle=True), seed=7, **options)


def seeded_loader(**options: Any) -> feeding.Feed:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    own = torch.utils.data.DataLoader(data, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(3))
    return feeding.feed(own, seed=7, **options)


def countdown(**options: Any) -> feeding.Feed:
    return feeding.feed(Countdown(), seed=7, **options)


def shuffled(**options: Any) -> feeding.Feed:
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(23, seed=3).batch(5).prefetch(2)
    return feeding.feed(data, seed=7, **options)


KINDS: dict[str, tuple[Make, dict[str, Any]]] = {
    "arrays": (arrays, {}),
    "arrays by batches": (arrays, {"shuffle": "batch"}),
    "arrays, a part of a pass for an epoch": (arrays, {"steps_per_epoch": 3}),
    "arrays, an odd part": (arrays, {"steps_per_epoch": 4}),
    "PyDataset": (noisy, {}),
    "PyDataset, a part of a pass": (noisy, {"steps_per_epoch": 3}),
    "DataLoader": (loader, {}),
    "DataLoader with a generator": (seeded_loader, {}),
    "iterator with a state": (countdown, {"steps_per_epoch": 4}),
    "tf.data": (shuffled, {}),
    "tf.data, a part of a pass": (shuffled, {"steps_per_epoch": 3}),
}


class Recorder(keras.Model):
    """Remembers what it is trained on, and learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.batches: list[list[float]] = []

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def train_step(self, *arguments: Any) -> Any:
        leaves = map(keras.ops.convert_to_numpy, keras.tree.flatten(arguments[-1]))
        self.batches.append([float(number) for leaf in leaves for number in leaf.ravel()])
        return super().train_step(*arguments)


class Stop(keras.callbacks.Callback):
    """Stops after so many batches, or at the end of the epoch they are in, and keeps what a checkpoint would."""

    def __init__(self, feed: feeding.Feed, after: int, *, at_its_end: bool) -> None:
        super().__init__()
        self.feed, self.after, self.at_its_end = feed, after, at_its_end
        self.kept: dict[str, Any] = {}
        self._seen = self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._seen += self.model.steps_per_execution
        if self._seen >= self.after and not self.at_its_end and not self.kept:
            self._keep(self._epoch, batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._seen >= self.after and not self.kept:
            self._keep(epoch + 1, 0)

    def _keep(self, epoch: int, step: int) -> None:
        position = state.pack(self.feed.position())
        self.kept = {"position": position, "epoch": epoch, "step": step, "random": drawing.capture()}
        self.model.stop_training = True


class GoOn(keras.callbacks.Callback):
    """Skips the steps that are done and puts random states back, as when training is resumed."""

    def __init__(self, feed: feeding.Feed, kept: dict[str, Any] | None) -> None:
        super().__init__()
        self._feed, self._kept = feed, kept
        self._to_skip = feed.placeholders = kept["step"] if kept else 0

    def on_train_begin(self, logs: Any = None) -> None:
        self._function, self.model.train_function = self.model.train_function, self._step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self._to_skip:
            self._put_back()

    def _put_back(self) -> None:
        if self._kept:
            drawing.restore(self._kept["random"])
            self._kept = None

    def _step(self, *arguments: Any) -> Any:
        steps = self.model.steps_per_execution
        if self._to_skip:
            self._to_skip = max(0, self._to_skip - steps)
            if not self._to_skip:
                self._put_back()
            return ({}, arguments[0]) if keras.backend.backend() == "jax" else {}
        self._feed.around(arguments[-1], steps)
        return self._function(*arguments)


def train(
    make: Make,
    *,
    stop: tuple[int, bool] | None = None,
    kept: dict[str, Any] | None = None,
    steps_per_execution: int = 1,
    **options: Any,
) -> Any:
    """Three epochs, or what is left of them: the batches, what was kept at the stop, what going back found."""
    keras.utils.set_random_seed(1)
    feed = make(**options)
    findings: Any = ()
    if kept:
        keras.utils.set_random_seed(2)  # a process that stands elsewhere
        findings = feed.go_to(state.unpack(kept["position"].document, kept["position"].arrays))
    model = Recorder()
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True, steps_per_execution=steps_per_execution)
    after, at_its_end = stop or (1000, False)
    stopper = Stop(feed, after, at_its_end=at_its_end)
    begin = kept["epoch"] if kept else 0
    steps = options.get("steps_per_epoch")
    model.fit(
        feed, epochs=3, initial_epoch=begin, verbose=0, callbacks=[GoOn(feed, kept), stopper], steps_per_epoch=steps
    )
    return model.batches, stopper.kept, findings


@pytest.mark.backends
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_going_on_gives_the_batches_that_never_stopping_gives(kind: str) -> None:
    make, options = KINDS[kind]
    whole, _, _ = train(make, **options)
    for stop in ((5, False), (7, False), (4, True)):
        done, kept, _ = train(make, stop=stop, **options)
        rest, _, findings = train(make, kept=kept, **options)
        assert done + rest == whole, stop
        assert findings == ()


def generated(**options: Any) -> feeding.Feed:
    tf = pytest.importorskip("tensorflow")
    spec = (tf.TensorSpec([None, 2]), tf.TensorSpec([None, 1]))
    data = tf.data.Dataset.from_generator(
        lambda: ((X[i : i + 4], Y[i : i + 4]) for i in range(5)), output_signature=spec
    )
    return feeding.feed(data, seed=7, **options)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch executes one step at a time")
@pytest.mark.parametrize("make", [arrays, noisy, shuffled], ids=lambda make: make.__name__)
def test_executions_of_several_steps_go_on_as_well(make: Make) -> None:
    whole, _, _ = train(make, steps_per_execution=2)
    assert len(whole) == 15
    for stop in ((6, False), (6, True)):
        done, kept, _ = train(make, stop=stop, steps_per_execution=2)
        rest, _, findings = train(make, kept=kept, steps_per_execution=2)
        assert done + rest == whole, stop
        assert findings == ()


@pytest.mark.backends
@pytest.mark.slow
@pytest.mark.parametrize("fast_forward", [True, False])
def test_what_tensorflow_cannot_keep_is_gone_through_again_or_begins_anew(fast_forward: bool) -> None:
    whole, _, _ = train(generated, fast_forward=fast_forward)
    done, kept, _ = train(generated, stop=(7, False), fast_forward=fast_forward)
    rest, _, findings = train(generated, kept=kept, fast_forward=fast_forward)
    assert done == whole[:7]
    assert rest[:3] == (whole[7:10] if fast_forward else whole[5:8])
    assert [finding.check for finding in findings] == ["data-fast-forward" if fast_forward else "data-not-restored"]


@pytest.mark.parametrize(("seed", "said"), [(None, ["data-not-exact"]), (3, [])])
def test_a_shuffle_without_a_seed_is_said(seed: int | None, said: list[str]) -> None:
    tf = pytest.importorskip("tensorflow")
    tf.random.set_seed(1)
    tf.random.set_seed(None)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(23, seed=seed).batch(5)
    assert [finding.check for finding in feeding.feed(data, seed=7).findings] == said


def test_random_numbers_within_a_dataset_are_said() -> None:
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5).map(lambda x, y: (x + tf.random.uniform([]), y))
    (finding,) = feeding.feed(data, seed=7).findings
    assert (finding.check, "RandomUniform" in finding.message) == ("data-not-exact", True)


@pytest.mark.backends
def test_weights_of_classes_come_as_those_of_samples() -> None:
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    for given in (data, Noisy()):
        batches, _, _ = train(
            lambda given=given: feeding.feed(given, seed=7, class_weight=dict.fromkeys(range(23), 3.0))
        )
        assert all(batch[-1] == 3.0 for batch in batches)
