"""TensorFlow's tensors on disk ("checkpoint V2"): ``<prefix>.index`` and ``<prefix>.data-00000-of-00001``.

The index is a sorted table: the key ``""`` has a ``BundleHeaderProto``, every other the ``BundleEntryProto`` of one
tensor (tensorflow/core/protobuf/tensor_bundle.proto), which says where its bytes lie in which data file. A tensor
saved in slices has an entry without bytes that lists them, and each slice one of its own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep.errors import IntegrityError, NotFound, UnsafeContent
from modelkeep.formats import crc32c, sorted_table
from modelkeep.formats.contents import ForeignTensor, Problem
from modelkeep.formats.limits import Limits
from modelkeep.formats.mapped import CHUNK, MappedFile
from modelkeep.formats.protobuf import Message, text

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

STRING = "string"
# tensorflow/core/framework/types.proto; quantized integers are the integers they are made of.
DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: STRING, 8: "complex64", 9: "int64",
    10: "bool", 11: "int8", 12: "uint8", 13: "int32", 14: "bfloat16", 15: "int16", 16: "uint16", 17: "uint16",
    18: "complex128", 19: "float16", 20: "resource", 21: "variant", 22: "uint32", 23: "uint64", 24: "float8_e5m2",
    25: "float8_e4m3fn", 26: "float8_e4m3fnuz", 27: "float8_e4m3b11fnuz", 28: "float8_e5m2fnuz", 29: "int4",
    30: "uint4", 31: "int2", 32: "uint2", 33: "float4_e2m1fn",
}  # fmt: skip
_NO_ARRAY = ("resource", "variant")
_SLICE = b"\0"  # begins the keys of slices, and no name


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies: in which data file, from which byte, how many, with which masked CRC-32C."""

    name: str
    dtype: str  # of DTYPES
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    slices: tuple[tuple[slice, ...], ...] = ()  # of a tensor whose parts have entries of their own


