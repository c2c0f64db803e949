"""An HDF5 file walked without trust: its own groups, datasets and attributes, and nothing outside it.

HDF5 can name other files in five ways (soft, external and user-defined links, external storage, virtual
datasets), load code (filter plugins), and declare more than it holds. So every link is asked what it is
before it is followed, and only hard links are; every count and size is compared before anything is read;
and a dataset is read through HDF5 only where its layout, filters and type are those of a weights file.
What is found otherwise becomes a ``Problem``, and is left alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from modelkeep.errors import IntegrityError, LimitExceeded, MissingExtra, ModelkeepError, UnsafeContent
from modelkeep.formats import superblock
from modelkeep.formats.contents import Problem
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.formats.superblock import Stream

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

# JSON values; bytes are text. None is an empty attribute, or one that was not read, which a problem tells.
Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dataset:
    """One array in an HDF5 file, by its path there: ``layers/dense/vars/0``.

    ``dtype`` is NumPy's or ml_dtypes' word (``float32``, ``bool``, ``bfloat16``; ``V1``, ``V2`` for bytes of
    no known type), or HDF5's (``string``, ``reference``, …) for what is no array of numbers and is not read.
    ``stored`` is the number of bytes that it takes in the file. ``read`` raises UnsafeContent where a problem
    with the dataset forbids it, LimitExceeded where memory does not suffice, IntegrityError.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    stored: int
    attributes: Attributes
    read: Callable[[], Array] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Tree:
    """All that an HDF5 file holds. Groups by path (the root's is empty) with their attributes; datasets by path."""

    groups: dict[str, Attributes] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@contextmanager
def open_stream(
    stream: Stream, limits: Limits = DEFAULT, name: str = "the file", *, thorough: bool = False
) -> Iterator[Tree]:
    """Walk an HDF5 file in a stream that can be sought and read; its datasets can be read until the block ends.

    The stream may be a ``ByteRange``: an HDF5 file that lies stored in another one is read in place.
    ``name`` says which file it is, in errors and as the place of problems. ``thorough`` also unpacks every
    compressed chunk. Raises LimitExceeded, IntegrityError, MissingExtra without h5py.
    """
    size = stream.seek(0, os.SEEK_END)
    limits.check("file", size, f"{name} is too large")
    block = superblock.read(stream, size, name)
    with _damage_told(name):
        file = _opened(stream)
    try:
        walk = _Walk(limits, name, size, thorough)
        walk.tree.problems.extend(superblock.problems(block, size, name))
        with _damage_told(name):
            walk.all_of(file)
        yield walk.tree
    finally:
        file.close()


