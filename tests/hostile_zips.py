"""Zip files that no honest program writes, made from an honest one byte by byte."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def honest(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, **info: int) -> bytes:
    """As Python's zipfile writes it; ``info`` sets fields of each member's ZipInfo."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = method
            for field, value in info.items():
                setattr(entry, field, value)
            archive.writestr(entry, data)
    return buffer.getvalue()


def streamed(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """As a program writes it that cannot seek: sizes and CRC behind the data."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:
            self.data += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return bytes(pipe.data)


def patched(data: bytes, mark: bytes, at: int, layout: str, value: int, *, which: int = 0) -> bytes:
    """With one number changed: ``at`` bytes behind the start of the record that begins with ``mark``."""
    place = -1
    for _ in range(which + 1):
        place = data.index(mark, place + 1)
    changed = bytearray(data)
    struct.pack_into(layout, changed, place + at, value)
    return bytes(changed)


def twice(members: Mapping[str, bytes], name: str, other: bytes) -> bytes:
    """With a second member of one name."""
    stand_in = "\x01" * len(name)
    data = honest({**members, stand_in: other})
    return data.replace(stand_in.encode(), name.encode())


def overlapping(count: int, size: int) -> bytes:
    """Many names for the same packed zeros."""
    one = honest({"0000": bytes(size)}, zipfile.ZIP_DEFLATED)
    directory = one.index(CENTRAL)
    entry = one[directory : one.index(END)]
    entries = b"".join(entry.replace(b"0000", f"{index:04}".encode()) for index in range(count))
    end = struct.pack("<4s4H2LH", END, 0, 0, count, count, len(entries), directory, 0)
    return one[:directory] + entries + end


def with_two_ends(members: Mapping[str, bytes], other: Mapping[str, bytes]) -> bytes:
    """One zip to whoever takes the first end, whose comment is another zip to whoever takes the last."""
    first, second = honest(members), honest(other)
    first = patched(first, END, 20, "<H", len(second))
    start = second.index(CENTRAL)
    for which in range(len(other)):
        second = patched(second, CENTRAL, 42, "<L", len(first), which=which)
    return first + patched(second, END, 16, "<L", len(first) + start)


def with_a_longer_name(members: Mapping[str, bytes]) -> bytes:
    """The last member goes on in its header where its name ends in the directory."""
    *_, last = members
    data = honest({**members, last: b"xyz"}).replace(b"xyz", b"", 1)
    header = data.rindex(LOCAL)
    data = data[: header + 30 + len(last)] + b".py" + data[header + 30 + len(last) :]
    changed = bytearray(data)
    struct.pack_into("<H", changed, header + 26, len(last) + 3)
    for mark, at in ((LOCAL, 14), (CENTRAL, 16)):
        struct.pack_into("<3L", changed, data.rindex(mark) + at, 0, 0, 0)
    return bytes(changed)
