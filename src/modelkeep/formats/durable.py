"""A file or folder of the user's, written whole and durably or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modelkeep.errors import AlreadyExists, ModelkeepError, StorageError, UsageError
from modelkeep.storage.syscalls import rename_exchange, rename_noreplace

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK})  # FAT and exFAT have none
_NO_SUCH_RENAME = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})  # other systems; network file systems


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


@contextmanager
def new_folder(
    path: Path, *, overwrite: bool = False, replaceable: Callable[[Path], bool] = lambda _: False
) -> Iterator[Path]:
    """A new folder beside ``path``, which becomes ``path`` when the block ends without an error.

    Folders above it that are missing are made first. Until the end ``path`` is what it was; afterwards all that
    was written survives a power cut. With ``overwrite``, a folder that is there goes with all that is in it, so it
    must be empty or one that ``replaceable`` knows as the like. Raises AlreadyExists, unless ``overwrite``,
    UsageError for a path without a name, for a file that is there and for a folder of other things, and StorageError.
    """
    if not path.name:
        raise UsageError("not a folder's name", found=repr(str(path)))
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        _check_replaceable(path, overwrite, replaceable)
        _make_folders(path.parent)
        temporary.mkdir(0o755)
        yield temporary
        _sync_below(temporary)
        _publish_folder(temporary, path, overwrite=overwrite)
        _sync_folder(path.parent)
    except ModelkeepError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", hint=_hint(error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_folders(folder: Path) -> None:
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    for above in reversed(missing):
        above.mkdir(exist_ok=True)
        _sync_folder(above.parent)


def _check_replaceable(path: Path, overwrite: bool, replaceable: Callable[[Path], bool]) -> None:
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise _exists(path)
    if path.is_symlink() or not path.is_dir():
        raise UsageError(f"{path} is a file, and a folder would take its place", hint="delete it first")
    if any(path.iterdir()) and not replaceable(path):
        raise UsageError(f"{path} holds other things, which would be lost", hint="name another folder")


def _publish_folder(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Rename; a folder that is there changes names with the new one, which is then at the temporary's name."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if overwrite and path.is_dir():
            rename_exchange(temporary.name, folder, path.name, folder)
        else:
            rename_noreplace(temporary.name, folder, path.name, folder)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        if error.errno not in _NO_SUCH_RENAME:
            raise
        _publish_in_steps(temporary, path, overwrite=overwrite)
    finally:
        os.close(folder)


def _publish_in_steps(temporary: Path, path: Path, *, overwrite: bool) -> None:
    # An empty folder holds the name: a rename takes its place, and that of nothing else.
    if overwrite and path.is_dir():
        old = path.with_name(f"{temporary.name}.old")
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old)
        return
    try:
        path.mkdir()
    except FileExistsError:
        raise _exists(path) from None
    temporary.rename(path)


def _sync_below(folder: Path) -> None:
    """Every file and folder below, and then the folder itself."""
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            fd = os.open(os.path.join(inner, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        _sync_folder(Path(inner))


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
