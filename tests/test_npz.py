from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from model_files import zipped
from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError, UnsafeContent
from modelkeep.formats import npy, npz
from modelkeep.formats.forms import look
from modelkeep.formats.limits import DEFAULT

ARRAYS = {
    "kernel": np.arange(6, dtype="float32").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">i4"),
    "half": np.ones(2, "float16"),
    "flag": np.array(True),
    "none": np.zeros((0, 4), "int8"),
    "words": np.array(["a", "ü"]),
}


def opened(path, form=npz, *, thorough=True):
    place = look(path)
    assert form.recognise(place)
    return form.read(place, DEFAULT, thorough)


def npy_bytes(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def with_header(text, data=b"", version=1):
    header = text.encode()
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_is_read_as_it_was(save, tmp_path):
    save(tmp_path / "weights.npz", **ARRAYS)
    with opened(tmp_path / "weights.npz") as contents:
        assert contents.problems == ()
        found = {tensor.name: tensor for tensor in contents.tensors}
        assert found.keys() == ARRAYS.keys()
        for name, value in ARRAYS.items():
            assert (found[name].shape, found[name].nbytes) == (value.shape, value.nbytes)
            np.testing.assert_array_equal(found[name].read(), value.astype(value.dtype.newbyteorder("=")), strict=True)


def test_bfloat16_which_numpy_has_no_word_for_comes_back(tmp_path):
    import ml_dtypes

    value = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    np.savez(tmp_path / "weights.npz", value=value)
    with opened(tmp_path / "weights.npz") as contents:
        assert contents.tensors[0].dtype == "bfloat16"
        np.testing.assert_array_equal(contents.tensors[0].read(), value, strict=True)


@given(
    array=arrays_of.arrays(st.sampled_from(["f4", ">f8", "i2", "u1", "c8", "?"]), arrays_of.array_shapes(min_dims=0))
)
def test_one_array_comes_back_as_it_was(tmp_path_factory, array):
    path = tmp_path_factory.getbasetemp() / "array.npy"
    np.save(path, array)
    with opened(path, npy) as contents:
        (tensor,) = contents.tensors
        assert contents.problems == ()
        np.testing.assert_array_equal(tensor.read(), array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header_is_read(version, tmp_path):
    (tmp_path / "a.npy").write_bytes(npy_bytes(ARRAYS["kernel"], version=version))
    with opened(tmp_path / "a.npy", npy) as contents:
        np.testing.assert_array_equal(contents.tensors[0].read(), ARRAYS["kernel"])


def test_headers_of_other_writers_are_read(tmp_path):
    text = "{'descr':'<f4','fortran_order':False,'shape':(2L,)}"
    (tmp_path / "a.npy").write_bytes(with_header(text, bytes(8)))
    with opened(tmp_path / "a.npy", npy) as contents:
        assert (contents.tensors[0].shape, contents.problems) == ((2,), ())


@pytest.mark.parametrize("form", [npy, npz])
def test_an_array_of_objects_is_told_its_pickle_listed_and_nothing_loaded(form, tmp_path):
    data = npy_bytes(np.array([{"a": 1}], dtype=object), allow_pickle=True)
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    if form is npz:
        path = zipped({"a.npy": data}, tmp_path / "a.npz", zipfile.ZIP_DEFLATED)
    with opened(path, form) as contents:
        assert [problem.rule for problem in contents.problems] == ["npy-objects"]
        assert (contents.tensors, contents.pickles[0].read()[:1]) == ((), b"\x80")


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (npy_bytes(np.ones(3)) + b"more", "npy-size"),
        (npy_bytes(np.ones(3))[:-1], "npy-size"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"), "npy-size"),
        (npy_bytes(np.zeros(2, [("a", "f4")])), "npy-fields"),
    ],
)
def test_an_array_that_is_not_what_its_header_says_is_told_and_not_read(data, rule, tmp_path):
    (tmp_path / "a.npy").write_bytes(data)
    with opened(tmp_path / "a.npy", npy) as contents:
        assert [problem.rule for problem in contents.problems] == [rule]
        for tensor in contents.tensors:
            with pytest.raises(UnsafeContent):
                tensor.read()


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': [1]}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
        "{'descr': '<f4', 'shape': (1,)}",
        "{'descr': '<f999', 'fortran_order': False, 'shape': (1,)}",
        "__import__('os').system('true')",
        "-" * 9000 + "1",
        "(" * 9000,
        "[" * 90 + "]" * 90,
        "",
    ],
)
def test_a_header_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "a.npy").write_bytes(with_header(text))
    with pytest.raises(IntegrityError), opened(tmp_path / "a.npy", npy):
        pass


def test_a_long_header_is_not_read(tmp_path):
    (tmp_path / "a.npy").write_bytes(with_header(" " * 20_000))
    with pytest.raises(LimitExceeded, match="header"), opened(tmp_path / "a.npy", npy):
        pass


def test_a_changed_byte_is_found_when_the_array_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(1000, "float32"))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[1000] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with opened(tmp_path / "a.npz", thorough=False) as contents, pytest.raises(IntegrityError, match="damaged"):
        contents.tensors[0].read()


def test_what_is_no_array_is_told(tmp_path):
    path = zipped({"a.npy": npy_bytes(np.ones(1)), "notes.txt": b"hello"}, tmp_path / "a.npz")
    with npz.read(look(path), DEFAULT, True) as contents:
        assert [problem.rule for problem in contents.problems] == ["npz-member"]


@given(st.binary(max_size=100), st.booleans())
def test_any_header_is_read_or_refused_in_our_own_words(tmp_path_factory, data, plausible):
    path = tmp_path_factory.getbasetemp() / "any.npy"
    path.write_bytes(with_header(data.decode("latin-1")) if plausible else b"\x93NUMPY" + data)
    try:
        with opened(path, npy) as contents:
            for tensor in contents.tensors:
                tensor.read()
    except ModelkeepError:
        pass
