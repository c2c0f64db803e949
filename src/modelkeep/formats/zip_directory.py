"""The directory at the end of a zip that others wrote, by our own reading of PKWARE's APPNOTE 6.3.10.

https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from modelkeep.errors import IntegrityError
from modelkeep.formats.contents import Problem
from modelkeep.formats.streams import fill, some

STORED, DEFLATED = 0, 8  # methods
ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # flags
DESCRIPTOR = 0x0008  # sizes and CRC follow the data: the writer could not seek
UTF8 = 0x0800
EFFORT = 0x0006  # how hard deflate tried
LARGE = 0xFFFFFFFF  # in the place of a number that ZIP64 holds
ZIP64 = 0x0001  # extra field, 4.5.3
_MANY = 0xFFFF
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12
_END = struct.Struct("<4s4H2LH")  # 4.3.16
_END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
_LONGEST_COMMENT = 0xFFFF
_UNIX_HOSTS = (3, 19)  # whose attributes hold a mode
_NEWEST = 63  # version of the format, times ten


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a zip, as the directory has it."""

    name: str
    raw_name: bytes
    size: int  # bytes, unpacked
    packed: int
    crc: int
    needs: int  # the version of the format, times ten
    method: int
    flags: int
    mode: int  # of Unix; 0 where another system wrote it
    header: int  # where its local header begins
    extra: dict[int, bytes]

    @property
    def is_folder(self) -> bool:
        """Whether it stands for a folder."""
        return self.raw_name.endswith(b"/")

    @property
    def fault(self) -> str | None:
        """Why its bytes cannot be read."""
        if self.flags & ENCRYPTED:
            return "it is encrypted"
        if self.flags & ~(EFFORT | DESCRIPTOR | UTF8):
            return f"its flags are {self.flags:#06x}, which no model's writer sets"
        if self.method not in (STORED, DEFLATED):
            return f"it is packed by method {self.method}, which no model's writer uses"
        if self.needs & 0xFF > _NEWEST:
            return f"it needs version {(self.needs & 0xFF) / 10} of the format, which there is not"
        return None


@dataclass(frozen=True, slots=True)
class End:
    """What stands at the end of a zip: where the directory is, and how many entries it has."""

    count: int
    start: int  # of the directory
    size: int
    shift: int  # bytes before the first header that the offsets do not count


def find_end(file: int, size: int, problems: list[Problem]) -> End:
    """Where the directory of a file of ``size`` bytes is, by the last end that fits; what is odd is added.

    Raises IntegrityError where there is none, or the zip is one part of several, StorageError.
    """
    begin = max(0, size - _END.size - _LONGEST_COMMENT)
    tail = some(file, size - begin, begin)
    places = [match.start() for match in re.finditer(b"PK\x05\x06", tail) if match.start() + _END.size <= len(tail)]
    if not places:
        raise IntegrityError("the zip has no end: it is cut short, or no zip at all")
    fitting = [at for at in places if at + _END.size + _comment_length(tail, at) == len(tail)]
    at = (fitting or places)[-1]
    if not fitting:
        behind = len(tail) - at - _END.size - _comment_length(tail, at)
        problems.append(
            Problem("zip-trailing", f"{abs(behind):,} bytes {'behind' if behind > 0 else 'too few at'} its end")
        )
    elif _comment_length(tail, at):
        problems.append(Problem("zip-comment", f"a comment of {_comment_length(tail, at):,} bytes"))
    end = _end_at(file, tail, at, begin, problems)
    if len(fitting) > 1 or [other for other in places if begin + other >= end.start and other != at]:
        problems.append(Problem("zip-two-ends", "it ends twice: programs differ in which directory they take"))
    return end


def _comment_length(tail: bytes, at: int) -> int:
    length: int = _END.unpack_from(tail, at)[-1]
    return length


