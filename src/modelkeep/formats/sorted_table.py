"""LevelDB's sorted string table, in which TensorFlow lists the tensors of a checkpoint.

https://github.com/google/leveldb/blob/main/doc/table_format.md: blocks of entries whose keys share a prefix with
the key before, each block followed by how it is compressed and the masked CRC-32C of both; a last block that lists
the others; a footer that says where that one is. TensorFlow never compresses this table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from modelkeep.errors import IntegrityError, LimitExceeded, UnsafeContent
from modelkeep.formats.crc32c import crc32c, masked

MAX_KEY = 4096  # bytes

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER = 48  # bytes
_TRAILER = struct.Struct("<BI")  # how a block is compressed, its checksum


def is_table(tail: bytes) -> bool:
    """Whether a file that ends with these bytes is such a table."""
    return tail.endswith(_MAGIC)


def entries(table: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Every key with its value, in the order of the keys.

    Checksums are compared where a library for them is installed. Raises IntegrityError where the bytes are no
    such table, UnsafeContent where blocks are compressed, LimitExceeded for a key beyond ``MAX_KEY``.
    """
    if len(table) < _FOOTER or not is_table(bytes(table[-8:])):
        raise IntegrityError("no sorted table: it does not end as one", hint="the file may be cut short")
    footer = table[len(table) - _FOOTER :]
    statistics, at = _handle(footer, 0)
    index, at = _handle(footer, at)
    if any(footer[at : _FOOTER - len(_MAGIC)]):
        raise IntegrityError("no sorted table: its footer is not filled with zeros")
    _block(table, *statistics)
    last, blocks = None, _block(table, *index)
    end = 0
    for _, value in _entries(blocks):
        (offset, size), _ = _handle(value, 0)
        # Blocks in order and apart: no byte is read twice, however many blocks are claimed.
        if offset < end:
            raise IntegrityError("no sorted table: its blocks overlap", found=f"one at byte {offset:,}")
        end = offset + size
        for key, inner in _entries(_block(table, offset, size)):
            if last is not None and key <= last:
                raise IntegrityError("no sorted table: its keys are out of order", found=repr(key[:80]))
            last = key
            yield key, inner


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The unsigned number at a place, and where it ends. Raises IntegrityError."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise IntegrityError("no sorted table: a number is cut short")


def _handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block(table: memoryview, offset: int, size: int) -> memoryview:
    if offset + size + _TRAILER.size > len(table) - _FOOTER:
        raise IntegrityError("no sorted table: a block lies outside it", found=f"{size:,} bytes at byte {offset:,}")
    compression, checksum = _TRAILER.unpack_from(table, offset + size)
    if compression:
        raise UnsafeContent("a sorted table has compressed blocks, which TensorFlow never writes", found=compression)
    found = crc32c(bytes(table[offset : offset + size + 1]))
    if found is not None and masked(found) != checksum:
        raise IntegrityError(f"the table is damaged: its block at byte {offset:,} has another CRC-32C")
    return table[offset : offset + size]


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    if len(block) < 4:
        raise IntegrityError("no sorted table: a block is cut short")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise IntegrityError("no sorted table: a block is cut short")
    key, at = b"", 0
    while at < end:
        shared, at = varint(block, at)
        rest, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or at + rest + size > end:
            raise IntegrityError("no sorted table: an entry lies outside its block")
        if shared + rest > MAX_KEY:
            raise LimitExceeded("the name of a tensor is too long", found=shared + rest, expected=f"at most {MAX_KEY}")
        key = key[:shared] + bytes(block[at : at + rest])
        at += rest
        yield key, block[at : at + size]
        at += size
