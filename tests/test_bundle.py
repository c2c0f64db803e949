from __future__ import annotations

import io
import os
import tracemalloc
import zipfile
import zlib

import blake3
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import (
    AlreadyExists,
    BlobMissing,
    FormatTooNew,
    IntegrityError,
    LimitExceeded,
    NotFound,
    StorageError,
)
from modelkeep.formats import bundle
from modelkeep.formats.zip import Member, directory, local_header
from modelkeep.manifest import Manifest, Part, Piece, Tensor, encode
from modelkeep.storage.blobs import Blobs, TensorSource, blob_key
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore


def source(name, data):
    return TensorSource(name, "uint8", (len(data),), len(data), lambda: data)


def kept(blobs, tensors=(b"kernel" * 30, b"bias", b""), **fields):
    """A small version in a store: three tensors in one pack, and a config."""
    written = blobs.write([source(f"weights/layers/{i}/vars/0", data) for i, data in enumerate(tensors)])
    config = b'{"class_name":"Sequential","config":{}}'
    part = Part(name="config.json", digest=blobs.put(config), size=len(config))
    fields = {"parts": (part,), "tensors": written.tensors, **fields}
    return Manifest(model="m", version="1.0.0", created="2026-05-01T00:00:00Z", writer="test", **fields)


def zipped(manifest, contents):
    """The bytes of a zip as :mod:`modelkeep.formats.zip` lays it out, of whatever is given."""
    members, body = [], b""
    for name, data in ((bundle.MANIFEST, manifest), *contents):
        members.append(Member(name, len(data), zlib.crc32(data), len(body)))
        body += local_header(members[-1]) + data
    return body + directory(members)


def named(data):
    return f"blobs/{blake3.blake3(data).hexdigest()}", data


@pytest.fixture
def blobs():
    return Blobs(MemoryStore())


@pytest.fixture
def whole(blobs, tmp_path):
    """A bundle on the disk."""
    path = tmp_path / "m-1.0.0.zip"
    bundle.write(encode(kept(blobs)), blobs, path)
    return path


def read(path):
    with bundle.read(path) as opened:
        return opened


