"""Snapshots hold what was there when they were taken, whatever training does then, and prove what did not change."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from modelkeep.errors import UsageError
from modelkeep.live import internals
from modelkeep.live.capture import TORCH_RNG, capture
from modelkeep.live.training.snapshot import Snapshots
from modelkeep.live.variables import inventory, view
from zoo import ZOO, here

pytestmark = [pytest.mark.keras, pytest.mark.backends]

BACKEND = keras.backend.backend()
WAYS = [False, True] if BACKEND == "tensorflow" else [False]  # copy-on-write
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's buffers")
HOW = {
    "tensorflow": [
        ({}, False),
        *(
            ({how: value}, True)
            for how, value in [
                ("run_eagerly", False),
                ("run_eagerly", True),
                ("jit_compile", True),
                ("steps_per_execution", 2),
            ]
        ),
    ],
    "jax": [({}, False), ({"steps_per_execution": 2}, False)],
    "torch": [({}, False)],
}[BACKEND]


def _snapshots(model: keras.Model, **options: Any) -> Snapshots:
    return Snapshots(inventory(internals.walk(model)), **options)


def _values(model: keras.Model) -> dict[str, bytes]:
    return {name: view(variable).tobytes() for name, variable in inventory(internals.walk(model)).variables.items()}


def _read(snapshot: Any) -> dict[str, bytes]:
    return {source.name: bytes(source.read()) for source in snapshot.sources if source.name != TORCH_RNG}


class _TakesOne(keras.callbacks.Callback):
    """A snapshot in the middle of an epoch, and the values there were then."""

    def __init__(self, way: bool | None) -> None:
        super().__init__()
        self.way = way

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 3:
            internals.sync_jax(self.model)
            self.then = _values(self.model)
            self.snapshot = _snapshots(self.model, copy_on_write=self.way).take()


def _assert_held(model: keras.Model, callback: _TakesOne, x: Any, y: Any) -> None:
    model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
    assert _read(callback.snapshot) == callback.then
    now = _values(model)
    assert sum(now[name] != callback.then[name] for name in now) > len(now) / 2


def _network() -> keras.Model:
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(5), layers.BatchNormalization(), layers.Dropout(0.2), layers.Dense(1)]
    )


X, Y = np.random.default_rng(1).random((40, 6), "float32"), np.random.default_rng(2).random((40, 1), "float32")


@pytest.mark.parametrize(("how", "way"), HOW, ids=str)
def test_it_holds_what_was_there_while_training_goes_on(how: dict[str, Any], way: bool) -> None:
    model = _network()
    model.compile("adam", "mse", metrics=["mae"], **how)
    _assert_held(model, _TakesOne(way), X, Y)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_it_holds_embeddings_of_which_single_rows_are_updated(optimizer: str, way: bool) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Embedding(30, 4), layers.Flatten(), layers.Dense(1)])
    model.compile(optimizer, "mse")
    _assert_held(model, _TakesOne(way), np.arange(120).reshape(40, 3) % 30, Y)


@pytest.mark.parametrize("way", WAYS)
def test_it_holds_variables_that_a_callback_assigns(way: bool) -> None:
    model = _network()
    model.compile("adam", "mse")

    class Assigns(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            internals.sync_jax(self.model)
            self.model.layers[0].kernel.assign(np.full((6, 5), float(batch), "float32"))
            self.model.optimizer.learning_rate = 0.01 * batch

    callback = _TakesOne(way)
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[Assigns(), callback])
    assert _read(callback.snapshot) == callback.then


# --- what it is made of


@pytest.mark.parametrize("name", [name for name in here() if name in ("bfloat16", "own_train_step", "custom_objects")])
def test_its_tensors_are_those_of_a_save(name: str) -> None:
    model = ZOO[name].build()
    ZOO[name].use(model, 1)
    taken = {s.name: (s.dtype, s.shape, s.nbytes, bytes(s.read())) for s in _snapshots(model).take().sources}
    saved = {s.name: (s.dtype, s.shape, s.nbytes, bytes(s.read())) for s in capture(model, architecture=False).tensors}
    assert taken == saved


class _Counts(layers.Layer):
    """Computes what it saves, as vocabularies and tables do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen = np.zeros(3)
        self.built = True

    def call(self, x: Any) -> Any:
        return x

    def save_own_variables(self, store: Any) -> None:
        store["seen"] = self.seen

    def load_own_variables(self, store: Any) -> None:
        self.seen = np.array(store["seen"])


def test_what_a_class_computes_is_computed_anew_each_time_and_copied() -> None:
    layer = _Counts(name="counts")
    model = keras.Sequential([keras.Input((3,)), layer, layers.Dense(1)])
    snapshots = _snapshots(model)
    snapshots.take().release()
    layer.seen += 1
    snapshot = snapshots.take()
    layer.seen += 1
    (seen,) = (source.read() for source in snapshot.sources if source.name.endswith("/vars/seen"))
    assert np.frombuffer(seen).tolist() == [1, 1, 1]


