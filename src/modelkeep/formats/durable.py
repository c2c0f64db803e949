"""A file of the user's, written whole and durably or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modelkeep.errors import AlreadyExists, ModelkeepError, StorageError, UsageError

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK})  # FAT and exFAT have none


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[int]:
    """The descriptor of a file that becomes ``path`` when the block ends without an error.

    Until then ``path`` is what it was; afterwards it survives a power cut. Raises AlreadyExists, unless
    ``overwrite``, UsageError for a path without a file's name, and StorageError.
    """
    if not path.name:
        raise UsageError("not a file's name", found=repr(str(path)), hint="name a file, not a folder")
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        if not overwrite and os.path.lexists(path):
            raise _exists(path)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            yield fd
            os.fsync(fd)
        finally:
            os.close(fd)
        _publish(temporary, path, overwrite=overwrite)
        _sync_folder(path.parent)
    except ModelkeepError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", hint=_hint(error)) from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        try:
            _claim(temporary, path)
        except FileExistsError:
            raise _exists(path) from None
    os.replace(temporary, path)


def _claim(temporary: Path, path: Path) -> None:
    """Take the name if it is free. A link never replaces; where there are no links, an empty file holds the place."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _exists(path: Path) -> AlreadyExists:
    return AlreadyExists(f"{path} exists already", hint="choose another name, or pass overwrite=True (--overwrite)")


def _hint(error: OSError) -> str | None:
    return {
        errno.ENOENT: "make the folder first",
        errno.ENOSPC: "free some space, then run it again",
        errno.EISDIR: "name a file, not a folder",
    }.get(error.errno or 0)
