from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError
from modelkeep.formats import safetensors
from modelkeep.formats.forms import look
from modelkeep.formats.limits import DEFAULT

ARRAYS = {
    "kernel": np.arange(6, dtype="float32").reshape(2, 3),
    "bias": np.ones(3, "float64"),
    "steps": np.array(7, "int64"),
    "none": np.zeros((0, 4), "uint8"),
    "flag": np.array([True, False]),
}


def opened(path):
    place = look(path)
    assert safetensors.recognise(place)
    return safetensors.read(place, DEFAULT, True)


def written(header, data, path):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_what_its_own_writer_writes_is_read_as_it_was(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file(ARRAYS, tmp_path / "m.safetensors", metadata={"format": "np"})
    with opened(tmp_path / "m.safetensors") as contents:
        assert contents.problems == ()
        assert contents.details["metadata"] == {"format": "np"}
        found = {tensor.name: tensor.read() for tensor in contents.tensors}
    assert found.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_numbers_that_numpy_has_no_word_for_come_back(dtype, tmp_path):
    import ml_dtypes

    value = np.array([1.5, -2.0], getattr(ml_dtypes, dtype))
    word = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}[dtype]
    path = written({"a": entry(0, value.nbytes, (2,), word)}, value.tobytes(), tmp_path / "m.safetensors")
    with opened(path) as contents:
        assert (contents.tensors[0].dtype, contents.problems) == (dtype, ())
        np.testing.assert_array_equal(contents.tensors[0].read(), value, strict=True)


def test_numbers_of_half_a_byte_are_told_and_not_read(tmp_path):
    path = written({"a": entry(0, 1, (2,), "F4")}, b"\0", tmp_path / "m.safetensors")
    with opened(path) as contents:
        assert (contents.tensors[0].nbytes, contents.problems) == (1, ())
        with pytest.raises(IntegrityError, match="several numbers"):
            contents.tensors[0].read()


def test_an_array_is_a_view_of_the_file_that_outlives_its_reading(tmp_path):
    path = written({"a": entry(0, 8, (2,))}, np.array([1, 2], "float32").tobytes(), tmp_path / "m.safetensors")
    with opened(path) as contents:
        array = contents.tensors[0].read()
    assert (array.base is not None, array.flags.writeable, array.tolist()) == (True, False, [1.0, 2.0])


@pytest.mark.parametrize(
    ("header", "size", "rule"),
    [
        ({"a": entry(0, 4), "b": entry(2, 6)}, 6, "safetensors-overlap"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "safetensors-gap"),
        ({"a": entry(4, 8)}, 8, "safetensors-gap"),
        ({"a": entry(0, 4)}, 9, "safetensors-gap"),
        ({}, 1, "safetensors-gap"),
        ({"a": entry(0, 4, (10**12,))}, 4, "safetensors-size"),
        ({"a": entry(0, 4), "__metadata__": {"x": 1}}, 4, "safetensors-metadata"),
        (
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
            4,
            "json-duplicate-key",
        ),
    ],
)
def test_what_the_format_forbids_is_told_by_its_rule(header, size, rule, tmp_path):
    with opened(written(header, bytes(size), tmp_path / "m.safetensors")) as contents:
        assert rule in {problem.rule for problem in contents.problems}


def test_a_tensor_that_declares_more_than_there_is_is_not_read(tmp_path):
    path = written({"a": entry(0, 4, (10**12,))}, bytes(4), tmp_path / "m.safetensors")
    with opened(path) as contents, pytest.raises(IntegrityError, match="does not lie in the file"):
        contents.tensors[0].read()


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(0, 8, (2,))},
        {"a": entry(-4, 0)},
        {"a": entry(0, 4, (-1,))},
        {"a": entry(0, 4, (1.0,))},
        {"a": entry(0, 4, (True,))},
        {"a": entry(0, 4, dtype="F128")},
        {"a": entry(0, 4, dtype=["F32"])},
        {"a": {**entry(0, 4), "more": 1}},
        {"a": 1},
        b'{"a": ',
    ],
)
def test_a_header_that_says_no_such_thing_is_refused(header, tmp_path):
    path = written(header, bytes(4), tmp_path / "m.safetensors")
    with pytest.raises(IntegrityError), opened(path):
        pass


def test_a_header_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write((2**26).to_bytes(8, "little") + b"{")
        file.truncate(2**27)
    with pytest.raises(LimitExceeded, match="config"), opened(path):
        pass


@given(data=st.binary(max_size=80), text=st.text('{}[]":,adtypeshF32_of0149-', max_size=80), pad=st.integers(0, 9))
def test_any_bytes_are_read_or_refused_in_our_own_words(tmp_path_factory, data, text, pad):
    path = written(
        b"{" + (text.encode() or data) + b"}", bytes(pad), tmp_path_factory.getbasetemp() / "any.safetensors"
    )
    with contextlib.suppress(ModelkeepError), opened(path) as contents:
        for tensor in contents.tensors:
            tensor.read()
