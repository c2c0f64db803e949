"""Tar files that others wrote, read once from beginning to end: regular files and folders, and nothing else.

The formats are POSIX' ustar and pax
(https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html) and GNU's
(https://www.gnu.org/software/tar/manual/html_node/Standard.html). Links, devices and sparse files are problems,
and are passed over: a link is how an archive reaches what lies outside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelkeep.errors import IntegrityError
from modelkeep.formats.contents import Problem
from modelkeep.formats.limits import MIB, Limits
from modelkeep.formats.streams import Chunks

BLOCK = 512  # bytes
_CHUNK = MIB  # bytes read at a time
_FILES, _FOLDER = (b"0", b"\0", b"7"), b"5"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_FOR_ALL = b"L", b"K", b"x", b"g"
_SPARSE = b"S"
_POSIX = b"ustar\0"  # in a header whose name may have a prefix
_SPECIAL = {b"1": "a hard link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_FROM_HERE_ON = 8**11  # bytes: a size that the header has no room for
_MEANING = ("path", "size", "linkpath")  # of pax records: what changes an entry


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder in a tar."""

    name: str
    size: int
    is_folder: bool


class TarStream:
    """The entries of a tar, each with its bytes, in the order in which they come."""

    def __init__(self, stream: Chunks, limits: Limits) -> None:
        self.problems: list[Problem] = []
        self._stream, self._limits = stream, limits
        self._left = 0  # bytes of the present entry that were not read, and those that fill its last block

    def __iter__(self) -> Iterator[tuple[Entry, Iterator[memoryview]]]:
        """Each entry with its bytes, which are there until the next one is asked for.

        Raises IntegrityError where the tar is damaged or cut short, LimitExceeded.
        """
        count, total = 0, 0
        told: dict[str, str] = {}  # of the entry that follows: what its own header has no room for
        while not is_end(block := self._block()):
            count += 1
            self._limits.check("members", count, "the tar has too many members")
            name, size, kind = parsed(block)
            if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_FOR_ALL):
                more = self._told(kind, self._whole(size))
                if more.keys() & told.keys():
                    self._add("tar-ambiguous", "two records tell different things of one member")
                told |= more
                continue
            self._check_one_reading(block, name, size, kind, told)
            name, size, sparse = told.get("path", name), self._size(told, size), self._is_sparse(told, kind)
            told = {}
            total += size
            self._limits.check("file", total, "the tar unpacks to too much")
            data = self._data(size)
            if sparse or kind not in (*_FILES, _FOLDER):
                self._add_special(name, kind, sparse)
            else:
                is_folder = kind == _FOLDER or (kind == b"\0" and name.endswith("/"))
                yield Entry(name.removesuffix("/"), size, is_folder), data
            for _ in data:  # what nobody read
                pass
        self._check_rest()

    def _add(self, rule: str, message: str, place: str = "") -> None:
        self.problems.append(Problem(rule, message, place))

    def _add_special(self, name: str, kind: bytes, sparse: bool) -> None:
        if sparse:
            self._add("tar-sparse", f"{name!r} is a sparse file", name)
        elif kind in _SPECIAL:
            self._add("tar-special-file", f"{name!r} is {_SPECIAL[kind]}", name)
        else:
            self._add("tar-unknown", f"{name!r} is of a kind that is not known: {kind!r}", name)

    # --- what the next entry is told by the one before it

    def _told(self, kind: bytes, data: bytes) -> dict[str, str]:
        if kind == _LONG_LINK:
            return {}
        if kind == _LONG_NAME:
            return {"path": _text(data)}
        records = dict(_pax_records(data))
        if kind == _PAX:
            return records
        for key in records:
            if key in _MEANING or key.startswith("GNU.sparse"):
                self._add("tar-override", f"a record changes the {key} of every member that follows")
        return {}

    def _check_one_reading(self, block: bytes, name: str, size: int, kind: bytes, told: dict[str, str]) -> None:
        """Tell what some programs heed and others do not."""
        recorded = self._size(told, size)
        if size != recorded and (size or recorded < _FROM_HERE_ON):
            self._add("tar-ambiguous", f"{name!r} has {size:,} bytes by its header, {recorded:,} by a record", name)
        if kind == _FOLDER and size:
            self._add("tar-ambiguous", f"a folder of {size:,} bytes", name)
        if block[257:263] != _POSIX and block[345:500].strip(b"\0"):
            self._add("tar-ambiguous", f"{name!r} has a prefix that not every program heeds", name)

    def _size(self, told: dict[str, str], size: int) -> int:
        if "size" not in told:
            return size
        if not (told["size"].isascii() and told["size"].isdigit() and len(told["size"]) < 20):
            raise IntegrityError("the tar is damaged", found=f"a size of {told['size'][:40]!r}")
        return int(told["size"])

    def _is_sparse(self, told: dict[str, str], kind: bytes) -> bool:
        return kind == _SPARSE or any(key.startswith("GNU.sparse") for key in told)

    # --- bytes

    def _block(self) -> bytes:
        block = self._stream.read(BLOCK) or b""
        if len(block) < BLOCK:
            raise IntegrityError("the tar is cut short", found=f"{len(block)} bytes", expected="a header or its end")
        return block

    def _whole(self, size: int) -> bytes:
        self._limits.check("metadata", size, "a header of the tar is too large")
        return b"".join(bytes(chunk) for chunk in self._data(size))

    def _data(self, size: int) -> Iterator[memoryview]:
        """So many bytes in pieces, and past what fills the last block."""
        buffer = memoryview(bytearray(min(size, _CHUNK)))
        for at in range(0, size, _CHUNK):
            chunk = buffer[: size - at]
            if self._stream.readinto(chunk) < len(chunk):
                raise IntegrityError("the tar is cut short within a file", expected=f"{size:,} bytes")
            yield chunk
        self._stream.read(-size % BLOCK)

    def _check_rest(self) -> None:
        while block := self._stream.read(_CHUNK):
            if block.count(0) != len(block):
                self._add("tar-trailing", "something stands behind its end")
                return


def is_end(block: bytes) -> bool:
    """Whether a block is one of zeros, which is how a tar ends."""
    return not any(block)


def parsed(block: bytes) -> tuple[str, int, bytes]:
    """Name, size and kind of the entry whose header this is. Raises IntegrityError where its checksum differs."""
    said = _number(block[148:156])
    found = sum(block[:148]) + 8 * ord(" ") + sum(block[156:512])
    if said != found:
        raise IntegrityError("the tar is damaged: a header has another checksum", found=found, expected=said)
    name, prefix = _text(block[:100]), _text(block[345:500])
    if block[257:263] == _POSIX and prefix:
        name = f"{prefix}/{name}"
    return name, _number(block[124:136]), block[156:157]


def _number(field: bytes) -> int:
    """Octal digits, or the number itself where they have no room (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b"\0 ")
    if not all(digit in b"01234567" for digit in digits):
        raise IntegrityError("the tar is damaged: a number in a header is none", found=repr(field))
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """``<length> <key>=<value>\\n``, one behind the other, each counted with its length."""
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 9 or not len(length) + 2 < int(length) <= len(data):
            raise IntegrityError("the tar is damaged: a pax header is none", found=repr(data[:40]))
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        yield key.decode(errors="replace"), value.decode(errors="replace")
        data = data[int(length) :]
