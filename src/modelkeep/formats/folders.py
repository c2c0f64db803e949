"""A folder of foreign files: listed without following a link, each file opened below the folder and nowhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

from modelkeep.errors import NotFound, StorageError, UnsafeContent
from modelkeep.formats.contents import Problem
from modelkeep.formats.limits import DEFAULT, MIB, Limits
from modelkeep.formats.streams import ByteRange, fill, some

_CHUNK = MIB  # bytes read at a time
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Files(Protocol):
    """Named files, in a folder or in a zip: what a form that can be either reads from."""

    problems: list[Problem]

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of each file by its path, parts joined by ``/``."""

    def read(self, name: str) -> bytes:
        """All bytes of a file; whoever asks has looked at its size."""

    def head(self, name: str, length: int) -> bytes:
        """The first bytes of a file."""

    def chunks(self, name: str) -> Iterator[memoryview]:
        """The bytes of a file in pieces, each only until the next is asked for, checked as far as they can be."""

    def seekable(self, name: str) -> IO[bytes] | ByteRange:
        """A file to be read in any order, until all is closed."""

    def mode(self, name: str) -> int:
        """The Unix mode of a file, 0 where there is none."""


class Folder:
    """An open folder; made by :func:`open_folder`. Links in it are problems, and are not followed."""

    def __init__(self, descriptor: int, limits: Limits) -> None:
        self.problems: list[Problem] = []
        self.sizes: dict[str, int] = {}
        self._modes: dict[str, int] = {}
        self._folder, self._limits = descriptor, limits
        self._closing = ExitStack()
        self._list()

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises StorageError, IntegrityError."""
        return b"".join(map(bytes, self.chunks(name)))

    def head(self, name: str, length: int) -> bytes:
        """The first bytes of a file."""
        with self._opened(name) as file:
            return some(file, length, 0)

    def chunks(self, name: str) -> Iterator[memoryview]:
        """The bytes of a file, at most 1 MiB at a time."""
        size = self.sizes[name]
        buffer = memoryview(bytearray(min(_CHUNK, size)))
        with self._opened(name) as file:
            for at in range(0, size, _CHUNK):
                chunk = buffer[: size - at]
                fill(file, chunk, at)
                yield chunk

    def seekable(self, name: str) -> ByteRange:
        """A file to be read in any order, until the folder is closed."""
        file = self._closing.enter_context(self._opened(name))
        return ByteRange(file, 0, self.sizes[name])

    def mode(self, name: str) -> int:
        """The Unix mode of a file."""
        return self._modes[name]

    def close(self) -> None:
        """Close what was opened."""
        self._closing.close()

    def _list(self) -> None:
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            with self._below(folder) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}".lstrip("/")
                    self._limits.check("members", len(self.sizes) + len(waiting) + 1, "the folder holds too many files")
                    self._limits.check("depth", path.count("/") + 1, f"{path[:80]!r} lies too deep")
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(path)
                    elif stat.S_ISREG(status.st_mode):
                        self.sizes[path] = status.st_size
                        self._modes[path] = status.st_mode
                    else:
                        what = "a link" if stat.S_ISLNK(status.st_mode) else "a device, pipe or socket"
                        self.problems.append(
                            Problem("folder-special-file", f"{path!r} is {what}, and is not opened", path)
                        )
        self.sizes = dict(sorted(self.sizes.items()))
        self._limits.check("file", sum(self.sizes.values()), "the files of the folder are too large")

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        parent, _, last = name.rpartition("/")
        with self._below(parent) as folder:
            file = _open(last, _FLAGS, folder, name)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise UnsafeContent(f"{name} is no longer a regular file")
            yield file
        finally:
            os.close(file)

    @contextmanager
    def _below(self, path: str) -> Iterator[int]:
        """A folder below, opened part by part, so that no part of the way can be a link."""
        descriptor = os.dup(self._folder)
        try:
            for part in path.split("/") if path else ():
                inner = _open(part, _FLAGS | os.O_DIRECTORY, descriptor, path)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def open_folder(path: Path, limits: Limits = DEFAULT) -> Iterator[Folder]:
    """List a folder; its files can be read until the block ends. Raises NotFound, StorageError, LimitExceeded."""
    # The folder itself may be named by a link: that is its owner's doing, not the file's.
    descriptor = _open(os.fspath(path), os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY, None, path.name)
    try:
        folder = Folder(descriptor, limits)
        try:
            yield folder
        finally:
            folder.close()
    finally:
        os.close(descriptor)


def _open(name: str, flags: int, folder: int | None, what: str) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise NotFound(f"there is no file {what}") from None
    except OSError as error:
        raise StorageError(f"cannot read {what}: {error.strerror}") from error
