"""How an HDF5 file begins, told before the HDF5 library sees it.

The superblock stands at byte 0, or, after a user block, at 512, 1024, 2048 and so on. Fields as in section
II.A of the HDF5 File Format Specification, versions 0 to 3.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import IO

from modelkeep.errors import IntegrityError
from modelkeep.formats.contents import Problem

Stream = io.RawIOBase | io.BufferedIOBase | IO[bytes]  # that can be sought, and read into memory

MAGIC = b"\x89HDF\r\n\x1a\n"

_FIRST = 512  # bytes of the smallest user block
_LENGTH = 60  # bytes, up to the last field that is looked at
_UNDEFINED = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Superblock:
    """Where the parts of an HDF5 file lie. Addresses are bytes from its start; ``None`` means undefined."""

    start: int
    version: int
    base: int | None
    end: int | None
    extension: int | None = None
    driver: int | None = None


def find(stream: Stream, size: int) -> int | None:
    """Where the superblock stands, or None where there is none: so many bytes are a user block."""
    start = 0
    while start + len(MAGIC) <= size:
        stream.seek(start)
        if stream.read(len(MAGIC)) == MAGIC:
            return start
        start = start * 2 or _FIRST
    return None


def read(stream: Stream, size: int, name: str) -> Superblock:
    """The superblock of a stream of ``size`` bytes. Raises IntegrityError where it is none or cut short."""
    start = find(stream, size)
    if start is None:
        raise IntegrityError(f"{name} is no HDF5 file: its signature is missing")
    stream.seek(start)
    head = stream.read(_LENGTH) or b""
    block = _parsed(start, head, name)
    if block.end is not None and block.end > size:
        raise IntegrityError(
            f"{name} is cut short",
            found=f"{size:,} bytes",
            expected=f"{block.end:,}",
            hint="it was not written to its end, or not copied to its end: get it again",
        )
    return block


def problems(block: Superblock, size: int, place: str) -> list[Problem]:
    """What no writer of models does at the start or the end of its files."""
    found = []
    if block.start:
        found.append(Problem("hdf5-user-block", f"{block.start:,} bytes stand before the HDF5 file", place))
    if block.base != block.start:
        found.append(Problem("hdf5-superblock", f"its addresses count from byte {block.base}", place))
    if block.driver is not None:
        found.append(Problem("hdf5-superblock", "it asks for a driver that spreads its data over files", place))
    if block.extension is not None:
        found.append(Problem("hdf5-extension", "its superblock has an extension", place))
    if block.end is None:
        found.append(Problem("hdf5-superblock", "it does not say where it ends", place))
    elif block.end < size:
        found.append(Problem("hdf5-trailing-data", f"{size - block.end:,} bytes stand after the HDF5 file", place))
    return found


def _parsed(start: int, head: bytes, name: str) -> Superblock:
    version = head[8] if len(head) == _LENGTH else None
    if version in (0, 1):
        _check_widths(head[13:15], name)
        base, _, end, driver = _addresses(head, 24 if version == 0 else 28, 4)
        return Superblock(start, version, base, end, driver=driver)
    if version in (2, 3):
        _check_widths(head[9:11], name)
        base, extension, end = _addresses(head, 12, 3)
        return Superblock(start, version, base, end, extension=extension)
    raise IntegrityError(f"{name} has a damaged superblock", found=f"version {version}", expected="0 to 3")


def _check_widths(widths: bytes, name: str) -> None:
    if widths != b"\x08\x08":
        raise IntegrityError(
            f"{name} has a damaged superblock",
            found=f"addresses and lengths of {widths[0]} and {widths[1]} bytes",
            expected="of 8, as every writer of models makes them",
        )


def _addresses(head: bytes, at: int, count: int) -> list[int | None]:
    numbers = struct.unpack_from(f"<{count}Q", head, at)
    return [None if number == _UNDEFINED else number for number in numbers]
