"""What a checkpoint holds besides variables, through bytes and back to the bit."""

from __future__ import annotations

import math
import struct
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelkeep.errors import IntegrityError, UsageError
from modelkeep.live.training import state
from modelkeep.live.training.state import Constant, digest, is_plain, pack, unpack

DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    hnp.byte_string_dtypes(endianness="<"),
    hnp.unicode_string_dtypes(),
    st.sampled_from([np.dtype(kind) for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4)]),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Of any bits, laid out in any way."""
    dtype, shape = draw(DTYPES), draw(SHAPES)
    if dtype.kind in "SU" or dtype.itemsize != np.dtype(dtype).itemsize or dtype.name == "int4":
        array = np.zeros(shape, dtype)
    else:
        count = math.prod(shape) * dtype.itemsize
        array = np.frombuffer(bytearray(draw(st.binary(min_size=count, max_size=count))), np.uint8).view(dtype)
        array = array.reshape(shape)
    return draw(st.sampled_from([array, array.T, array[::-1] if array.ndim else array, np.asfortranarray(array)]))


floats = st.floats() | st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
texts = st.text(st.characters(), max_size=8) | st.text("\ud800a\0", max_size=3)
leaves = st.none() | st.booleans() | st.integers() | st.integers(-(2**200), 2**200) | floats | texts | st.binary()
scalars = hnp.arrays(hnp.scalar_dtypes(), ()).map(lambda array: array[()]) | texts.map(np.str_)
keys = st.recursive(leaves | scalars, lambda inner: st.lists(inner, max_size=2).map(tuple) | st.frozensets(inner))
values = st.recursive(
    leaves | scalars | arrays() | st.sets(keys, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal in type and in every bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.str_ | np.bytes_):
        return bool(one == other)
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, set | frozenset):
        return pack(one).document == pack(other).document  # in an order of their own
    return bool(one == other)


# Hypothesis would print all of the strategy above.
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(values, st.sampled_from([1, state.APART]))
def test_every_plain_value_comes_back_to_the_bit(value: Any, apart: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "APART", apart)
        packed = pack(value)
    assert same(unpack(packed.document, packed.arrays), value)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(values, values)
def test_equal_digests_mean_equal_values(one: Any, other: Any) -> None:
    assert is_plain(one)
    assert (digest(one) == digest(other)) == (pack(one) == pack(other))


def big(dtype: Any = np.float32, shape: tuple[int, ...] = (256, 300)) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, ">i8", "<U3", "M8[ms]", np.longdouble, ml_dtypes.bfloat16])
def test_large_arrays_lie_apart_under_their_path(dtype: Any) -> None:
    value = {"callbacks": [None, {"best": big(dtype), "a key/that is no name": big(dtype).T}]}
    packed = pack(value)
    assert list(packed.arrays) == ["callbacks/1/best", "callbacks/1/~1"]
    assert len(packed.document) < 200
    assert same(unpack(packed.document, packed.arrays), value)


def test_what_is_no_dtype_of_tensors_is_given_as_bytes() -> None:
    packed = pack([big(np.float32), big(">f4"), big("<U3"), big(ml_dtypes.bfloat16), big(np.complex64)])
    dtypes = [array.dtype.name for array in packed.arrays.values()]
    assert dtypes == ["float32", "uint8", "uint8", "bfloat16", "complex64"]


def test_what_is_packed_stays_as_it_is() -> None:
    small, large = np.zeros(3), big()
    packed = pack([small, large, large])
    small += 1
    large += 1
    assert packed.arrays["1"] is packed.arrays["2"]
    restored = unpack(packed.document, packed.arrays)
    assert not restored[0].any()
    np.testing.assert_array_equal(restored[1], big())


def test_what_nobody_changes_is_not_copied() -> None:
    array = big()
    assert np.shares_memory(pack(Constant(array)).arrays["value"], array)
    assert np.shares_memory(pack(Constant(np.asfortranarray(array).T)).arrays["value"], array) is False
    assert same(unpack(pack(Constant(array[:2])).document, {}), array[:2])


def test_the_order_of_the_axes_in_memory_is_kept() -> None:
    for array in (np.asfortranarray(big()), np.asfortranarray(big(shape=(2, 3)))):
        packed = pack(array)
        assert unpack(packed.document, packed.arrays).flags.f_contiguous


def test_small_arrays_come_back_writable() -> None:
    packed = pack(np.zeros(3))
    unpack(packed.document, packed.arrays)[1] = 5


class Named(dict[str, int]):
    """No plain dict."""


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {2: object()}]}, "a/1/~0"),
        ([Named()], "0"),
        ({"a b": lambda: 0}, "~0"),
        ({(1, Exception): 0}, "~0/1"),
        (Named, "the value itself"),
        ([np.array([object()])], "0"),
        ([np.zeros(2, "i4,f4")], "0"),
        ([np.void(b"abc")], "0"),
        ([np.ma.masked_array([1])], "0"),
    ],
)
def test_what_is_not_plain_is_refused_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(UsageError) as refused:
        pack(value)
    assert refused.value.what == f"{path} cannot be kept in a checkpoint"
    assert not is_plain(value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = [0.5, np.str_("deep")]
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_has_a_limit() -> None:
    deep = nested(63)
    assert same(unpack(pack(deep).document, {}), deep)
    with pytest.raises(UsageError, match="nested too deeply"):
        pack(nested(64))
    around: list[Any] = []
    around.append(around)
    with pytest.raises(UsageError, match="nested too deeply"):
        pack(around)


def test_a_document_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_LARGEST", 10)
    with pytest.raises(IntegrityError, match="too large"):
        unpack(pack("eleven bytes").document, {})


@pytest.mark.parametrize(
    "document",
    [
        {"tuple": 5},
        {"dict": [[[1], 2]]},
        {"dict": [1]},
        {"int": "0x", "more": 1},
        {"text": b"\xff"},
        {"array": ["<f4", [2], "C", b"1234"]},
        {"array": ["<f4", [-1, -1], "C", b"1234"]},
        {"array": ["O", [1], "C", b"12345678"]},
        {"array": ["<f4", [1], "C", 10**12]},
        {"apart": ["<f4", [1], "C", "missing"]},
        {"unknown": 0},
        {1: 2},
        {},
    ],
)
def test_documents_that_nobody_packed_are_refused(document: Any) -> None:
    with pytest.raises(IntegrityError, match="cannot be read"):
        unpack(msgspec.msgpack.encode(document), {})


@given(st.binary(max_size=64), st.data())
def test_damaged_documents_are_values_or_errors(junk: bytes, data: st.DataObject) -> None:
    whole = pack({"a": (1, 2.5), "b": np.arange(3), "c": {b"x"}, "d": 2**80, "e": np.str_("t")}).document
    start = data.draw(st.integers(0, len(whole)))
    for document in (junk, whole[:start] + junk[:3] + whole[start + 3 :]):
        try:
            unpack(document, {})
        except IntegrityError:
            continue
