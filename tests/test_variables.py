"""A variable's memory goes into the store and comes back without a copy, whatever the backend and dtype."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from keeping import state
from modelkeep.errors import NotFaithful
from modelkeep.live import internals
from modelkeep.live.tensors import array, numpy_dtype
from modelkeep.live.variables import array_source, assign, inventory, source, view
from modelkeep.manifest import Piece, Tensor
from zoo import ZOO, here

pytestmark = [
    pytest.mark.keras,
    pytest.mark.backends,
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning"),  # JAX, where 64 bits are off
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),
]
BACKEND = keras.backend.backend()
DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "uint32", "bool"]
LENT = [name for name in DTYPES if BACKEND != "jax" or not name.endswith("64")]


def variable(dtype: str, *shape: int) -> Any:
    values = np.arange(int(np.prod(shape))).reshape(shape) % 2
    return keras.Variable(values.astype(numpy_dtype(dtype)), dtype=dtype, trainable=False)


def aligned(data: bytes, offset: int = 0) -> memoryview:
    """Writable memory at ``offset`` beyond a multiple of 64."""
    room = np.zeros(len(data) + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    room[start : start + len(data)] = np.frombuffer(data, np.uint8)
    return memoryview(room)[start : start + len(data)]


def stored(one: Any) -> Tensor:
    described = source("x", one)
    piece = Piece(blob="", size=described.nbytes)
    return Tensor(name="x", dtype=described.dtype, shape=described.shape, digest="", pieces=(piece,))


def address(values: Any) -> int:
    return int(values.__array_interface__["data"][0])


@pytest.mark.parametrize("shape", [(3, 5), (), (0, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_survive_the_way_out_and_in(dtype: str, shape: tuple[int, ...]) -> None:
    one = variable(dtype, *shape)
    data = bytes(source("x", one).read())
    other = variable(dtype, *shape)
    other.assign(keras.ops.zeros_like(other.value))
    assign(other, array(stored(one), aligned(data)))
    assert bytes(source("x", other).read()) == data
    assert len(data) == source("x", one).nbytes


@pytest.mark.parametrize("dtype", DTYPES)
def test_reading_a_variable_copies_nothing(dtype: str) -> None:
    one = variable(dtype, 64, 64)
    assert address(view(one)) == address(view(one))


@pytest.mark.parametrize("dtype", LENT)
def test_a_new_variable_takes_the_memory_it_is_given(dtype: str) -> None:
    given_memory = aligned(bytes(source("x", variable(dtype, 64, 64)).read()))
    values = array(stored(variable(dtype, 64, 64)), given_memory)
    with internals.deferred():
        one = keras.Variable(keras.initializers.Zeros(), shape=(64, 64), dtype=dtype, trainable=False)
    assign(one, values)
    assert address(view(one)) == address(values)


@pytest.mark.parametrize("offset", [1, 4, 8, 32])
def test_misaligned_memory_is_copied(offset: int) -> None:
    one = variable("float32", 16, 16)
    memory = aligned(bytes(source("x", one).read()), offset)
    assign(one, np.frombuffer(memory, np.float32).reshape(16, 16) if offset % 4 == 0 else _shifted(memory))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras.ops.matmul(one, one)), _square())


def _shifted(memory: memoryview) -> Any:
    return np.ndarray((16, 16), np.float32, memory)


def _square() -> Any:
    values = (np.arange(256).reshape(16, 16) % 2).astype("float32")
    return values @ values


def test_memory_that_must_not_change_is_copied() -> None:
    one = variable("float32", 4)
    data = np.ones(4, np.float32)
    data.flags.writeable = False
    assign(one, data)
    one.assign(keras.ops.zeros(4))
    assert data.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([1, 2**40]), "int32"),
        (np.array([0.1]), "float32"),
        (np.array([-1]), "uint8"),
        (np.array([0.5]), "int32"),
    ],
)
def test_values_that_do_not_fit_another_dtype_are_refused(values: Any, dtype: str) -> None:
    one = keras.Variable(np.zeros(len(values), dtype), dtype=dtype, trainable=False)
    with pytest.raises(NotFaithful, match="cannot hold its saved values exactly"):
        assign(one, values, exact=False)


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5), st.sampled_from(["int64", "uint32", "int32"]))
def test_counters_and_seeds_cross_between_the_integers_of_the_backends(numbers: list[int], dtype: str) -> None:
    one = keras.Variable(np.zeros(len(numbers), "int32"), dtype="int32", trainable=False)
    assign(one, np.array(numbers, dtype), exact=False)
    assert keras.ops.convert_to_numpy(one.value).tolist() == numbers


def test_text_is_no_tensor() -> None:
    with pytest.raises(NotFaithful, match="save_assets"):
        array_source("weights/note", np.array(["text"]))


@pytest.mark.parametrize("name", here())
def test_every_variable_of_a_model_has_one_name(name: str) -> None:
    model = ZOO[name].build()
    found = inventory(internals.walk(model))
    reachable = {id(v) for v in [*model.variables, *model.metrics_variables]}
    if model.compiled:
        reachable |= {id(v) for v in model.optimizer.variables}
    assert reachable <= found.names.keys()
    assert len(found.names) == len(found.variables)


def test_names_are_those_of_keras_own_files() -> None:
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2), layers.Dense(2, name="other"), layers.Dropout(0.5)])
    assert sorted(state(model)) == [
        "state/layers/dropout/0",
        "weights/layers/dense/vars/0",
        "weights/layers/dense/vars/1",
        "weights/layers/dense_1/vars/0",
        "weights/layers/dense_1/vars/1",
    ]


def test_states_that_no_layer_lists_are_found() -> None:
    states = [name for name in state(ZOO["stateful_rnn"].build()) if name.startswith("state/layers/lstm/")]
    assert "state/layers/lstm/1" in states
