"""HDF5 files of every kind that must be read, and of every kind that must not be followed."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError, UnsafeContent
from modelkeep.formats import hdf5, superblock
from modelkeep.formats.contents import Problem
from modelkeep.formats.hdf5 import Tree
from modelkeep.formats.limits import DEFAULT, MIB, Limits
from modelkeep.formats.streams import ByteRange
from modelkeep.safety import hdf5 as rules_of_hdf5
from modelkeep.safety.rules import RULES, Level

SOURCE = Path(hdf5.__file__).parent
SECRET = 1234567.0


def written(fill: Callable[[h5py.File], Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        fill(file)
    return stream.getvalue()


@contextmanager
def walked(data: bytes, limits: Limits = DEFAULT) -> Iterator[Tree]:
    with hdf5.open_stream(io.BytesIO(data), limits, "it.h5", thorough=True) as tree:
        yield tree


def broken_by(data: bytes) -> dict[str, str]:
    """Each rule that a file breaks, and where."""
    with walked(data) as tree:
        return {problem.rule: problem.place for problem in tree.problems}


# --- what it reads

KINDS = ["int8", "uint8", "int64", "uint32", "float16", "float32", "float64", "bool", "complex64", ">f4", ">i8"]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_kind_are_read_as_they_were_written(kind: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(kind)
    with walked(written(lambda file: file.create_dataset("a/b", data=values))) as tree:
        dataset = tree.datasets["a/b"]
        assert (dataset.dtype, dataset.shape) == (np.dtype(kind).newbyteorder("=").name, (2, 3))
        assert dataset.nbytes == dataset.stored == values.nbytes
        np.testing.assert_array_equal(dataset.read(), values)
        assert tree.problems == []


def test_bfloat16_is_told_by_the_attribute_that_keras_writes_or_by_its_bits() -> None:
    def fill(file: h5py.File) -> None:
        file["marked"] = np.array([1.5, -2], ml_dtypes.bfloat16)
        file["marked"].attrs["dtype"] = "bfloat16"
        kind = h5py.h5t.IEEE_F16LE.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_ebias(127)
        made = h5py.h5d.create(file.id, b"typed", kind, h5py.h5s.create_simple((2,)))
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([0x3FC0, 0xC000], "u2").view("V2"), kind)

    with walked(written(fill)) as tree:
        for name in ("marked", "typed"):
            values = tree.datasets[name].read()
            assert tree.datasets[name].dtype == values.dtype.name == "bfloat16"
            assert values.astype("float32").tolist() == [1.5, -2]


def test_bytes_of_no_known_type_are_read_as_bytes_and_told() -> None:
    data = written(lambda file: file.create_dataset("float8", data=np.ones(3, ml_dtypes.float8_e4m3fn)))
    with walked(data) as tree:
        assert tree.datasets["float8"].read().tobytes() == b"\x38\x38\x38"
        assert [problem.rule for problem in tree.problems] == ["hdf5-opaque"]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)])
def test_scalars_and_arrays_of_nothing_are_read(shape: tuple[int, ...]) -> None:
    with walked(written(lambda file: file.create_dataset("one", data=np.ones(shape)))) as tree:
        assert tree.datasets["one"].read().shape == shape
        assert tree.problems == []


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_packed_chunks_are_read(version: str) -> None:
    values = np.arange(1000).reshape(20, 50)
    packed = {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (7, 7)}
    with walked(written(lambda file: file.create_dataset("x", data=values, **packed), libver=version)) as tree:
        np.testing.assert_array_equal(tree.datasets["x"].read(), values)
        assert 0 < tree.datasets["x"].stored < values.nbytes
        assert tree.problems == []


@pytest.mark.parametrize("shape", [(5000,), (70, 70), (17, 17, 17)])
@pytest.mark.parametrize("options", [{}, {"userblock_size": 512}], ids=["", "user block"])
def test_thousands_of_chunks_and_groups_are_found(shape: tuple[int, ...], options: dict[str, int]) -> None:
    values = np.arange(np.prod(shape)).reshape(shape)

    def fill(file: h5py.File) -> None:
        file.create_dataset("x", data=values, chunks=(1,) * len(shape))
        for index in range(1000):
            file.create_group(f"layers/{index}")

    with walked(written(fill, **options)) as tree:
        assert len(tree.groups) == 1002
        np.testing.assert_array_equal(tree.datasets["x"].read(), values)


def test_attributes_come_as_json_values() -> None:
    values = {
        "text": "Ä", "bytes": b"plain", "fixed": np.bytes_(b"x"), "list": ["a", "b"], "names": np.array([b"x", b"yy"]),
        "number": 3, "fraction": np.float32(0.5), "flag": True, "flags": np.array([True, False]), "none": np.array([]),
    }  # fmt: skip

    def fill(file: h5py.File) -> None:
        for name, value in values.items():
            file.attrs[name] = value
        file.attrs["empty"] = h5py.Empty("f4")
        file.attrs["long"] = "x" * 300_000

    with walked(written(fill)) as tree:
        found = dict(tree.groups[""])
        assert found.pop("long") == "x" * 300_000
        assert tree.problems == []
    assert found == {
        "text": "Ä", "bytes": "plain", "fixed": "x", "list": ["a", "b"], "names": ["x", "yy"],
        "number": 3, "fraction": 0.5, "flag": True, "flags": [True, False], "none": [], "empty": None,
    }  # fmt: skip


def test_a_file_within_another_is_read_where_it_lies(tmp_path: Path) -> None:
    data = written(lambda file: file.create_dataset("x", data=np.arange(5)))
    (tmp_path / "outer").write_bytes(b"before" + data + b"after")
    file = os.open(tmp_path / "outer", os.O_RDONLY)
    try:
        with hdf5.open_stream(ByteRange(file, 6, len(data))) as tree:
            assert tree.datasets["x"].read().tolist() == [0, 1, 2, 3, 4]
            assert tree.problems == []
    finally:
        os.close(file)


def test_a_dataset_is_not_read_after_the_file_was_closed() -> None:
    with walked(written(lambda file: file.create_dataset("x", data=np.arange(5)))) as tree:
        dataset = tree.datasets["x"]
    with pytest.raises(IntegrityError):
        dataset.read()


def test_a_file_of_a_gigabyte_is_walked_without_reading_its_values(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "large.h5", "w") as file:
        for index in range(300):
            # Written at one place only; the rest of the file is a hole.
            file.create_dataset(f"layers/{index}/vars/0", shape=(900_000,), dtype="f4")[0] = 1
    with (tmp_path / "large.h5").open("rb", buffering=0) as stream:
        with hdf5.open_stream(stream) as tree:
            assert sum(dataset.stored for dataset in tree.datasets.values()) > 10**9
            assert tree.problems == []
        read = Path("/proc/self/io")
        before = int(re.search(r"rchar: (\d+)", read.read_text())[1]) if read.exists() else 0  # type: ignore[index]
        with hdf5.open_stream(stream):
            pass
        after = int(re.search(r"rchar: (\d+)", read.read_text())[1]) if read.exists() else 0  # type: ignore[index]
        assert after - before < 4 * MIB


# --- what it refuses


def weights(file: h5py.File) -> h5py.Group:
    group = file.create_group("layers/dense/vars")
    group["0"] = np.ones((3, 2), "f4")
    return group


def external_link(file: h5py.File, secret: Path) -> None:
    weights(file)["1"] = h5py.ExternalLink(secret, "/secret")


def external_link_above(file: h5py.File, secret: Path) -> None:
    file["layers"] = h5py.ExternalLink(secret, "/")


def soft_link(file: h5py.File, secret: Path) -> None:
    weights(file)["1"] = h5py.SoftLink("/layers/dense/vars/0")


def soft_link_to_itself(file: h5py.File, secret: Path) -> None:
    weights(file)["1"] = h5py.SoftLink("1")


def cycle(file: h5py.File, secret: Path) -> None:
    group = weights(file)
    group["loop"] = file["layers"]


def one_dataset_twice(file: h5py.File, secret: Path) -> None:
    group = weights(file)
    group["1"] = group["0"]


def external_storage(file: h5py.File, secret: Path) -> None:
    weights(file).create_dataset("1", shape=(32,), dtype="u1", external=[(secret, 0, 32)])


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(secret, "secret", (4,))
    weights(file).create_virtual_dataset("1", layout)


def virtual_without_end(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f8", maxshape=(None,))
    source = h5py.VirtualSource(secret, "secret", (4,), maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    weights(file).create_virtual_dataset("1", layout)


def unknown_filter(file: h5py.File, secret: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4,))
    plist.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    h5py.h5d.create(weights(file).id, b"1", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4,)), plist)


def known_filter_that_keras_does_not_use(file: h5py.File, secret: Path) -> None:
    weights(file).create_dataset("1", data=np.ones(100), compression="lzf")


def terabytes_of_nothing(file: h5py.File, secret: Path) -> None:
    shape = (2**20, 2**20)
    weights(file).create_dataset("1", shape=shape, dtype="f4", chunks=(1024, 1024), compression="gzip")


def many_empty_ones(file: h5py.File, secret: Path) -> None:
    group = weights(file)
    for index in range(1, 20):
        group.create_dataset(str(index), shape=(2**23,), dtype="f4")


def chunk_that_inflates_further(file: h5py.File, secret: Path) -> None:
    made = weights(file).create_dataset("1", shape=(1024,), dtype="f4", chunks=(1024,), compression="gzip")
    made.id.write_direct_chunk((0,), zlib.compress(bytes(3_000_000)))


def chunk_larger_than_its_dataset(file: h5py.File, secret: Path) -> None:
    weights(file).create_dataset("1", shape=(4,), maxshape=(None,), dtype="f4", chunks=(2**29,))


def never_written(file: h5py.File, secret: Path) -> None:
    weights(file).create_dataset("1", shape=(4,), dtype="f4")


def written_in_part(file: h5py.File, secret: Path) -> None:
    weights(file).create_dataset("1", shape=(4,), dtype="f4", chunks=(2,))[:2] = 1


def reference(file: h5py.File, secret: Path) -> None:
    weights(file)["1"] = np.array([file.ref], dtype=h5py.ref_dtype)


def compound(file: h5py.File, secret: Path) -> None:
    weights(file)["1"] = np.zeros(3, [("a", "i4"), ("b", "f8")])


def variable_length(file: h5py.File, secret: Path) -> None:
    weights(file).create_dataset("1", (2,), dtype=h5py.vlen_dtype("f4"))


def enumeration(file: h5py.File, secret: Path) -> None:
    weights(file).create_dataset("1", data=[0, 1], dtype=h5py.enum_dtype({"RED": 0, "BLUE": 1}, "i1"))


def no_dataspace(file: h5py.File, secret: Path) -> None:
    weights(file)["1"] = h5py.Empty("f4")


def text(file: h5py.File, secret: Path) -> None:
    weights(file)["1"] = ["a", "b"]


def named_type(file: h5py.File, secret: Path) -> None:
    weights(file)["1"] = np.dtype("f4")


def attribute_that_is_a_reference(file: h5py.File, secret: Path) -> None:
    weights(file).attrs["1"] = file.ref


def attribute_that_is_no_text(file: h5py.File, secret: Path) -> None:
    weights(file).attrs["1"] = np.bytes_(b"\xff\xfe")


HOSTILE: dict[Callable[[h5py.File, Path], None], str] = {
    external_link: "hdf5-external-link",
    external_link_above: "hdf5-external-link",
    soft_link: "hdf5-soft-link",
    soft_link_to_itself: "hdf5-soft-link",
    cycle: "hdf5-shared-object",
    one_dataset_twice: "hdf5-shared-object",
    external_storage: "hdf5-external-storage",
    virtual: "hdf5-virtual-dataset",
    virtual_without_end: "hdf5-virtual-dataset",
    unknown_filter: "hdf5-filter",
    known_filter_that_keras_does_not_use: "hdf5-filter",
    terabytes_of_nothing: "hdf5-declared-size",
    many_empty_ones: "hdf5-declared-size",
    chunk_that_inflates_further: "hdf5-chunk",
    chunk_larger_than_its_dataset: "hdf5-chunk",
    never_written: "hdf5-unwritten",
    written_in_part: "hdf5-unwritten",
    reference: "hdf5-type",
    compound: "hdf5-type",
    variable_length: "hdf5-type",
    enumeration: "hdf5-type",
    no_dataspace: "hdf5-type",
    text: "hdf5-string-dataset",
    named_type: "hdf5-object",
    attribute_that_is_a_reference: "hdf5-attribute",
    attribute_that_is_no_text: "hdf5-attribute",
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["secret"] = np.full(4, SECRET)
        file.create_group("dense/vars")["0"] = np.full(4, SECRET)
    return path


@pytest.mark.parametrize("fill", HOSTILE, ids=lambda fill: fill.__name__)
def test_what_no_writer_of_models_does_is_told_and_nothing_outside_is_read(
    fill: Callable[[h5py.File, Path], None], secret: Path
) -> None:
    with walked(written(lambda file: fill(file, secret), libver="v110")) as tree:
        assert HOSTILE[fill] in {problem.rule for problem in tree.problems}
        for dataset in tree.datasets.values():
            if dataset.nbytes < MIB and dataset.dtype in KINDS:
                with suppress(UnsafeContent):
                    assert SECRET not in dataset.read()


@pytest.mark.parametrize("fill", [external_storage, unknown_filter, reference, compound], ids=lambda one: one.__name__)
def test_a_dataset_that_reaches_outside_cannot_be_read(fill: Callable[[h5py.File, Path], None], secret: Path) -> None:
    with walked(written(lambda file: fill(file, secret))) as tree, pytest.raises(UnsafeContent, match="is not read"):
        tree.datasets["layers/dense/vars/1"].read()


OPENER = """
import sys
from modelkeep.errors import ModelkeepError
from modelkeep.formats import hdf5, superblock
for path in sys.argv[1:]:
    with open(path, "rb") as stream, hdf5.open_stream(stream, thorough=True) as tree:
        for dataset in tree.datasets.values():
            if dataset.nbytes < 2**20:
                try:
                    dataset.read()
                except ModelkeepError:
                    pass
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="strace tells which files a process opens")
def test_no_file_is_opened_but_the_one_that_is_walked(secret: Path, tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    paths = [tmp_path / f"{fill.__name__}.h5" for fill in HOSTILE]
    for fill, path in zip(HOSTILE, paths, strict=True):
        with h5py.File(path, "w", libver="v110") as file:
            fill(file, secret)
    trace = tmp_path / "trace"
    line = ["strace", "-f", "-e", "trace=open,openat,execve", "-o", trace, sys.executable, "-c", OPENER, *paths]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "HDF5_PLUGIN_PATH": str(plugins)})
    if "PTRACE" in done.stderr:
        pytest.skip("tracing is not allowed here")
    assert done.returncode == 0, done.stderr
    opened = [line for line in trace.read_text().splitlines() if "open" in line]
    assert any("external_storage.h5" in line for line in opened)
    assert not [line for line in opened if "secret.h5" in line or str(plugins) in line]