class TensorBundle:
    """An open bundle. Its data files are there, and everything declared fits into them; no tensor is read yet."""

    def __init__(self, entries: dict[bytes, Entry], shards: tuple[MappedFile, ...]) -> None:
        unlisted = _check_places(entries.values(), shards)
        self.problems = (_unlisted(unlisted),) if unlisted else ()
        self.size = sum(shard.size for shard in shards)  # bytes
        self._entries = entries
        self._shards = shards
        self.entries = {entry.name: entry for key, entry in entries.items() if not key.startswith(_SLICE)}

    def tensor(self, name: str) -> ForeignTensor:
        """One tensor, to be read while the bundle is open. Raises KeyError."""
        entry = self.entries[name]
        size = sum(self._part(entry, one).size for one in entry.slices) if entry.slices else entry.size
        return ForeignTensor(name, entry.dtype, entry.shape, size, partial(self.read, name))

    def read(self, name: str) -> Array:
        """A tensor's array, read-only, and in the file's own memory where it is large.

        Text is an array of ``bytes`` objects. Raises KeyError, UnsafeContent for a dtype that has no array,
        IntegrityError for text that is not laid out as TensorFlow does.
        """
        entry = self.entries[name]
        if entry.dtype in _NO_ARRAY:
            raise UnsafeContent(f"{name} is no array", found=entry.dtype)
        return self._joined(entry) if entry.slices else self._whole(entry)

    def scalar_text(self, name: str) -> memoryview:
        """The bytes of a tensor that is one text, such as the object graph. Raises KeyError, IntegrityError."""
        entry = self.entries[name]
        if entry.dtype != STRING or entry.shape or entry.slices:
            raise IntegrityError(f"{name} is not one text", found=f"{entry.dtype} of shape {entry.shape}")
        lengths, data = self._lengths(entry)
        return data[len(data) - lengths[0] :]

    def check(self) -> tuple[Problem, ...]:
        """Read every byte and compare checksums; a problem where no library for them is installed.

        Raises IntegrityError, naming the tensor, where bytes are not those that were written.
        """
        if not crc32c.available():
            return (Problem("checksum-not-checked", f"CRC-32C of tensors: {crc32c.EXTRA}"),)
        in_order = sorted(self._entries.values(), key=lambda entry: (entry.shard, entry.offset))
        for entry in in_order:
            if not entry.slices and crc32c.masked(self._checksum(entry)) != entry.checksum:
                raise IntegrityError(
                    f"tensor {entry.name} is damaged: its bytes have another CRC-32C",
                    hint="copy the files again from where they came from",
                )
        return ()

    def _checksum(self, entry: Entry) -> int:
        shard, value, start = self._shards[entry.shard], 0, 0
        if entry.dtype == STRING:
            # Lengths count as numbers of fixed width; then their own checksum as it is stored, and the texts.
            lengths, _ = self._lengths(entry)
            widths = b"".join(struct.pack("<I" if length < 2**32 else "<Q", length) for length in lengths)
            value, start = crc32c.crc32c(widths) or 0, entry.size - sum(lengths) - 4
        for at in range(start, entry.size, CHUNK):
            value = crc32c.crc32c(shard.pread(entry.offset + at, min(CHUNK, entry.size - at)), value) or 0
        return value

    def _whole(self, entry: Entry) -> Array:
        import numpy as np

        if entry.dtype == STRING:
            return self._texts(entry)
        if not entry.size:
            return np.empty(entry.shape, numpy_dtype(entry.dtype))
        data = self._shards[entry.shard].view(entry.offset, entry.size)
        return np.frombuffer(data, numpy_dtype(entry.dtype)).reshape(entry.shape)

    def _joined(self, entry: Entry) -> Array:
        import numpy as np

        array = np.zeros(entry.shape, object if entry.dtype == STRING else numpy_dtype(entry.dtype))
        for one in entry.slices:
            array[one] = self._whole(self._part(entry, one))
        return array

    def _part(self, entry: Entry, one: tuple[slice, ...]) -> Entry:
        return self._entries[slice_key(entry.name, one)]

    def _texts(self, entry: Entry) -> Array:
        import numpy as np

        lengths, data = self._lengths(entry)
        array, at = np.empty(len(lengths), object), len(data) - sum(lengths)
        for index, length in enumerate(lengths):
            array[index] = bytes(data[at : at + length])
            at += length
        return array.reshape(entry.shape)

    def _lengths(self, entry: Entry) -> tuple[list[int], memoryview]:
        """The length of each text; and all bytes of the tensor: varints, their checksum, then the texts."""
        data = self._shards[entry.shard].view(entry.offset, entry.size)
        lengths, at = [], 0
        for _ in range(prod(entry.shape)):
            length, at = sorted_table.varint(data, at)
            lengths.append(length)
        if at + 4 + sum(lengths) != entry.size:
            raise IntegrityError(
                f"the texts of {entry.name} do not fill it", found=at + 4 + sum(lengths), expected=entry.size
            )
        return lengths, data


def _unlisted(count: int) -> Problem:
    return Problem("unlisted-bytes", f"{count:,} bytes of the data files belong to no tensor")


@contextmanager
def open_bundle(prefix: Path, limits: Limits) -> Iterator[TensorBundle]:
    """The bundle whose files begin with ``prefix``; closed when the block ends.

    Raises NotFound without an index, UnsafeContent for links and for what TensorFlow never writes,
    LimitExceeded, StorageError, and IntegrityError where a data file is missing or too short, tensors overlap, or
    a size does not follow from shape and dtype.
    """
    path = _index(prefix)
    index = MappedFile(path)
    limits.check("config", index.size, f"{index.path.name} is too large")
    try:
        header, entries = _read_index(memoryview(index.pread(0, index.size)), limits)
    except IntegrityError as error:
        raise IntegrityError(
            f"{index.path.name}: {error.what}", found=error.found, expected=error.expected, hint=error.hint
        ) from error
    finally:
        index.close()
    shards = _shards(path, header, limits)
    try:
        yield TensorBundle(entries, shards)
    finally:
        for shard in shards:
            shard.close()


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """NumPy's dtype of one of ``DTYPES``, not of those without arrays."""
    import numpy as np

    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        import ml_dtypes

        found = np.dtype(getattr(ml_dtypes, dtype))
    return found


