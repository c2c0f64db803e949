"""Our pad_sequences and Keras' own: the same arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import UsageError
from modelkeep.pipeline.padding import pad_sequences

sides = st.sampled_from(["pre", "post"])
whole = st.lists(st.lists(st.integers(0, 100), max_size=8), min_size=1, max_size=6)
decimal = st.lists(st.lists(st.floats(-9, 9, width=16), max_size=8), min_size=1, max_size=6)


def assert_same_as_keras(sequences, **arguments):
    from keras.utils import pad_sequences as original

    ours, theirs = pad_sequences(sequences, **arguments), original(sequences, **arguments)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.keras
@given(
    whole | decimal,
    st.none() | st.integers(1, 10),
    st.sampled_from(["int32", "int64", "uint8", "float32", "float16", "bool"]),
    sides,
    sides,
    st.integers(0, 5) | st.sampled_from([0.5, 2.5]),
)
def test_rows_of_numbers_are_padded_as_in_keras(sequences, maxlen, dtype, padding, truncating, value):
    if dtype == "uint8":
        sequences = [[abs(number) for number in row] for row in sequences]
    assert_same_as_keras(sequences, maxlen=maxlen, dtype=dtype, padding=padding, truncating=truncating, value=value)


@pytest.mark.keras
@given(whole)
def test_defaults_are_those_of_keras(sequences):
    assert_same_as_keras(sequences)


@pytest.mark.keras
@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4), min_size=1, max_size=4), sides)
def test_rows_of_vectors_are_padded_as_in_keras(sequences, padding):
    assert_same_as_keras(sequences, maxlen=3, padding=padding)
    assert_same_as_keras([np.array(row).reshape(-1, 2) for row in sequences], maxlen=3, padding=padding)


def test_no_rows_at_all_give_no_rows():
    assert pad_sequences([], 5).shape == (0, 5)
    assert pad_sequences([]).shape == (0, 0)


@pytest.mark.parametrize("bad", [3, None, "text", ["word"], [None], [1, None], [2**40], [[1], [2, 3]], [[1, 2]]])
def test_a_row_that_cannot_be_padded_is_named(bad):
    with pytest.raises(UsageError, match="row 1 "):
        pad_sequences([[1], bad], 4)


def test_missing_numbers_are_refused_for_floats_too_where_they_would_become_nan():
    with pytest.raises(UsageError, match="row 0 cannot be padded"):
        pad_sequences([[1.0, None]], 4, dtype="float32")


def test_a_length_below_one_is_refused():
    with pytest.raises(UsageError, match="cannot pad to that length"):
        pad_sequences([[1]], 0)