def test_links_whose_names_are_paths_are_not_followed() -> None:
    def fill(file: h5py.File) -> None:
        file["a"] = np.ones(2)
        file["aXb"] = np.ones(2)

    assert broken_by(written(fill).replace(b"aXb\0", b"a/b\0")) == {"hdf5-name": "it.h5:/a/b"}


def test_a_group_that_lists_one_name_twice_is_not_walked_twice() -> None:
    def fill(file: h5py.File) -> None:
        group = file
        for _ in range(30):  # two ways down at each of them
            group.create_group("aXa")
            group["aYa"] = group["aXa"]
            group = group["aXa"]

    assert broken_by(written(fill).replace(b"aYa\0", b"aXa\0")).keys() == {"hdf5-shared-object", "hdf5-name"}


# --- before and behind


def plain(size: int = 8) -> bytes:
    return written(lambda file: file.create_dataset("x", data=np.arange(size)))


def superblock_problems(data: bytearray) -> list[Problem]:
    return superblock.problems(superblock.read(io.BytesIO(data), len(data), "it.h5"), len(data), "it.h5")


def test_bytes_before_and_behind_the_file_are_told() -> None:
    assert broken_by(plain() + b"MZ") == {"hdf5-trailing-data": "it.h5"}
    assert broken_by(written(weights, userblock_size=1024)) == {"hdf5-user-block": "it.h5"}