def _end_at(file: int, tail: bytes, at: int, begin: int, problems: list[Problem]) -> End:
    _, *numbers, _ = _END.unpack_from(tail, at)
    stop, located = begin + at, None
    locator = some(file, _LOCATOR.size, stop - _LOCATOR.size) if stop >= _LOCATOR.size + _END64.size else b""
    if locator.startswith(b"PK\x06\x07"):
        _, its_disk, located, disks = _LOCATOR.unpack(locator)
        stop -= _LOCATOR.size + _END64.size
        record = some(file, _END64.size, stop)
        if not record.startswith(b"PK\x06\x06"):
            raise IntegrityError(f"the zip is damaged: no ZIP64 end at byte {stop:,}")
        _, length, _, _, *long = _END64.unpack(record)
        agree = all(a == b or a in (_MANY, LARGE) for a, b in zip(numbers, long, strict=True))
        if not agree or length != _END64.size - 12 or its_disk != 0 or disks > 1:
            problems.append(Problem("zip-mismatch", "its two ends, for 32 and for 64 bits, say different things"))
        numbers = long
    disk, first_disk, here, count, size, start = numbers
    if (disk, first_disk) != (0, 0) or here != count:
        raise IntegrityError("the zip is one part of several", hint="join the parts first")
    shift = stop - size - start
    if shift < 0:
        raise IntegrityError(
            "the zip is damaged or cut short", found=f"a directory up to byte {start + size:,}", expected=f"{stop:,}"
        )
    if located not in (None, stop - shift):
        problems.append(Problem("zip-mismatch", f"its end for 64 bits is not at byte {located:,}, as it says"))
    return End(count, stop - size, size, shift)


def entries(file: int, end: End, problems: list[Problem]) -> Iterator[Entry]:
    """Every entry of the directory, in its order; what is odd is added.

    Whoever asks has looked at the directory's size. Raises IntegrityError where it is none, StorageError.
    """
    data = bytearray(end.size)
    fill(file, data, end.start)
    at = 0
    for _ in range(end.count):
        try:
            entry, at = _entry(data, at, end.shift)
        except struct.error:
            raise IntegrityError(
                f"the zip is damaged: its directory ends within an entry, at byte {end.start + at:,}"
            ) from None
        if entry.header >= end.start:
            raise IntegrityError(f"the zip is damaged: {entry.name!r} lies behind the directory")
        yield entry
    if at != end.size:
        problems.append(
            Problem("zip-mismatch", f"its directory has {end.size - at:,} bytes beyond its {end.count:,} entries")
        )


def _entry(data: bytearray, at: int, shift: int) -> tuple[Entry, int]:
    """The entry that begins at a place of the directory, and where it ends. Raises struct.error, IntegrityError."""
    fields = _CENTRAL.unpack_from(data, at)
    mark, by, needs, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length = fields[:13]
    *_, attributes, header = fields
    if mark != b"PK\x01\x02":
        raise IntegrityError("the zip is damaged: its directory is none")
    name_at = at + _CENTRAL.size
    raw_name = bytes(data[name_at : name_at + name_length])
    extra = extra_fields(bytes(data[name_at + name_length : name_at + name_length + extra_length]))
    stop = name_at + name_length + extra_length + comment_length
    if stop > len(data):
        raise struct.error
    size, packed, header = _as_64(extra, size, packed, header)
    mode = attributes >> 16 if by >> 8 in _UNIX_HOSTS else 0
    name = _decoded(raw_name).rstrip("/") or "/"
    return Entry(name, raw_name, size, packed, crc, needs, method, flags, mode, header + shift, extra), stop


def _as_64(extra: dict[int, bytes], *numbers: int) -> tuple[int, ...]:
    """Each number, out of the ZIP64 field where it is too large for its own: in this order (4.5.3)."""
    large = extra.get(ZIP64, b"")
    many = sum(number == LARGE for number in numbers)
    values = iter(struct.unpack_from(f"<{many}Q", large) if len(large) >= 8 * many else (LARGE,) * many)
    return tuple(next(values) if number == LARGE else number for number in numbers)


def extra_fields(data: bytes) -> dict[int, bytes]:
    """The extra fields (4.5.1) by their number; the first of each, and none that is cut off."""
    fields: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        number, length = struct.unpack_from("<2H", data, at)
        if at + 4 + length > len(data):
            break
        fields.setdefault(number, data[at + 4 : at + 4 + length])
        at += 4 + length
    return fields


def _decoded(name: bytes) -> str:
    # Without the flag it would be code page 437 (D.1), but every system of today writes UTF-8.
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437")