class _Walk:
    """One pass over a file: what was seen, and how much of it."""

    def __init__(self, limits: Limits, name: str, size: int, thorough: bool) -> None:
        self.tree = Tree()
        self._limits, self._name, self._size, self._thorough = limits, name, size, thorough
        self._seen: dict[int, str] = {}  # the path of each object, by its address; none is in another file

    def problem(self, rule: str, message: str, path: str = "") -> None:
        self.tree.problems.append(Problem(rule, message, f"{self._name}:/{path}"))

    def all_of(self, file: Any) -> None:
        """Every object that hard links lead to, from the root on."""
        from h5py import h5o

        root = h5o.open(file, b"/")
        self._seen[h5o.get_info(root).addr] = ""
        waiting = [("", root)]
        while waiting:
            path, group = waiting.pop()
            self.tree.groups[path] = self._attributes(group, path)
            found = (self._followed(group, path, *link) for link in self._links(group, path))
            waiting.extend(reversed([one for one in found if one]))
        self._check_totals()

    def _links(self, group: Any, path: str) -> list[tuple[bytes, int, int]]:
        """The names in a group, sorted, each with the kind of its link and, of a hard one, the object's address."""
        from h5py import h5

        room = self._limits.objects - len(self._seen)
        found: list[tuple[bytes, int, int]] = []

        def add(name: bytes, link: Any) -> bool | None:
            found.append((name, link.type, link.u))
            return True if len(found) > room else None

        # In native order the index is read as it lies: sorting it first would trust its size.
        group.links.iterate(add, info=True, order=h5.ITER_NATIVE)
        self._limits.check("objects", len(self._seen) + len(found), f"{self._name} holds too many objects")
        self._limits.check("depth", path.count("/") + 1, f"{self._name} nests its groups too deep")
        return sorted(found)

    def _followed(self, group: Any, path: str, name: bytes, link: int, address: int) -> tuple[str, Any] | None:
        """The group that a link leads to, if it is one that was not seen yet; a dataset is taken in."""
        from h5py import h5d, h5g, h5l, h5o

        inner = f"{path}/{_text(name)}".lstrip("/")
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            self.problem("hdf5-name", f"a link is named {name[:80]!r}", path)
        elif link == h5l.TYPE_SOFT:
            target = group.links.get_val(name)
            self.problem("hdf5-soft-link", f"a soft link to {_text(target[:200])!r}", inner)
        elif link == h5l.TYPE_EXTERNAL:
            file, target = group.links.get_val(name)
            self.problem("hdf5-external-link", f"a link to {_text(target[:200])!r} in {_text(file[:200])!r}", inner)
        elif link != h5l.TYPE_HARD:
            self.problem("hdf5-user-link", f"a link of the user-defined kind {link}", inner)
        elif self._is_new(address, inner):
            opened = h5o.open(group, name)
            if isinstance(opened, h5g.GroupID):
                return inner, opened
            if isinstance(opened, h5d.DatasetID):
                self._take(opened, inner)
            else:
                self.problem("hdf5-object", "neither a group nor a dataset", inner)
        return None

    def _is_new(self, address: int, path: str) -> bool:
        first = self._seen.setdefault(address, path)
        if first != path:
            self.problem("hdf5-shared-object", f"it is /{first} once more", path)
        return first == path

    def _take(self, opened: Any, path: str) -> None:
        """Describe a dataset. What it may not do is found before HDF5 is asked for its shape."""
        attributes = self._attributes(opened, path)
        forbidden = self._reaching_outside(opened, path)
        if "hdf5-virtual-dataset" in forbidden:
            return  # asking for its shape may open the files that it is made of
        dtype, memory_type = _dtype(opened.get_type(), attributes)
        if rule := _TYPE_RULES.get(dtype):
            self.problem(rule, f"a dataset of type {dtype}", path)
        if memory_type is None:
            forbidden.append("hdf5-type")
        shape = opened.shape
        if shape is None:
            self.problem("hdf5-type", "a dataset without a dataspace", path)
            shape, forbidden = (), [*forbidden, "hdf5-type"]
        nbytes = math.prod(shape) * opened.get_type().get_size()
        stored = 0 if forbidden else self._stored(opened, path, nbytes)
        read = partial(_refuse, path, forbidden[0]) if forbidden else partial(_read, opened, path, dtype, memory_type)
        self.tree.datasets[path] = Dataset(path, dtype, shape, nbytes, stored, attributes, read)

    def _reaching_outside(self, opened: Any, path: str) -> list[str]:
        """The rules that a dataset's storage breaks, any of which forbids reading it."""
        from h5py import h5d

        plist = opened.get_create_plist()
        broken = []
        if plist.get_layout() == h5d.VIRTUAL:
            self.problem("hdf5-virtual-dataset", "its values are those of other datasets or files", path)
            return ["hdf5-virtual-dataset"]
        if plist.get_external_count():
            file = _text(plist.get_external(0)[0][:200])
            self.problem("hdf5-external-storage", f"its values are the bytes of {file!r}", path)
            broken.append("hdf5-external-storage")
        filters = {plist.get_filter(index)[0] for index in range(plist.get_nfilters())}
        if others := sorted(filters - _FILTERS):
            self.problem("hdf5-filter", f"packed by filter {', '.join(map(str, others))}", path)
            broken.append("hdf5-filter")
        return broken

    def _stored(self, opened: Any, path: str, nbytes: int) -> int:
        """Bytes that a dataset takes in the file, compared with what it declares."""
        from h5py import h5d

        layout = opened.get_create_plist().get_layout()
        if layout == h5d.CHUNKED:
            stored = self._chunks(opened, path, nbytes)
        else:
            stored = opened.get_storage_size()
            offset = opened.get_offset()
            if layout == h5d.CONTIGUOUS and offset is None:
                stored = 0
            elif layout == h5d.CONTIGUOUS and offset + stored > self._size:
                raise IntegrityError(f"/{path} reaches beyond the end of {self._name}")
        if nbytes and not stored:
            self.problem("hdf5-unwritten", "declared and never written: it reads as zeros", path)
        if nbytes > self._limits.expansion_floor and nbytes > self._limits.expansion_ratio * stored:
            self.problem("hdf5-declared-size", f"declares {nbytes:,} bytes and stores {stored:,}", path)
        return int(stored)

    def _chunks(self, opened: Any, path: str, nbytes: int) -> int:
        """Bytes of all chunks of a dataset, each compared with what a chunk may be."""
        plist = opened.get_create_plist()
        chunk, itemsize = plist.get_chunk(), opened.get_type().get_size()
        unpacked = math.prod(chunk) * itemsize
        if unpacked > max(nbytes, self._limits.expansion_floor):
            self.problem("hdf5-chunk", f"chunks of {unpacked:,} bytes for {nbytes:,} bytes of values", path)
        expected = math.prod(-(-length // step) for length, step in zip(opened.shape, chunk, strict=True))
        found: list[Any] = []

        def add(info: Any) -> bool | None:
            found.append(info)
            return True if len(found) > min(expected, self._limits.objects) else None

        opened.chunk_iter(add)
        self._limits.check("objects", len(found), f"/{path} in {self._name} has too many chunks")
        if len(found) > expected:
            self.problem("hdf5-chunk", f"more than the {expected:,} chunks that its shape needs", path)
        elif 0 < len(found) < expected:
            self.problem("hdf5-unwritten", f"only {len(found):,} of {expected:,} chunks were written", path)
        # Deflate adds five bytes for each 16 KiB that it cannot shrink, and Fletcher's checksum is four.
        most = unpacked + unpacked // 1000 + 64
        for info in found:
            if info.byte_offset is None or info.byte_offset + info.size > self._size:
                raise IntegrityError(f"a chunk of /{path} reaches beyond the end of {self._name}")
            if info.size > most:
                self.problem("hdf5-chunk", f"a chunk of {unpacked:,} bytes takes {info.size:,}", path)
                break
        else:
            if self._thorough and plist.get_nfilters():
                self._unpack(opened, path, found, unpacked)
        return sum(info.size for info in found)

    def _unpack(self, opened: Any, path: str, chunks: list[Any], unpacked: int) -> None:
        """Inflate every chunk ourselves, no further than it may go: HDF5 inflates whatever is there."""
        plist = opened.get_create_plist()
        filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
        for info in chunks:
            _, data = opened.read_direct_chunk(info.chunk_offset)
            applied = [one for index, one in enumerate(filters) if not info.filter_mask & 1 << index]
            size = _unpacked_size(bytes(data), applied, unpacked)
            if size != unpacked:
                held = "over" if size > unpacked else "only"
                self.problem("hdf5-chunk", f"a chunk of {unpacked:,} bytes holds {held} {min(size, unpacked):,}", path)
                return

    def _check_totals(self) -> None:
        datasets = self.tree.datasets.values()
        declared, stored = sum(one.nbytes for one in datasets), sum(one.stored for one in datasets)
        if stored > self._size:
            self.problem("hdf5-overlap", f"its datasets claim {stored:,} of {self._size:,} bytes")
        floor = 4 * self._limits.expansion_floor
        if declared > floor and declared > self._limits.expansion_ratio * stored:
            self.problem("hdf5-declared-size", f"its datasets declare {declared:,} bytes and store {stored:,}")

    def _attributes(self, owner: Any, path: str) -> Attributes:
        """All attributes of an object that are text or numbers, as JSON values."""
        from h5py import h5, h5a

        place = f"/{path} in {self._name}"
        self._limits.check("attributes", h5a.get_num_attrs(owner), f"{place} has too many attributes")
        sizes: dict[bytes, int] = {}

        def add(name: bytes, info: Any) -> bool | None:
            sizes[name] = info.data_size
            return True if len(sizes) > self._limits.attributes else None

        h5a.iterate(owner, add, info=True, order=h5.ITER_NATIVE)
        self._limits.check("attributes", len(sizes), f"{place} has too many attributes")
        self._limits.check("attribute_bytes", sum(sizes.values()), f"{place} has too long attributes")
        values: dict[str, Any] = {}
        for name in sorted(sizes):
            values[_text(name)] = None
            try:
                values[_text(name)] = _value(h5a.open(owner, name), self._limits)
            except _OddAttribute as odd:
                self.problem("hdf5-attribute", f"the attribute {_text(name)!r} is {odd}", path)
        return values


# --- attributes


class _OddAttribute(Exception):
    """An attribute that no writer of models makes."""


def _value(attribute: Any, limits: Limits) -> Any:
    import numpy as np
    from h5py import h5s, h5t

    if attribute.get_space().get_simple_extent_type() == h5s.NULL:
        return None
    stored_type = attribute.get_type()
    dtype, memory_type = _dtype(stored_type, {})
    if dtype != "string" and (memory_type is None or dtype.startswith("V")):
        raise _OddAttribute(f"of type {dtype}")
    size = math.prod(attribute.shape) * stored_type.get_size()
    limits.check("attribute_bytes", size, "an attribute is too long")
    if dtype != "string":
        array = np.empty(attribute.shape, dtype)
        attribute.read(array, memory_type)
        return array.tolist()
    array = np.empty(attribute.shape, stored_type.dtype)
    attribute.read(array, h5t.py_create(stored_type.dtype))
    return _decoded(array.tolist())


def _decoded(value: Any) -> Any:
    """Text for bytes, in lists of any depth that an array can have."""
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise _OddAttribute("no UTF-8 text") from error


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


# --- types

# What a dataset of a type that is no plain number breaks. Whatever else is here is nothing a weights file holds.
_TYPE_RULES = {
    "string": "hdf5-string-dataset",
    **dict.fromkeys(("V1", "V2"), "hdf5-opaque"),
    **dict.fromkeys(("time", "bitfield", "opaque", "compound", "reference", "enum", "vlen", "array"), "hdf5-type"),
    **dict.fromkeys(("odd integer", "odd float", "unknown"), "hdf5-type"),
}
_BFLOAT16 = (15, 7, 8, 0, 7)  # places and sizes of sign, exponent and mantissa


def _dtype(stored: Any, attributes: Attributes) -> tuple[str, Any]:
    """The word for a type, and the type to read it as; None where it is not to be read."""
    from h5py import h5t

    kind, size = stored.get_class(), stored.get_size()
    if kind == h5t.INTEGER:
        word = f"{'' if stored.get_sign() else 'u'}int{size * 8}"
        plain = size in (1, 2, 4, 8) and stored.get_precision() == size * 8
        return (word, h5t.py_create(word)) if plain else ("odd integer", None)
    if kind == h5t.FLOAT:
        fields = {2: (15, 10, 5, 0, 10), 4: (31, 23, 8, 0, 23), 8: (63, 52, 11, 0, 52)}
        if size == 2 and stored.get_fields() == _BFLOAT16:
            return "bfloat16", stored
        if stored.get_fields() == fields.get(size):
            return f"float{size * 8}", h5t.py_create(f"float{size * 8}")
        return "odd float", None
    if kind == h5t.ENUM and _members(stored) == {b"FALSE": 0, b"TRUE": 1}:
        return "bool", h5t.py_create("bool", logical=True)
    if kind == h5t.COMPOUND and size in (8, 16) and _is_complex(stored):
        return f"complex{size * 8}", h5t.py_create(f"complex{size * 8}")
    if kind == h5t.OPAQUE and size <= 2:  # what NumPy has no word for, h5py keeps as bytes
        return ("bfloat16" if size == 2 and attributes.get("dtype") == "bfloat16" else f"V{size}"), stored
    return _OTHER_TYPES.get(kind, "unknown"), None


# H5T_class_t
_OTHER_TYPES = {
    2: "time",
    3: "string",
    4: "bitfield",
    5: "opaque",
    6: "compound",
    7: "reference",
    8: "enum",
    9: "vlen",
    10: "array",
}


def _members(stored: Any) -> dict[bytes, int]:
    count = stored.get_nmembers()
    if count != 2:
        return {}
    return {stored.get_member_name(index): stored.get_member_value(index) for index in range(count)}


def _is_complex(stored: Any) -> bool:
    from h5py import h5t

    if stored.get_nmembers() != 2 or [stored.get_member_name(i) for i in (0, 1)] != [b"r", b"i"]:
        return False
    half = stored.get_size() // 2
    parts = [stored.get_member_type(i) for i in (0, 1)]
    return all(part.get_class() == h5t.FLOAT and part.get_size() == half for part in parts)


# --- reading

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_FILTERS = {_DEFLATE, _SHUFFLE, _FLETCHER32}


def _read(opened: Any, path: str, dtype: str, memory_type: Any) -> Array:
    import numpy as np
    from h5py import h5s

    raw = dtype == "bfloat16" or dtype.startswith("V")
    with _damage_told(f"/{path}"):
        array = np.empty(opened.shape, f"V{memory_type.get_size()}" if raw else dtype)
        if array.size:
            opened.read(h5s.ALL, h5s.ALL, array, memory_type)
        return array.view(_bfloat16()) if dtype == "bfloat16" else array


def _bfloat16() -> Any:
    try:
        import ml_dtypes
    except ImportError as error:
        raise MissingExtra("bfloat16 needs ml_dtypes", hint="pip install 'modelkeep[files]'") from error
    return ml_dtypes.bfloat16


def _refuse(path: str, rule: str) -> Array:
    raise UnsafeContent(f"/{path} is not read", found=rule, hint="no writer of models makes such a dataset")


def _unpacked_size(data: bytes, applied: list[int], unpacked: int) -> int:
    """Bytes that filters make of a chunk, undone from the last to the first; a little more than it may be at most."""
    import zlib

    for one in reversed(applied):
        if one == _FLETCHER32:
            data = data[:-4]
        elif one == _DEFLATE:
            data = zlib.decompressobj().decompress(data, unpacked + 8)
    return len(data)


def _opened(stream: Stream) -> Any:
    """The file, by the low-level interface, which follows nothing that it is not told to follow."""
    try:
        from h5py import h5f, h5p
    except ImportError as error:
        raise MissingExtra("reading HDF5 files needs h5py", hint="pip install 'modelkeep[files]'") from error

    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_fileobj_driver(_driver(), _Guarded(stream))
    return h5f.open(b"modelkeep", h5f.ACC_RDONLY, access)


def _driver() -> Any:
    from h5py import h5fd

    return h5fd.fileobj_driver


class _Guarded:
    """A stream as h5py's driver reads it: every read gives all bytes asked for, and zeros beyond the end.

    It looks at what passes for what the HDF5 library does not survive.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._size = stream.seek(0, os.SEEK_END)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        view, at = memoryview(buffer).cast("B"), self._stream.tell()
        self._fill(view, at)
        if bytes(view[:4]) == b"GCOL":
            self._check_heap(at)
        return len(view)

    def _fill(self, view: memoryview, at: int) -> None:
        inside = max(0, min(len(view), self._size - at))
        view[inside:] = bytes(len(view) - inside)
        rest = view[:inside]
        self._stream.seek(at)
        while rest:
            count = self._stream.readinto(rest)  # type: ignore[union-attr]
            if not count:
                raise OSError("the file was cut while it was read")
            rest = rest[count:]

    def _check_heap(self, at: int) -> None:
        """A global heap, which holds texts of any length, must step forwards: HDF5 goes round a step of 0 for ever.

        Section III.E of the specification: 16 bytes with the size of the heap, then objects, each with its index
        and its size, padded to 8 bytes. Index 0 is free space, whose size counts its own 16 bytes.
        """
        header = bytearray(16)
        self._fill(memoryview(header), at)
        size = int.from_bytes(header[8:], "little")
        if not 16 <= size <= self._size - at:
            raise OSError("a global heap reaches beyond the end of the file")
        heap = bytearray(size)
        self._fill(memoryview(heap), at)
        place = 16
        while place + 16 <= size:
            length = int.from_bytes(heap[place + 8 : place + 16], "little")
            step = 16 + (length + 7 & -8) if heap[place : place + 2] != b"\0\0" else length
            if not 16 <= step <= size - place:
                raise OSError(f"a global heap at byte {at:,} is damaged")
            place += step


@contextmanager
def _damage_told(name: str) -> Iterator[None]:
    try:
        yield
    except (ModelkeepError, MemoryError) as error:
        if isinstance(error, MemoryError):
            raise LimitExceeded(f"{name} declares more than fits into memory") from error
        raise
    except Exception as error:  # h5py tells of damaged bytes by a dozen kinds of errors
        raise IntegrityError(f"{name} is damaged: {str(error)[:300]}", hint="get it again") from error