def test_a_version_goes_from_store_to_store(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = Blobs(LocalStore(tmp_path / "here")), Blobs(LocalStore(tmp_path / "there"))
    manifest = kept(here, (os.urandom(3 * 2**20), b"bias"))
    size = bundle.write(encode(manifest), here, tmp_path / "m.zip")
    assert size == (tmp_path / "m.zip").stat().st_size
    with bundle.read(tmp_path / "m.zip") as opened:
        assert opened.manifest == manifest
        assert opened.digest == here.put(encode(manifest))
        assert bundle.import_into(there, opened) == sum(map(here.check, manifest.blobs()))
        assert bundle.import_into(there, opened) == 0
    assert {digest: there.get(digest) for digest in manifest.blobs()} == {d: here.get(d) for d in manifest.blobs()}


def test_the_same_version_gives_the_same_bytes_whichever_store_it_comes_from(blobs, whole, tmp_path):
    other = Blobs(MemoryStore())
    with bundle.read(whole) as opened:
        bundle.import_into(other, opened)
        bundle.write(encode(opened.manifest), other, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == whole.read_bytes()


def test_any_zip_tool_opens_it_the_manifest_first(whole):
    with zipfile.ZipFile(whole) as opened:
        assert opened.testzip() is None
        assert opened.namelist()[0] == "manifest.json"
        assert msgspec.json.decode(opened.read("manifest.json"))["version"] == "1.0.0"
        assert opened.namelist()[1:] == sorted(opened.namelist()[1:])


def test_a_bundle_is_recognised_by_its_beginning_whatever_its_name(whole, tmp_path):
    renamed = whole.rename(tmp_path / "model.keras")
    assert bundle.recognise(renamed)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("config.json", "{}")
    assert not bundle.recognise(tmp_path / "other.zip")
    with pytest.raises(NotFound):
        bundle.recognise(tmp_path / "none.zip")
    with pytest.raises(StorageError):
        bundle.recognise(tmp_path)


def test_every_changed_byte_is_a_named_error(whole):
    """Each byte of headers, padding, manifest, config, pack, directory and end, flipped one at a time."""
    with whole.open("r+b", buffering=0) as file:
        for at, byte in enumerate(whole.read_bytes()):
            os.pwrite(file.fileno(), bytes([byte ^ (1 << at % 8)]), at)
            with pytest.raises(IntegrityError, match="is not a whole bundle"):
                read(whole)
            os.pwrite(file.fileno(), bytes([byte]), at)
    assert read(whole).manifest.model == "m"


def test_every_truncation_and_every_addition_is_a_named_error(whole):
    data = whole.read_bytes()
    for length in (*range(0, len(data), 13), len(data) - 1):
        whole.write_bytes(data[:length])
        with pytest.raises(IntegrityError, match="is not a whole bundle"):
            read(whole)
    for changed in (data + b"\0", b"\0" + data, data + data, data[:-22] + data[-22:] * 2):
        whole.write_bytes(changed)
        with pytest.raises(IntegrityError):
            read(whole)


@given(st.data())
def test_every_replaced_or_removed_stretch_is_a_named_error(tmp_path_factory, draw):
    path = tmp_path_factory.getbasetemp() / "stretch.zip"
    blobs = Blobs(MemoryStore())
    bundle.write(encode(kept(blobs)), blobs, path, overwrite=True)
    data = path.read_bytes()
    start, length = draw.draw(st.integers(0, len(data))), draw.draw(st.integers(0, 80))
    path.write_bytes(data[:start] + draw.draw(st.binary(max_size=80)) + data[start + length :])
    if path.read_bytes() != data:
        with pytest.raises(IntegrityError, match="is not a whole bundle"):
            read(path)


@given(st.binary(max_size=400))
def test_any_other_file_is_a_named_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.zip"
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="is not a whole bundle"):
        read(path)


def test_members_that_are_missing_added_doubled_or_in_another_order_are_refused(whole, tmp_path):
    with zipfile.ZipFile(whole) as opened:
        manifest, *contents = [(name, opened.read(name)) for name in opened.namelist()]
    assert zipped(manifest[1], contents) == whole.read_bytes()
    first, *others = contents
    for wrong in (others, contents[::-1], [*contents, first], [first, *contents], [*contents, ("blobs/x", b"")]):
        whole.write_bytes(zipped(manifest[1], wrong))
        with pytest.raises(IntegrityError, match=r"another file at byte|not that of its members|no proper zip header"):
            read(whole)


def test_a_zip_that_another_tool_packed_is_refused_with_the_way_out(whole):
    with zipfile.ZipFile(whole) as opened:
        contents = {name: opened.read(name) for name in opened.namelist()}
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", compression) as again:
            for name, data in contents.items():
                again.writestr(name, data)
        whole.write_bytes(packed.getvalue())
        with pytest.raises(IntegrityError, match=r"no proper zip header at byte 0(.|\n)*export it again"):
            read(whole)


PACK = b"\1\2\3\4" + bytes(60)
ONE = Tensor(
    name="weights/a",
    dtype="uint8",
    shape=(4,),
    digest=f"blake3:{blake3.blake3(PACK[:4]).hexdigest()}",
    pieces=(Piece(blob=f"blake3:{blake3.blake3(PACK).hexdigest()}", size=4),),
)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": (5,)}, "found 4 bytes, expected 5"),
        ({"shape": (-4,)}, "is no array"),
        ({"dtype": "object"}, "is no array"),
        ({"pieces": (Piece(blob=ONE.pieces[0].blob, offset=62, size=4),)}, "bytes 62 to 66 are not in a blob of 64"),
        ({"pieces": (Piece(blob=ONE.pieces[0].blob, offset=-1, size=4),)}, "are not in a blob"),
        ({"digest": f"blake3:{'0' * 64}"}, "its bytes have another digest"),
    ],
)
def test_a_manifest_that_lies_about_a_tensor_is_refused(tmp_path, blobs, changes, says):
    tensor = msgspec.structs.replace(ONE, **changes)
    manifest = Manifest(model="m", version="1.0.0", created="", writer="", kind="weights", tensors=(tensor,))
    path = tmp_path / "lies.zip"
    path.write_bytes(zipped(encode(manifest), [named(PACK)]))
    with pytest.raises(IntegrityError, match=says), bundle.read(path) as opened:
        bundle.import_into(blobs, opened)


EMPTY = Manifest(model="m", version="1", created="", writer="")
ELSEWHERE = msgspec.structs.replace(EMPTY, parts=(Part(name="config.json", digest="../../x", size=0),))


