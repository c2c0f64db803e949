"""A foreign file of plain bytes, read where it lies: opened once, never through a link, mapped when much is read."""

from __future__ import annotations

import os
import stat
from mmap import ACCESS_READ, mmap
from pathlib import Path

from modelkeep.errors import IntegrityError, NotFound, StorageError, UnsafeContent

CHUNK = 2**20  # bytes that whoever reads all of a file should read at a time
_MAPPED = 2**16  # bytes; fewer are copied


class MappedFile:
    """A regular file of ``size`` bytes. It opens when it is first read; what was mapped outlives :meth:`close`."""

    def __init__(self, path: Path) -> None:
        """Raises NotFound, UnsafeContent for a link or anything else that is no regular file, StorageError."""
        self.path = path
        try:
            status = path.lstat()
        except FileNotFoundError:
            raise NotFound(f"there is no file {path}") from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeContent(
                f"{path.name} is not a regular file", found="a link" if stat.S_ISLNK(status.st_mode) else None
            )
        self.size = status.st_size
        self._file: int | None = None
        self._map: memoryview | None = None

    def pread(self, offset: int, size: int) -> bytes:
        """Bytes of the file, copied. Raises IntegrityError where the file has become shorter, StorageError."""
        try:
            data = os.pread(self._descriptor(), size, offset)
        except OSError as error:
            raise StorageError(f"cannot read {self.path.name}: {error.strerror}") from error
        if len(data) != size:
            raise IntegrityError(f"{self.path.name} ends while it is read, at byte {offset + len(data):,}")
        return data

    def view(self, offset: int, size: int) -> memoryview:
        """Bytes of the file, read-only; many are mapped and not read before they are looked at."""
        if size < _MAPPED:
            return memoryview(self.pread(offset, size))
        if self._map is None:
            self._map = self._mapped()
        return self._map[offset : offset + size]

    def all(self) -> memoryview:
        """All bytes of the file."""
        return self.view(0, self.size)

    def close(self) -> None:
        """Close the file; it opens again when it is read again."""
        self._map = None
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _mapped(self) -> memoryview:
        try:
            return memoryview(mmap(self._descriptor(), self.size, access=ACCESS_READ))
        except (OSError, ValueError) as error:
            raise StorageError(f"cannot map {self.path.name}: {error}") from error

    def _descriptor(self) -> int:
        if self._file is None:
            # NONBLOCK: should somebody put a pipe in its place, opening must not wait for a writer.
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_size < self.size:
                os.close(file)
                raise IntegrityError(f"{self.path.name} was changed while it was read")
            self._file = file
        return self._file
