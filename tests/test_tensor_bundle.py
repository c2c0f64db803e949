from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError, NotFound, UnsafeContent
from modelkeep.formats import crc32c
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.formats.mapped import MappedFile
from modelkeep.formats.tensor_bundle import _signed, _unsigned, open_bundle, slice_key

FOREIGN = Path(__file__).parent / "foreign" / "saved_models"
ALL = FOREIGN / "bundle" / "all"
NUMBERS = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The prefix of a bundle that may be changed."""
    shutil.copytree(ALL.parent, tmp_path / "bundle")
    return tmp_path / "bundle" / "all"


def check(prefix: Path, limits: Limits = DEFAULT) -> None:
    with open_bundle(prefix, limits) as bundle:
        bundle.check()
        for name in bundle.entries:
            bundle.read(name)


def rewrite(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def test_every_dtype_is_read_as_tensorflow_wrote_it() -> None:
    kinds = set()
    with open_bundle(ALL, DEFAULT) as bundle:
        for name in bundle.entries.keys() - {"text", "empty", "scalar"}:
            array = bundle.read(name)
            assert array.dtype.name == name == bundle.tensor(name).dtype
            np.testing.assert_array_equal(
                array.astype("complex128"), np.array(NUMBERS, bool if name == "bool" else "f8")
            )
            kinds.add(name)
    assert len(kinds) == 15


def test_texts_scalars_and_empty_tensors_are_read() -> None:
    with open_bundle(ALL, DEFAULT) as bundle:
        assert bundle.read("text").tolist() == [[b"a", b""], [("ä" * 150).encode(), b"b\0c"]]
        assert bundle.read("scalar") == np.float32(1.5)
        assert bundle.read("empty").shape == bundle.tensor("empty").shape == (0, 3)


def test_a_tensor_saved_in_parts_is_one() -> None:
    expected = np.load(FOREIGN / "tensorflow_1.npz")["parts"]
    with open_bundle(FOREIGN / "tensorflow_1" / "variables" / "variables", DEFAULT) as bundle:
        assert set(bundle.entries) == {"layer/w", "parts"}
        assert bundle.tensor("parts").nbytes == expected.nbytes
        np.testing.assert_array_equal(bundle.read("parts"), expected)


def test_what_is_mapped_outlives_its_file(tmp_path: Path) -> None:
    values = np.arange(2**15, dtype="float32")
    (tmp_path / "values").write_bytes(values.tobytes())
    file = MappedFile(tmp_path / "values")
    view = file.all()
    file.close()
    assert view.readonly
    np.testing.assert_array_equal(np.frombuffer(view, "float32"), values)


@pytest.mark.skipif(not crc32c.available(), reason="no library for CRC-32C")
def test_a_changed_byte_of_any_tensor_is_found_by_its_checksum(copy: Path) -> None:
    data = copy.with_name("all.data-00000-of-00001")
    whole = data.read_bytes()
    for at in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[at] ^= 16
        rewrite(data, changed)
        with pytest.raises(IntegrityError):
            check(copy)


@pytest.mark.skipif(not crc32c.available(), reason="no library for CRC-32C")
def test_a_changed_byte_of_the_index_is_found(copy: Path) -> None:
    index = copy.with_name("all.index")
    whole = index.read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 4
        rewrite(index, changed)
        with pytest.raises(ModelkeepError):
            check(copy)


def test_without_a_library_for_checksums_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crc32c, "_extend", lambda: None)
    with open_bundle(ALL, DEFAULT) as bundle:
        (problem,) = bundle.check()
    assert problem.rule == "checksum-not-checked"
    assert "pip install" in problem.message


def test_missing_and_short_data_files_are_named(copy: Path) -> None:
    data = copy.with_name("all.data-00000-of-00001")
    rewrite(data, data.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="too short for tensor"):
        check(copy)
    data.unlink()
    with pytest.raises(IntegrityError, match="data file of all is missing"):
        check(copy)
    copy.with_name("all.index").unlink()
    with pytest.raises(NotFound):
        check(copy)


def test_bytes_that_belong_to_no_tensor_are_told(copy: Path) -> None:
    data = copy.with_name("all.data-00000-of-00001")
    rewrite(data, data.read_bytes() + b"more")
    with open_bundle(copy, DEFAULT) as bundle:
        (problem,) = bundle.problems
    assert problem.rule == "unlisted-bytes"
    assert "4 bytes" in problem.message


def test_a_link_in_place_of_a_data_file_is_not_followed(copy: Path) -> None:
    data = copy.with_name("all.data-00000-of-00001")
    data.rename(copy.with_name("elsewhere"))
    data.symlink_to(copy.with_name("elsewhere"))
    with pytest.raises(UnsafeContent, match="not a regular file"):
        check(copy)


def test_more_tensors_than_allowed_are_refused() -> None:
    with pytest.raises(LimitExceeded, match="too many tensors"):
        check(ALL, Limits(tensors=5))


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_of_the_index_stumble(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    prefix = tmp_path_factory.mktemp("bundle") / "any"
    prefix.with_name("any.index").write_bytes(data + ALL.with_name("all.index").read_bytes()[-48:])
    with pytest.raises(ModelkeepError):
        check(prefix)


@given(st.data())
def test_a_damaged_index_without_checksums_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(ALL.with_name("all.index").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "all.index").write_bytes(whole)
    shutil.copy(ALL.with_name("all.data-00000-of-00001"), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crc32c, "_extend", lambda: None)
        with suppress(ModelkeepError):
            check(folder / "all")


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_numbers_in_keys_sort_as_they_do(one: int, other: int) -> None:
    assert (_signed(one) < _signed(other)) == (one < other)
    one, other = abs(one), abs(other)
    assert (_unsigned(one) < _unsigned(other)) == (one < other)


def test_the_key_of_a_slice_is_the_one_that_tensorflow_makes() -> None:
    assert slice_key("a", (slice(None), slice(3, 70))) == b"\0a\0\1\1\2\x80\x7f\x83\xc0\x43"