# --- the index


def _read_index(table: memoryview, limits: Limits) -> tuple[Message, dict[bytes, Entry]]:
    header: Message | None = None
    entries: dict[bytes, Entry] = {}
    for key, value in sorted_table.entries(table):
        if not key:
            header = Message(value)
            continue
        limits.check("tensors", len(entries) + 1, "too many tensors")
        entries[key] = _entry(key, Message(value))
    if header is None:
        raise IntegrityError("a tensor index without its header")
    if header.unsigned(2):
        raise UnsafeContent("tensors of a big-endian machine", hint="write them again on a machine of today")
    for entry in entries.values():
        _check_size(entry, entries)
    return header, entries


def _entry(key: bytes, entry: Message) -> Entry:
    name = repr(key) if key.startswith(_SLICE) else text(key)
    dtype = DTYPES.get(entry.unsigned(1))
    if dtype is None:
        raise IntegrityError(f"tensor {name} has a dtype that TensorFlow does not have", found=entry.unsigned(1))
    shape = shape_of(entry.message(2))
    if shape is None or None in shape:
        raise IntegrityError(f"tensor {name} has no definite shape")
    whole = tuple(length for length in shape if length is not None)
    found = Entry(
        name=name,
        dtype=dtype,
        shape=whole,
        shard=entry.integer(3),
        offset=entry.integer(4),
        size=entry.integer(5),
        checksum=entry.unsigned(6),
        slices=tuple(_slice(one, whole, name) for one in entry.messages(7)),
    )
    if found.shard < 0 or found.offset < 0 or found.size < 0:
        raise IntegrityError(f"tensor {name} lies nowhere", found=f"{found.size} bytes at byte {found.offset}")
    return found


def shape_of(shape: Message) -> tuple[int | None, ...] | None:
    """A ``TensorShapeProto``: None for any length, and for any rank. Raises IntegrityError for lengths beyond 2**62."""
    if shape.unsigned(3):
        return None
    lengths = [dim.integer(1) for dim in shape.messages(2)]
    if prod(max(length, 1) for length in lengths) > 2**62 or len(lengths) > 254:
        raise IntegrityError("a shape larger than any memory", found=str(lengths)[:80])
    return tuple(None if length < 0 else length for length in lengths)


def _check_size(entry: Entry, entries: dict[bytes, Entry]) -> None:
    """Whether the bytes of an entry are as many as its shape and dtype take. Raises IntegrityError."""
    if entry.slices:
        _check_slices(entry, entries)
    elif entry.dtype == STRING:
        if entry.size < prod(entry.shape) + 4:
            raise IntegrityError(f"tensor {entry.name} has no room for its {prod(entry.shape):,} texts")
    elif entry.dtype not in _NO_ARRAY and entry.size != (expected := prod(entry.shape) * width_of(entry.dtype)):
        raise IntegrityError(
            f"tensor {entry.name} has not the size that its shape {entry.shape} takes",
            found=f"{entry.size:,} bytes",
            expected=f"{expected:,}",
        )


def _check_slices(entry: Entry, entries: dict[bytes, Entry]) -> None:
    numbers = 0
    for one in entry.slices:
        part = entries.get(slice_key(entry.name, one))
        shape = tuple(len(range(length)[extent]) for extent, length in zip(one, entry.shape, strict=True))
        if part is None or part.slices or (part.dtype, part.shape) != (entry.dtype, shape):
            raise IntegrityError(
                f"tensor {entry.name} lacks a slice", found=part, expected=f"{entry.dtype}{list(shape)}"
            )
        numbers += prod(shape)
    if numbers != prod(entry.shape):
        raise IntegrityError(f"the slices of tensor {entry.name} do not make it up")