def test_an_extension_of_the_superblock_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "paged.h5", "w", fs_strategy="page", fs_persist=True) as file:
        weights(file)
    assert broken_by((tmp_path / "paged.h5").read_bytes()) == {"hdf5-extension": "it.h5"}


def test_addresses_that_count_from_elsewhere_are_told() -> None:
    data = bytearray(plain())
    data[24] = 8
    assert [problem.rule for problem in superblock_problems(data)] == ["hdf5-superblock"]


def test_a_driver_that_spreads_a_file_over_several_is_told() -> None:
    data = bytearray(plain())
    data[48:56] = bytes(8)  # where the driver's information lies: anywhere at all
    assert [problem.rule for problem in superblock_problems(data)] == ["hdf5-superblock"]


@pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04" + bytes(600), plain()[:-1], plain()[:90]])
def test_what_is_no_whole_hdf5_file_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"no HDF5 file|cut short|damaged superblock"):
        broken_by(data)


def test_two_datasets_on_the_same_bytes_are_told() -> None:
    data = bytearray(
        written(
            lambda file: [file.create_dataset(name, data=np.full(1000, value)) for name, value in (("a", 1), ("b", 2))]
        )
    )
    first, second = (data.index(np.full(8, value).tobytes()) for value in (1, 2))
    data[:] = bytes(data).replace(second.to_bytes(8, "little"), first.to_bytes(8, "little"))
    cut = bytearray(data[:second])  # the file ends where the second began
    cut[40:48] = len(cut).to_bytes(8, "little")
    assert "hdf5-overlap" in broken_by(bytes(cut))


