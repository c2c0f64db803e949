"""What a checkpoint holds besides variables, through bytes and back to the bit."""

from __future__ import annotations

import math
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelkeep.live.training.state import pack, unpack

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
@given(values)
def test_every_plain_value_comes_back_to_the_bit(value: Any) -> None:
    packed = pack(value)
    assert same(unpack(packed.document, packed.arrays), value)