def _index(prefix: Path) -> Path:
    """The index of a bundle. One without a name, which is only ``.index``, stands for itself."""
    return prefix if prefix.name == ".index" else prefix.with_name(f"{prefix.name}.index")


def _shards(index: Path, header: Message, limits: Limits) -> tuple[MappedFile, ...]:
    count = header.integer(1)
    limits.check("members", count, f"{index.name} names too many data files")
    name = index.name.removesuffix(".index")
    try:
        return tuple(MappedFile(index.with_name(f"{name}.data-{i:05}-of-{count:05}")) for i in range(count))
    except NotFound as error:
        raise IntegrityError(
            f"a data file of {name or index.name} is missing: {error.what}", expected=f"{count} files"
        ) from error


def _check_places(entries: Iterable[Entry], shards: tuple[MappedFile, ...]) -> int:
    """The bytes that belong to no tensor. Raises IntegrityError where tensors overlap or lie outside their file."""
    ends = [0] * len(shards)
    stored = [entry for entry in entries if not entry.slices]
    for entry in sorted(stored, key=lambda entry: (entry.shard, entry.offset, entry.size)):
        if entry.shard >= len(shards):
            raise IntegrityError(f"tensor {entry.name} lies in no data file", found=f"number {entry.shard}")
        shard, end = shards[entry.shard], entry.offset + entry.size
        if end > shard.size:
            raise IntegrityError(
                f"{shard.path.name} is too short for tensor {entry.name}",
                found=f"{shard.size:,} bytes",
                expected=f"at least {end:,}",
                hint="copy the files again from where they came from",
            )
        if entry.offset < ends[entry.shard]:
            raise IntegrityError(f"tensor {entry.name} lies on bytes of another")
        ends[entry.shard] = end
    return sum(shard.size for shard in shards) - sum(entry.size for entry in stored)


def width_of(dtype: str) -> int:
    """Bytes of one number: what its name says in bits, and at least one."""
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 1


# --- slices


def _slice(proto: Message, shape: tuple[int, ...], name: str) -> tuple[slice, ...]:
    """A ``TensorSliceProto``; an extent without a length is the whole of its dimension."""
    extents = [
        slice(extent.integer(1), extent.integer(1) + extent.integer(2)) if 2 in extent else slice(None)
        for extent in proto.messages(1)
    ]
    if len(extents) != len(shape) or any(
        not 0 <= one.start <= one.stop <= length
        for one, length in zip(extents, shape, strict=False)
        if one.stop is not None
    ):
        raise IntegrityError(f"a slice of tensor {name} lies outside it")
    return tuple(extents)


def slice_key(name: str, one: tuple[slice, ...]) -> bytes:
    """The key of a slice's own entry, as tensorflow/core/util/saved_tensor_slice_util.cc makes it."""
    # In UTF-8 only the NUL needs to be escaped.
    key = _SLICE + name.encode().replace(b"\0", b"\0\xff") + b"\0\1" + _unsigned(len(one))
    for extent in one:
        start, length = (0, -1) if extent.stop is None else (extent.start, extent.stop - extent.start)
        key += _signed(start) + _signed(length)
    return key


# Numbers whose bytes sort as they do: tensorflow/core/lib/strings/ordered_code.cc.


def _unsigned(value: int) -> bytes:
    length = (value.bit_length() + 7) // 8
    return bytes([length]) + value.to_bytes(length, "big")


def _signed(value: int) -> bytes:
    """Two's complement in as few groups of 7 bits as hold it, xor as many leading ones as there are groups."""
    groups = (value if value >= 0 else ~value).bit_length() // 7 + 1
    ones = ((1 << groups) - 1) << 7 * groups
    return (value & ((1 << 8 * groups) - 1) ^ ones).to_bytes(groups, "big")