@pytest.mark.parametrize(
    ("manifest", "error", "says"),
    [
        (b"{}", IntegrityError, "cannot be read"),
        (b'{"format":1}', IntegrityError, "does not fit its format"),
        (b'{"format":99}', FormatTooNew, "pip install --upgrade modelkeep"),
        (encode(EMPTY).replace(b",", b", "), IntegrityError, "not written as modelkeep writes it"),
        (encode(EMPTY), IntegrityError, "config.json is not in this version"),
        (encode(ELSEWHERE), IntegrityError, "no proper zip header"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, manifest, error, says):
    path = tmp_path / "none.zip"
    path.write_bytes(zipped(manifest, []))
    with pytest.raises(error, match=says):
        read(path)


def test_limits_are_kept(whole, monkeypatch):
    for limit, most in (("MAX_BUNDLE", 100), ("MAX_MANIFEST", 100), ("MAX_MEMBERS", 1)):
        with monkeypatch.context() as patched:
            patched.setattr(bundle, limit, most)
            with pytest.raises(LimitExceeded, match="expected at most"):
                read(whole)


def test_a_header_that_claims_terabytes_reserves_no_memory(tmp_path):
    for name in (bundle.MANIFEST, "blobs/x"):
        path = tmp_path / "claims.zip"
        path.write_bytes(local_header(Member(name, 2**45, 0, 0)))
        with pytest.raises(IntegrityError):
            read(path)


def test_a_file_that_changes_between_check_and_use_is_never_imported(whole):
    other = Blobs(MemoryStore())
    with bundle.read(whole) as opened:
        data = whole.read_bytes()
        at = data.index(b"kernel")
        with whole.open("r+b") as file:
            file.seek(at)
            file.write(b"K")
        with pytest.raises(IntegrityError, match="another digest"):
            bundle.import_into(other, opened)
        os.truncate(whole, at)
        with pytest.raises(IntegrityError, match="the file ends"):
            bundle.import_into(other, opened)


def test_a_store_that_is_damaged_exports_nothing(tmp_path):
    for spoil in (lambda path: path.write_bytes(b"other"), os.unlink):
        root = tmp_path / spoil.__name__
        root.mkdir()
        blobs = Blobs(LocalStore(root))
        manifest = kept(blobs)
        spoil(root / blob_key(manifest.tensors[0].pieces[0].blob))
        with pytest.raises((BlobMissing, IntegrityError)):
            bundle.write(encode(manifest), blobs, tmp_path / "m.zip")
        assert not list(tmp_path.glob("*m.zip*"))


def test_a_file_is_overwritten_only_when_asked_to(blobs, whole):
    manifest = encode(kept(blobs, (b"other",)))
    with pytest.raises(AlreadyExists):
        bundle.write(manifest, blobs, whole)
    bundle.write(manifest, blobs, whole, overwrite=True)
    assert encode(read(whole).manifest) == manifest


def test_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"no file .*none.zip"):
        read(tmp_path / "none.zip")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(IntegrityError, match="is not a regular file"):
            read(path)
    with pytest.raises(StorageError):
        read(tmp_path / ("n" * 300))


def test_a_large_bundle_passes_through_little_memory_and_tells_its_progress(tmp_path):
    (tmp_path / "store").mkdir()
    blobs = Blobs(LocalStore(tmp_path / "store"))
    manifest = kept(blobs, [bytes([i]) * (4 * 2**20) for i in range(12)])
    steps = []
    tracemalloc.start()
    try:
        bundle.write(encode(manifest), blobs, tmp_path / "m.zip", progress=lambda *step: steps.append(step))
        with bundle.read(tmp_path / "m.zip", progress=lambda *step: steps.append(step)) as opened:
            checked = tracemalloc.get_traced_memory()[1]
            bundle.import_into(Blobs(LocalStore(tmp_path / "store")), opened, progress=lambda *step: steps.append(step))
        imported = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert checked < (2 + os.cpu_count()) * 2**20  # a buffer of 1 MiB for each thread
    assert imported < 11 * 2**20  # two blobs of 4 MiB
    assert all(0 < done <= total for _, done, total in steps)
    assert list(dict.fromkeys(what for what, _, _ in steps)) == [
        "writing the bundle", "checking the bundle", "storing the bundle",
    ]  # fmt: skip
