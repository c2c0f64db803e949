"""The bytes of a zip file whose members are stored as they are, in one possible way.

The format is that of PKWARE's APPNOTE 6.3.10 (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT),
with ZIP64 (4.3.14, 4.5.3) only where a number needs it, so any zip tool reads it. Nothing is left to
choice: no compression, no time, no comment, ASCII names, members one after the other, and data that
begin at a multiple of 64 bytes, by the padding extra field 0xD935 that Android's zipalign uses. So the
same members always give the same file, and a reader that expects exactly these bytes leaves no room
for a gap, an overlap, a second member of a name, or a directory that says other than the headers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from modelkeep.errors import IntegrityError
from modelkeep.manifest import ALIGNMENT

HEADER = 30  # bytes of a local header before its name and extra field
_LARGE = 0xFFFFFFFF  # in the place of a number that ZIP64 holds
_MANY = 0xFFFF
_PADDING = 0xD935
_ZIP64 = 0x0001
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_MIDNIGHT, _1980 = 0, 0x21  # MS-DOS time and date: 1 January 1980, the earliest there is
_UNIX = 3 << 8
_REGULAR_FILE = 0o100644 << 16


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a zip: its name (ASCII), bytes, CRC-32, and where its header begins."""

    name: str
    size: int
    crc: int
    offset: int

    @property
    def data_offset(self) -> int:
        """Where its bytes begin: a multiple of 64."""
        return self.offset + len(local_header(self))

    @property
    def end(self) -> int:
        """Where the next header begins."""
        return self.data_offset + self.size


def local_header(member: Member) -> bytes:
    """What stands before a member's data (APPNOTE 4.3.7)."""
    name = member.name.encode("ascii")
    large = member.size >= _LARGE
    extra = struct.pack("<2H2Q", _ZIP64, 16, member.size, member.size) if large else b""
    padding = -(member.offset + HEADER + len(name) + len(extra) + 6) % ALIGNMENT
    extra += struct.pack("<3H", _PADDING, 2 + padding, ALIGNMENT) + bytes(padding)
    size = _LARGE if large else member.size
    needed = 45 if large else 20
    fields = (needed, 0, 0, _MIDNIGHT, _1980, member.crc, size, size, len(name), len(extra))
    return _LOCAL.pack(b"PK\x03\x04", *fields) + name + extra


def directory(members: Sequence[Member]) -> bytes:
    """What stands after the last member's data: the central directory and its end records (4.3.12 to 4.3.16)."""
    start = members[-1].end
    entries = b"".join(map(_central_header, members))
    count, size = len(members), len(entries)
    end = _END.pack(b"PK\x05\x06", 0, 0, *[min(count, _MANY)] * 2, min(size, _LARGE), min(start, _LARGE), 0)
    if count < _MANY and size < _LARGE and start < _LARGE:
        return entries + end
    end64 = _END64.pack(b"PK\x06\x06", _END64.size - 12, _UNIX | 45, 45, 0, 0, count, count, size, start)
    return entries + end64 + _LOCATOR.pack(b"PK\x06\x07", 0, start + size, 1) + end


def _central_header(member: Member) -> bytes:
    name = member.name.encode("ascii")
    sizes, offset = (
        [member.size] * 2 if member.size >= _LARGE else [],
        [member.offset] if member.offset >= _LARGE else [],
    )
    large = [*sizes, *offset]
    extra = struct.pack(f"<2H{len(large)}Q", _ZIP64, 8 * len(large), *large) if large else b""
    needed = 45 if large else 20
    size = min(member.size, _LARGE)
    fields = (_UNIX | needed, needed, 0, 0, _MIDNIGHT, _1980, member.crc, size, size, len(name), len(extra), 0, 0, 0)
    return _CENTRAL.pack(b"PK\x01\x02", *fields, _REGULAR_FILE, min(member.offset, _LARGE)) + name + extra


def read_header(data: bytes, offset: int) -> Member:
    """The member whose local header ``data`` begins with; ``offset`` is where that is in the file.

    ``data`` may go on behind the header. Raises IntegrityError unless every byte is as
    :func:`local_header` writes it.
    """
    try:
        *_, crc, size, _, name_length, _ = _LOCAL.unpack_from(data)
        name = data[HEADER : HEADER + name_length].decode("ascii")
        if size == _LARGE:
            (size,) = struct.unpack_from("<Q", data, HEADER + name_length + 4)
        member = Member(name, size, crc, offset)
        if data.startswith(local_header(member)):
            return member
    except (struct.error, UnicodeDecodeError):
        pass
    raise IntegrityError(f"no proper zip header at byte {offset:,}")
