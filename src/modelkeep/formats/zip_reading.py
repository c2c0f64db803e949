"""Zip files that others wrote, each member held against the directory that :mod:`.zip_directory` reads.

A zip file says most things twice: in a header before each member and in a directory at the end. Programs
differ in which they believe, so a file that says two things can be one to a scanner and another to the
program that loads it. Here the directory is believed, and every place where a file could be taken in another
way is a problem: headers that differ from it, gaps and overlaps, a second end, names that are one file. Keras
writes members stored, Python's zipfile in general stored or deflated; nothing else is read.
"""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO

from modelkeep.errors import IntegrityError, LimitExceeded, StorageError, UnsafeContent
from modelkeep.formats.contents import Problem
from modelkeep.formats.limits import DEFAULT, MIB, Limits
from modelkeep.formats.member_names import clashes, fault_of
from modelkeep.formats.streams import ByteRange, fill, open_regular, some
from modelkeep.formats.zip_directory import (
    DEFLATED,
    DESCRIPTOR,
    EFFORT,
    LARGE,
    STORED,
    UTF8,
    ZIP64,
    End,
    Entry,
    entries,
    extra_fields,
    find_end,
)

_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
_UNICODE_PATH = 0x7075  # extra field, 4.6.9
_SPECIAL = {  # and nothing else: old tools write modes of no kind for folders
    stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
_CHUNK = MIB  # bytes read at a time
_DIRECTORY_FOR_NAMES = 8 * MIB  # bytes of a directory that are looked at to tell what kind of zip it is


class ZipArchive:
    """An open zip whose directory and headers were read. Made by :func:`open_zip`."""

    def __init__(self, file: int, size: int, limits: Limits) -> None:
        """Raises IntegrityError, LimitExceeded."""
        self.problems: list[Problem] = []
        self._file, self._limits = file, limits
        self._closing = ExitStack()
        end = find_end(file, size, self.problems)
        limits.check("members", end.count, "the zip has too many members")
        limits.check("config", end.size, "the directory of the zip is too large")
        listed = list(entries(file, end, self.problems))
        self._starts = {entry.header: self._check_record(entry, end.start) for entry in listed}
        self._check_layout(listed, end)
        self._check_names(listed)
        self._check_sizes(listed, size)
        self.entries = {entry.name: entry for entry in listed if not entry.is_folder}
        self.sizes = {name: entry.size for name, entry in self.entries.items()}  # bytes, unpacked

    def read(self, name: str) -> bytes:
        """All bytes of a file, checked; whoever asks has looked at its size. Raises as :meth:`chunks`."""
        return b"".join(map(bytes, self.chunks(name)))

    def head(self, name: str, length: int) -> bytes:
        """The first bytes of a file; nothing where they cannot be read."""
        entry = self.entries[name]
        start, _ = self._starts[entry.header]
        packed = some(self._file, min(entry.packed, max(length, 512)), start)
        if entry.fault:
            return b""
        if entry.method == STORED:
            return packed[:length]
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, length)
        except zlib.error:
            return b""

    def chunks(self, name: str) -> Iterator[memoryview]:
        """The bytes of a file, at most 1 MiB at a time, each only until the next is asked for.

        Raises UnsafeContent for one that is encrypted or packed in an unknown way; IntegrityError, at the end,
        where size or CRC-32 are not those of the directory; StorageError.
        """
        entry = self.entries[name]
        if entry.fault:
            raise UnsafeContent(f"{name} cannot be read: {entry.fault}")
        size, crc = 0, 0
        for chunk in self._inflated(entry) if entry.method == DEFLATED else self._stored(entry):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
            if size > entry.size:
                break
            yield chunk
        if size != entry.size:
            found = f"more than {entry.size:,} bytes" if size > entry.size else f"{size:,} bytes"
            raise IntegrityError(
                f"{name} is not as long as the zip says", found=found, expected=f"{entry.size:,} bytes"
            )
        if crc != entry.crc:
            raise IntegrityError(
                f"{name} is damaged",
                found=f"CRC-32 {crc:08x}",
                expected=f"{entry.crc:08x}",
                hint="get the file again: some of its bytes have changed",
            )

    def seekable(self, name: str) -> IO[bytes] | ByteRange:
        """A file to be read in any order, until the zip is closed: where it lies, or unpacked if it is deflated."""
        entry = self.entries[name]
        if entry.method == STORED and not entry.fault:
            return ByteRange(self._file, self._starts[entry.header][0], entry.size)
        unpacked = self._closing.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the zip
        try:
            for chunk in self.chunks(name):
                unpacked.write(chunk)
        except OSError as error:
            raise StorageError(f"cannot unpack {name}: {error.strerror}", hint="free some space in TMPDIR") from error
        unpacked.seek(0)
        return unpacked

    def mode(self, name: str) -> int:
        """The Unix mode of a file; 0 where another system wrote it."""
        return self.entries[name].mode

    def close(self) -> None:
        """Let go of what was unpacked; the file is its opener's."""
        self._closing.close()

    # --- bytes of a member

    def _stored(self, entry: Entry) -> Iterator[memoryview]:
        start, _ = self._starts[entry.header]
        buffer = memoryview(bytearray(min(_CHUNK, entry.packed)))
        for at in range(0, entry.packed, _CHUNK):
            chunk = buffer[: entry.packed - at]
            fill(self._file, chunk, start + at)
            yield chunk

    def _inflated(self, entry: Entry) -> Iterator[memoryview]:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for packed in self._stored(entry):
                rest: bytes | memoryview = packed
                while len(rest) and not stream.eof:
                    yield memoryview(stream.decompress(rest, _CHUNK))
                    rest = stream.unconsumed_tail
                if stream.eof:
                    break
            while not stream.eof and (left := stream.decompress(stream.unconsumed_tail, _CHUNK)):
                yield memoryview(left)
        except zlib.error as error:
            raise IntegrityError(f"{entry.name} is damaged", found=str(error)) from error
        if not stream.eof or stream.unused_data:
            raise IntegrityError(f"{entry.name} is damaged", found="packed data that end elsewhere than the zip says")

    # --- what the zip says twice

    def _add(self, rule: str, message: str, place: str = "") -> None:
        self.problems.append(Problem(rule, message, place))

    def _check_record(self, entry: Entry, directory: int) -> tuple[int, int]:
        """Where a member's data begin and its record ends; its header must say what the directory says."""
        header = some(self._file, _LOCAL.size, entry.header)
        if len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
            raise IntegrityError(f"the zip is damaged: no header of {entry.name!r} at byte {entry.header:,}")
        _, _, flags, method, _, _, *numbers, name_length, extra_length = _LOCAL.unpack(header)
        start = entry.header + _LOCAL.size + name_length + extra_length
        if start + entry.packed > directory:
            raise IntegrityError(
                f"the zip is damaged or cut short: {entry.name!r} runs into the directory",
                found=f"data up to byte {start + entry.packed:,}",
                expected=f"at most {directory:,}",
            )
        rest = some(self._file, name_length + extra_length, entry.header + _LOCAL.size)
        said = {
            "name": (rest[:name_length], entry.raw_name),
            "method": (method, entry.method),
            "flags": (flags & ~EFFORT, entry.flags & ~EFFORT),
            "CRC and sizes": (_numbers(entry, numbers, rest[name_length:]), (entry.crc, entry.packed, entry.size)),
        }
        for what, (here, there) in said.items():
            if here != there:
                self._add("zip-mismatch", f"another {what} in its header than in the directory: {here!r}", entry.name)
        return start, self._end_of_record(entry, start + entry.packed)

    def _end_of_record(self, entry: Entry, at: int) -> int:
        """Where the data descriptor (4.3.9) ends that stands behind a member's data, if one does."""
        if not entry.flags & DESCRIPTOR:
            return at
        found = some(self._file, 24, at)
        for mark in (b"PK\x07\x08", b""):
            for layout in ("<3L", "<L2Q"):
                try:
                    expected = mark + struct.pack(layout, entry.crc, entry.packed, entry.size)
                except struct.error:  # larger than this layout holds
                    continue
                if found.startswith(expected):
                    return at + len(expected)
        self._add("zip-mismatch", "what stands behind its data is not what the directory says", entry.name)
        return at

    def _check_layout(self, listed: list[Entry], end: End) -> None:
        """One record after the other from the first byte, then the directory."""
        spans = sorted((entry.header, self._starts[entry.header][1], entry.name) for entry in listed)
        first = spans[0][0] if spans else end.start
        if first:
            self._add("zip-prefix", f"{first:,} bytes stand before the first member: the file is also something else")
        for (_, stop, name), (begin, _, following) in pairwise([*spans, (end.start, end.start, "the directory")]):
            if begin < stop:
                self._add("zip-overlap", f"{name!r} and {following!r} share bytes", name)
            elif begin > stop:
                self._add("zip-gap", f"{begin - stop:,} bytes behind {name!r} belong to no member", name)

    def _check_names(self, listed: list[Entry]) -> None:
        for entry in listed:
            if fault := fault_of(entry.name, self._limits):
                self._add("zip-path", f"the name {entry.name[:200]!r} is no plain path: {fault}", entry.name)
            if entry.is_folder and entry.size:
                self._add("zip-mismatch", f"a folder of {entry.size:,} bytes", entry.name)
            if what := _SPECIAL.get(stat.S_IFMT(entry.mode)):
                self._add("zip-special-file", f"{entry.name!r} is {what}", entry.name)
            if entry.fault:
                self._add("zip-unreadable", f"{entry.name!r} cannot be read: {entry.fault}", entry.name)
            self._check_name_is_one(entry)
        for one, other, everywhere in clashes(entry.name for entry in listed if not entry.is_folder):
            rule = "zip-duplicate-name" if everywhere else "zip-similar-name"
            self._add(rule, f"{one!r} and {other!r} are one file to some programs", other)

    def _check_name_is_one(self, entry: Entry) -> None:
        also = entry.extra.get(_UNICODE_PATH, b"")[5:]  # behind its version and the CRC of the name
        if also and also.rstrip(b"/").decode(errors="replace") != entry.name and entry.raw_name.isascii():
            self._add("zip-name-encoding", f"{entry.name!r} is also called {also[:200]!r}", entry.name)
        elif not entry.raw_name.isascii() and not entry.flags & UTF8:
            self._add("zip-name-encoding", f"the name {entry.name!r} does not say how it is encoded", entry.name)

    def _check_sizes(self, listed: list[Entry], size: int) -> None:
        floor, ratio = self._limits.expansion_floor, self._limits.expansion_ratio
        for entry in listed:
            if entry.size > floor and entry.size > ratio * entry.packed:
                raise _bomb(entry.name, entry.size, entry.packed, ratio)
            if entry.method == STORED and entry.size != entry.packed:
                self._add("zip-mismatch", f"{entry.packed:,} bytes are stored and {entry.size:,} said", entry.name)
        total = sum(entry.size for entry in listed)
        self._limits.check("file", total, "the zip unpacks to too much")
        if total > floor and total > ratio * size:
            raise _bomb("the zip", total, size, ratio)