def test_a_dataset_that_reaches_beyond_the_end_is_refused() -> None:
    data = bytearray(plain(1000))
    start = data.index(np.arange(8).tobytes())
    data[:] = bytes(data).replace(start.to_bytes(8, "little"), (start + 4000).to_bytes(8, "little"))
    with pytest.raises(IntegrityError):
        broken_by(bytes(data))


def test_a_heap_that_does_not_step_forwards_is_refused() -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["text"] = "of any length"

    data = bytearray(written(fill))
    heap = data.index(b"GCOL")
    for place in range(heap + 16, len(data) - 16, 8):  # the free space, which has index 0: its size
        if data[place : place + 8] == bytes(8) and any(data[place + 8 : place + 16]):
            data[place + 8 : place + 16] = bytes(8)
            break
    with pytest.raises(IntegrityError, match="damaged"):
        broken_by(bytes(data))


@pytest.mark.parametrize("kind", [0, 1], ids=["of groups", "of chunks"])
@pytest.mark.parametrize("level", [1, 2, 255])
def test_a_tree_that_leads_to_itself_is_refused(kind: int, level: int) -> None:
    data = bytearray(written(chunked))
    for match in re.finditer(b"TREE" + bytes([kind]), bytes(data)):
        at, key = match.start(), 8 if kind == 0 else 8 + 4 * 8
        data[at + 5] = level
        data[at + 24 + key : at + 32 + key] = at.to_bytes(8, "little")
    with pytest.raises(IntegrityError, match="B-tree"):
        broken_by(bytes(data))