@pytest.mark.skipif(BACKEND != "torch", reason="torch's generator")
def test_the_state_of_torchs_generator_belongs_to_a_network_that_draws_from_it() -> None:
    import torch

    snapshots = _snapshots(_network())
    before = torch.get_rng_state().numpy().tobytes()
    sources = {source.name: source for source in snapshots.take().sources}
    torch.rand(3)
    assert sources[TORCH_RNG].read() == before


def test_no_weights_at_all_are_a_snapshot_too() -> None:
    assert _snapshots(keras.Sequential([keras.Input((3,)), layers.ReLU()])).take().sources == []


# --- what did not change


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25)
@given(st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=6))
def test_what_is_called_the_same_is_the_same_and_the_rest_is_there(way: bool, changes: list[set[int]]) -> None:
    variables = [keras.Variable(np.arange(n * 5, dtype="float32"), trainable=n % 2 == 0) for n in range(7)]
    model = keras.Sequential([layers.ReLU()])
    model.held = variables
    names = inventory(internals.walk(model)).names
    snapshots, stored = _snapshots(model, copy_on_write=way), {}
    for changed in [*changes, set()]:
        for number in changed:
            variables[number].assign(variables[number] + 1)
        snapshot = snapshots.take()
        assert not snapshot.same & {source.name for source in snapshot.sources}
        stored |= _read(snapshot)
        assert stored == {names[id(variable)]: view(variable).tobytes() for variable in variables}
        snapshot.release()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_frozen_is_the_same_until_it_is_not(way: bool) -> None:
    model = _network()
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    snapshots = _snapshots(model, copy_on_write=way)
    snapshots.take().release()
    model.fit(X, Y, verbose=0)
    snapshot = snapshots.take()
    assert {"weights/layers/dense/vars/0", "weights/layers/dense/vars/1"} <= snapshot.same
    assert "weights/layers/dense_1/vars/0" not in snapshot.same
    snapshot.release()
    model.layers[0].bias.assign(np.ones(5, "float32"))  # frozen says nothing of who else writes
    assert "weights/layers/dense/vars/1" in {source.name for source in snapshots.take().sources}


def test_nothing_is_the_same_as_nothing_before() -> None:
    assert _snapshots(_network()).take().same == frozenset()


# --- one after the other


@pytest.mark.parametrize("way", WAYS)
def test_one_is_taken_after_the_other_is_released(way: bool) -> None:
    snapshots = _snapshots(_network(), copy_on_write=way)
    first = snapshots.take()
    with pytest.raises(UsageError, match="still in use"):
        snapshots.take()
    first.release()
    second = snapshots.take()
    first.release()  # long done, and nothing to the second
    with pytest.raises(UsageError, match="still in use"):
        snapshots.take()
    second.release()


def test_they_do_not_fit_a_model_that_got_more_variables() -> None:
    model = _network()
    before = _snapshots(model)
    assert before.fits(model)
    model.compile("adam", "mse", metrics=["mae"])
    model.train_on_batch(X, Y)
    assert not before.fits(model)
    assert _snapshots(model).fits(model)


# --- each backend's own memory


@pytest.mark.skipif(BACKEND == "tensorflow", reason="its buffers may be held")
def test_buffers_that_updates_write_to_cannot_be_held() -> None:
    with pytest.raises(UsageError, match=BACKEND):
        _snapshots(_network(), copy_on_write=True)


@pytest.mark.skipif(BACKEND != "torch", reason="torch's memory can be exchanged")
def test_memory_given_to_a_torch_variable_later_is_seen() -> None:
    model = _network()
    kernel, snapshots = model.layers[0].kernel, _snapshots(model)
    snapshots.take().release()
    for values in (kernel.value.data + 1, (kernel.value.data + 2).T.contiguous().T):
        kernel.value.data = values
        snapshot = snapshots.take()
        assert _read(snapshot)["weights/layers/dense/vars/0"] == values.numpy().tobytes()
        snapshot.release()


@tensorflow_only
def test_after_its_release_updates_write_in_place_again() -> None:
    model = _network()
    kernel, snapshots = model.layers[0].kernel, _snapshots(model, copy_on_write=True)

    def writes_in_place() -> bool:
        before = view(kernel).ctypes.data
        kernel.value.assign_add(np.ones((6, 5), "float32"))
        return bool(view(kernel).ctypes.data == before)

    snapshots.take().release()
    assert not writes_in_place()  # held on, as long as it never changed
    snapshot = snapshots.take()
    assert not writes_in_place()
    assert writes_in_place()
    snapshot.release()
    snapshots.take().release()
    assert writes_in_place()


@tensorflow_only
def test_a_snapshot_that_was_released_is_not_read() -> None:
    model = _network()
    snapshots = _snapshots(model, copy_on_write=True)
    snapshots.take().release()
    model.layers[0].kernel.assign_add(np.ones((6, 5), "float32"))
    snapshot = snapshots.take()
    snapshot.release()
    with pytest.raises(UsageError, match="released"):
        _read(snapshot)


@tensorflow_only
def test_replicated_variables_are_copied() -> None:
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = _network()
        model.compile("adam", "mse")
    _assert_held(model, _TakesOne(None), X, Y)