@contextmanager
def open_zip(path: Path, limits: Limits = DEFAULT) -> Iterator[ZipArchive]:
    """Read the directory and every header of a zip; its members can be read until the block ends.

    Raises NotFound, StorageError; IntegrityError where no directory or header can be read; LimitExceeded.
    All else that is odd is among its ``problems``.
    """
    file = open_regular(path)
    try:
        archive = ZipArchive(file, os.fstat(file).st_size, limits)
        try:
            yield archive
        finally:
            archive.close()
    finally:
        os.close(file)


def names_in(path: Path) -> frozenset[str]:
    """What the directory of a zip names, unchecked; nothing for any other file. Raises NotFound, StorageError.

    A zip is one by its end; but where another file begins, only one that ends the file: a tar may hold one.
    """
    file = open_regular(path)
    try:
        odd: list[Problem] = []
        end = find_end(file, os.fstat(file).st_size, odd)
        is_inside = some(file, 2, 0) != b"PK" and any(problem.rule == "zip-trailing" for problem in odd)
        if is_inside or end.size > _DIRECTORY_FOR_NAMES or end.count > DEFAULT.members:
            return frozenset()
        return frozenset(entry.name for entry in entries(file, end, []))
    except (IntegrityError, LimitExceeded):
        return frozenset()
    finally:
        os.close(file)


def _numbers(entry: Entry, numbers: list[int], extra: bytes) -> tuple[int, int, int]:
    """CRC, packed and unpacked size by a header; by the directory where they are left to what follows the data."""
    crc, packed, size = numbers
    if entry.flags & DESCRIPTOR and crc == 0 and {packed, size} <= {0, LARGE}:
        return entry.crc, entry.packed, entry.size
    large = extra_fields(extra).get(ZIP64, b"")
    if LARGE in (packed, size) and len(large) >= 16:
        size, packed = struct.unpack_from("<2Q", large)
    return crc, packed, size


def _bomb(what: str, size: int, packed: int, ratio: int) -> LimitExceeded:
    return LimitExceeded(
        f"{what} unpacks to suspiciously much",
        found=f"{packed:,} bytes that become {size:,}",
        expected=f"at most {ratio} times as many",
        hint="where the file can be trusted, raise the limit 'expansion_ratio'",
    )
