from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import FormatTooNew, IntegrityError, UsageError
from modelkeep.manifest import Manifest, Part, Piece, Tensor, canonical_json, decode, encode, json_value

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def a_manifest(**changes):
    fields = {"model": "sentiment", "version": "1.0.0", "created": "2026-05-01T12:00:00Z", "writer": "modelkeep 0.1.0"}
    return Manifest(**(fields | changes))


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_a_manifest_reads_back_as_it_was_written(metadata):
    manifest = a_manifest(metadata=metadata)
    assert decode(encode(manifest)) == manifest


def test_the_order_in_which_metadata_was_given_does_not_change_the_bytes():
    one, other = a_manifest(metadata={"a": 1, "b": 2}), a_manifest(metadata={"b": 2, "a": 1})
    assert encode(one) == encode(other)


@pytest.mark.parametrize("value", [float("nan"), {"deep": [float("inf")]}, object(), {1: object()}])
def test_values_without_a_json_form_are_refused(value):
    with pytest.raises(UsageError, match="not a JSON value"):
        canonical_json({"metric": value})


def test_a_later_format_is_refused_with_the_way_out():
    with pytest.raises(FormatTooNew, match="upgrade"):
        decode(b'{"format":2,"anything":"else"}')


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"[]", b'{"format":1}', b'{"format":1,"surprise":1}', b"[" * 100_000]
)
def test_bytes_that_are_no_manifest_are_named_as_damaged(data):
    with pytest.raises(IntegrityError):
        decode(data)


def test_equal_tensors_count_once_in_the_size_and_packs_count_as_blobs():
    pieces = (Piece(blob="blake3:aa", offset=64, size=8),)
    twins = tuple(Tensor(name=n, dtype="float32", shape=(2,), digest="blake3:bb", pieces=pieces) for n in "xy")
    manifest = a_manifest(tensors=twins, parts=(Part(name="config.json", digest="blake3:cc", size=5),))
    assert manifest.size == 13
    assert manifest.blobs() == {"blake3:aa", "blake3:cc"}


@given(json_values)
def test_a_json_value_stays_what_it_is(value):
    assert json_value(value, "metadata") == value


def test_numbers_of_array_libraries_become_plain_ones():
    given = {
        "accuracy": np.float32(0.5),
        "loss": [np.float64(0.25), np.array(2)],
        "better": np.bool_(True),
        "name": np.str_("a"),
    }
    plain = json_value(given, "metrics")
    assert plain == {"accuracy": 0.5, "loss": [0.25, 2], "better": True, "name": "a"}
    assert {type(plain["accuracy"]), type(plain["loss"][0]), type(plain["better"]), type(plain["name"])} == {
        float,
        bool,
        str,
    }


class Cycle(list):
    def __init__(self):
        super().__init__([self])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 2)), r"metrics\.a has no JSON form: found a numpy\.ndarray"),
        ({"b": [float("nan")]}, r"metrics\.a\.b\[0\] is nan: JSON has no such number"),
        (np.float32("inf"), r"metrics\.a is inf"),
        ({1: 2}, r"a key of metrics\.a is not text, so it has no JSON form: found 1"),
        (b"bytes", r"metrics\.a has no JSON form: found a bytes"),
        (datetime(2024, 5, 1), r"found a datetime\.datetime.*\n.*\.isoformat\(\)"),
        ({1, 2}, "found a set"),
        (np.longdouble(1), "has no JSON form"),
        (np.complex64(1), "has no JSON form"),
        (Cycle(), "nests more than 64 deep"),
    ],
)
def test_what_has_no_json_form_is_named_by_its_place(value, message):
    with pytest.raises(UsageError, match=message):
        json_value({"a": value}, "metrics")


def test_a_field_of_another_type_is_refused_since_it_could_not_be_read_again():
    with pytest.raises(UsageError, match=r"Expected `str`, got `int` - at `\$\.tags\[0\]`"):
        encode(a_manifest(tags=(1,)))
