"""Bytes read as if they were a file of their own: a run of another file, or pieces that come one by one."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.errors import IntegrityError, NotFound, StorageError, UsageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def open_regular(path: Path) -> int:
    """The descriptor of a regular file. Raises NotFound, UsageError, StorageError."""
    try:
        # NONBLOCK: opening must not wait for somebody to write into a pipe.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UsageError(f"{path} is not a file")
    return file


def some(file: int, length: int, offset: int) -> bytes:
    """At most so many bytes of the file from ``offset``; fewer where it ends. Raises StorageError."""
    try:
        return os.pread(file, length, offset)
    except OSError as error:
        raise StorageError(f"cannot read the file: {error.strerror}") from error


def fill(file: int, buffer: WriteableBuffer, offset: int) -> None:
    """Fill the buffer with the file's bytes from ``offset``. Raises IntegrityError where they end, StorageError."""
    rest = memoryview(buffer).cast("B")
    while rest:
        try:
            count = os.preadv(file, [rest], offset)
        except OSError as error:
            raise StorageError(f"cannot read the file: {error.strerror}") from error
        if not count:
            raise IntegrityError(f"the file ends at byte {offset:,}", found=f"{len(rest):,} bytes too few")
        rest, offset = rest[count:], offset + count


class ByteRange(io.RawIOBase):
    """``size`` bytes from ``start`` of the file with this descriptor, which stays its owner's to close."""

    def __init__(self, file: int, start: int, size: int) -> None:
        super().__init__()
        self.size = size
        self._file, self._start = file, start
        self._at = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read in any order."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Where the next read begins: counted from the start, from here, or from the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer, or as much of it as there are bytes left. Raises IntegrityError, StorageError."""
        view = memoryview(buffer).cast("B")[: max(0, self.size - self._at)]
        fill(self._file, view, self._start + self._at)
        self._at += len(view)
        return len(view)


class Chunks(io.RawIOBase):
    """Pieces of a file as a stream that is read from its beginning to its end."""

    def __init__(self, chunks: Iterator[memoryview]) -> None:
        super().__init__()
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer, or as much of it as there is."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view):
            if not len(self._rest):
                self._rest = next(self._chunks, memoryview(b""))
                if not len(self._rest):
                    break
            piece = self._rest[: len(view) - done]
            view[done : done + len(piece)] = piece
            self._rest, done = self._rest[len(piece) :], done + len(piece)
        return done