def chunked(file: h5py.File) -> None:
    file.create_dataset("x", data=np.arange(64, dtype="i4").reshape(4, 4, 4), chunks=(2, 2, 4))


def test_chunks_of_another_rank_than_their_dataset_are_refused() -> None:
    # CVE-2026-19025: the layout holds the lengths of a chunk and of an element, and before them how many they are.
    layout = b"".join(length.to_bytes(4, "little") for length in (2, 2, 4, 4))
    data = bytearray(written(chunked))
    place = data.index(layout)
    assert data[place - 9] == 4
    data[place - 9] = 3
    with pytest.raises(IntegrityError):
        broken_by(bytes(data))


def test_a_chunk_of_another_size_than_it_declares_is_not_read() -> None:
    # CVE-2025-44904: the size stands in the index, too.
    def short(file: h5py.File) -> None:
        made = file.create_dataset("x", shape=(64,), dtype="f8", chunks=(64,), fletcher32=True)
        made.id.write_direct_chunk((0,), bytes(300))

    with walked(written(short)) as tree:
        assert [problem.rule for problem in tree.problems] == ["hdf5-chunk"]
        with pytest.raises(UnsafeContent, match="hdf5-chunk"):
            tree.datasets["x"].read()


def test_what_a_virtual_dataset_is_made_of_is_not_looked_at(secret: Path) -> None:
    # HDF5 1.14 overflows its stack on a selection of more dimensions than there are.
    data = bytearray(written(lambda file: virtual(file, secret), libver="v110"))
    heap = data.index(b"GCOL")
    data[heap + 32 :] = b"\x7f" * (len(data) - heap - 32)
    assert broken_by(bytes(data)) == {"hdf5-virtual-dataset": "it.h5:/layers/dense/vars/1"}


# --- limits


def deep(file: h5py.File) -> None:
    file.create_group("/".join("x" * 100))


def wide(file: h5py.File) -> None:
    for index in range(200):
        file.create_group(str(index))


def talkative(file: h5py.File) -> None:
    for index in range(2000):
        file.attrs[str(index)] = index


def long_winded(file: h5py.File) -> None:
    file.attrs["long"] = np.zeros(200_000)


@pytest.mark.parametrize(
    ("fill", "limits"),
    [
        (deep, Limits()),
        (wide, Limits(objects=100)),
        (talkative, Limits()),
        (long_winded, Limits(attribute_bytes=MIB)),
        (weights, Limits(file=100)),
    ],
)
def test_what_goes_beyond_a_limit_is_refused(fill: Callable[[h5py.File], None], limits: Limits) -> None:
    data = written(fill, libver="latest")
    with pytest.raises(LimitExceeded, match="raise the limit"), walked(data, limits):
        pass


# --- damage


def varied(file: h5py.File) -> None:
    weights(file).attrs["name"] = "dense"
    file.attrs["layer_names"] = np.array([b"dense"])
    file.create_dataset("packed", data=np.arange(400), chunks=(50,), compression="gzip", shuffle=True, fletcher32=True)
    file.create_dataset("more", data=np.arange(40), chunks=(8,), maxshape=(None,))


WHOLE = [written(varied), written(varied, libver="latest")]


def read_all(data: bytes) -> None:
    """Everything in a file, or an error of ours."""
    try:
        with walked(data) as tree:
            for dataset in tree.datasets.values():
                if dataset.nbytes < 16 * MIB:
                    dataset.read()
    except ModelkeepError:
        pass


@pytest.mark.usefixtures("little_memory")
@settings(max_examples=150)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12))
def test_a_file_with_changed_bytes_is_read_or_refused(data: bytes, changes: list[tuple[float, int]]) -> None:
    changed = bytearray(data)
    for place, value in changes:
        changed[int(place * len(changed))] = value
    read_all(bytes(changed))


@pytest.mark.usefixtures("little_memory")
@given(st.sampled_from(WHOLE), st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_is_refused(data: bytes, part: float) -> None:
    with pytest.raises(IntegrityError), walked(data[: int(part * len(data))]):
        pass


# --- rules


def test_every_rule_has_its_level_and_is_used() -> None:
    files = [*SOURCE.glob("hdf5*.py"), SOURCE / "superblock.py", SOURCE / "h5.py"]
    named = {one for file in files for one in re.findall(r'"((?:hdf5|h5)-[a-z-]+)"', file.read_text())}
    told = set(re.findall(r'"((?:hdf5|h5)-[a-z-]+)"', Path(rules_of_hdf5.__file__).read_text()))
    assert named == told
    assert all(RULES[rule].title and RULES[rule].why for rule in named)
    assert {RULES[HOSTILE[fill]].level for fill in (external_link, external_storage, virtual)} == {Level.CRITICAL}


def test_without_h5py_the_line_to_install_it_is_named() -> None:
    script = (
        "import sys; sys.modules['h5py'] = None\nimport io\nfrom modelkeep.formats import hdf5\n"
        "hdf5.open_stream(io.BytesIO(bytes.fromhex(sys.argv[1]))).__enter__()"
    )
    done = subprocess.run([sys.executable, "-c", script, plain().hex()], capture_output=True, text=True)
    assert "MissingExtra" in done.stderr
    assert "pip install" in done.stderr
