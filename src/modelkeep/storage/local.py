"""Objects as files below a folder, durable and whole or not there at all.

**Creating.** A file is written under ``tmp/``, fsynced, and *linked* to its name: a link never replaces, so of two
writers one wins. Then the folder is fsynced, and the parents of every folder that had to be made. Renaming without
these leaves empty or missing files after a power cut.

**Deleting against refreshing.** ``refresh`` sets a file's time by its name. ``delete`` of old files first renames
the file to ``<name>.doomed``, then looks at its time again:

* refreshed before the rename: the new time is seen, and the file is linked back;
* refreshed after the rename: the name is gone, so the refresher links ``.doomed`` back itself and tries again, or, if the
  file was unlinked already, learns that it must write the object anew.

Readers that miss a name look for ``.doomed`` in the same way, so there is no moment in which an object that is wanted cannot
be read, and a collector killed between the two steps has lost nothing.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import cast

from modelkeep.errors import IntegrityError, ModelkeepError, NotFound, ObjectExists, StorageError
from modelkeep.storage.keys import RESERVED_ENDING, RESERVED_FOLDER, check_key, check_prefix
from modelkeep.storage.protocol import Buffer, ObjectInfo

_WRITE_BACK_EVERY = (
    16 * 2**20
)  # bytes; the disk works while the next ones are copied: 1.5 times faster than fsync alone
_MAX_VECTOR = 512  # buffers a writev; Linux takes 1024
_ABANDONED_AFTER = 60.0  # seconds; younger temporary files may not be locked yet

_ADVICE = {
    errno.ENOSPC: "free some space, then run it again: nothing was changed",
    errno.EDQUOT: "the quota is used up; free some space, then run it again: nothing was changed",
    errno.EROFS: "the file system is read-only; use a store on one that can be written",
    errno.EACCES: "check who owns the folder and its permissions",
    errno.EPERM: "check the folder's permissions, and that its file system has hard links",
    errno.EIO: "the disk reported a fault: look at the system's log, and do not trust the disk",
}


class LocalStore:
    """An ObjectStore in a folder of a local file system that has hard links and fsync."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._known_folders: set[Path] = set()
        self._swept = False

    @property
    def url(self) -> str:
        """The folder."""
        return str(self.root)

    def get(self, key: str) -> bytes:
        """The whole file. Raises NotFound, StorageError."""
        with self._reading(key) as fd, open(fd, "rb", closefd=False) as file:
            return file.read()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``. Raises NotFound, IntegrityError, StorageError."""
        with self._reading(key) as fd:
            data = os.pread(fd, length, start)
        if len(data) != length:
            raise IntegrityError(f"{key} is too short", found=f"{len(data)} bytes", expected=f"{length} from {start}")
        return data

    def map(self, key: str) -> memoryview:
        """A private map of the file: pages are read when touched and copied when written. Raises NotFound, StorageError."""
        with self._reading(key) as fd:
            if os.fstat(fd).st_size == 0:
                return memoryview(bytearray())
            return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))

    def create(self, key: str, chunks: Sequence[Buffer]) -> None:
        """Write a file that was not there, durably. Raises ObjectExists, StorageError."""
        path = self._path(key)
        with _named_errors(f"cannot write {key} in {self.root}"):
            if os.path.lexists(path):
                raise ObjectExists(f"{key} is there already")
            self._make_folder(path.parent)
            with self._temporary() as (fd, temporary):
                write_all(fd, chunks)
                os.fsync(fd)
                self._link(temporary, path)
            _sync_folder(path.parent)

    def refresh(self, key: str) -> bool:
        """Set the file's time to now; False when it is not there. Raises StorageError."""
        path = self._path(key)
        with _named_errors(f"cannot refresh {key} in {self.root}"):
            for _ in range(2):
                try:
                    os.utime(path, follow_symlinks=False)
                except FileNotFoundError:
                    if not self._resurrect(path):
                        return False
                else:
                    # Whoever linked it may not have come to fsync the folder yet, and we are about to rely on it.
                    _sync_folder(path.parent)
                    return True
        return False

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every file whose key begins so. Raises StorageError."""
        folder, _, start = check_prefix(prefix).rpartition("/")
        yield from self._walk(self.root / folder, f"{folder}/" if folder else "", start)

    def folders(self, prefix: str) -> Iterator[str]:
        """The sub-folders that hold files further down. Raises StorageError."""
        for entry in self._scan(self.root / check_prefix(prefix)):
            if not prefix and entry.name == RESERVED_FOLDER:
                continue
            if entry.is_dir(follow_symlinks=False) and next(self.list(f"{prefix}{entry.name}/"), None):
                yield entry.name

    def delete(self, key: str, *, unless_younger_than: float | None = None) -> bool:
        """Unlink a file; False when it is not there or too young. Raises StorageError."""
        path = self._path(key)
        with _named_errors(f"cannot delete {key} in {self.root}"):
            if unless_younger_than is None:
                return _unlink(path)
            doomed = _doomed(path)
            try:
                if os.lstat(path).st_mtime > unless_younger_than:
                    return False
                os.rename(path, doomed)
            except FileNotFoundError:
                return False
            try:
                young = os.lstat(doomed).st_mtime > unless_younger_than
            except FileNotFoundError:  # a reader took it back and another delete came by
                return False
            if young:
                self._resurrect(path)
                return False
            _unlink(doomed)
            return not os.path.lexists(path)

    def now(self) -> float:
        """This machine's clock, which file times are taken from."""
        return time.time()

    # --- reading

    @contextmanager
    def _reading(self, key: str) -> Iterator[int]:
        path = self._path(key)
        with _named_errors(f"cannot read {key} in {self.root}"):
            try:
                fd = _open_regular(path)
            except FileNotFoundError:
                if not self._resurrect(path):
                    raise NotFound(f"no object {key} in {self.root}") from None
                fd = _open_regular(path)
            try:
                yield fd
            finally:
                os.close(fd)

    def _walk(self, folder: Path, above: str, start: str = "") -> Iterator[ObjectInfo]:
        for entry in self._scan(folder):
            if not entry.name.startswith(start) or entry.name.endswith(RESERVED_ENDING):
                continue
            if entry.is_dir(follow_symlinks=False):
                if above or entry.name != RESERVED_FOLDER:
                    yield from self._walk(Path(entry.path), f"{above}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # deleted since the folder was read
                    found = entry.stat(follow_symlinks=False)
                    yield ObjectInfo(above + entry.name, found.st_size, found.st_mtime)

    def _scan(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        with _named_errors(f"cannot list {folder}"):
            try:
                with os.scandir(folder) as entries:
                    yield from list(entries)
            except (FileNotFoundError, NotADirectoryError):
                return

    # --- writing

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _make_folder(self, folder: Path) -> None:
        if folder in self._known_folders:
            return
        try:
            os.mkdir(folder)
        except FileExistsError:
            pass
        except FileNotFoundError:
            self._make_folder(folder.parent)
            with suppress(FileExistsError):
                os.mkdir(folder)
        # Also when it was there: its maker may not have come so far.
        _sync_folder(folder.parent)
        self._known_folders.add(folder)

    @contextmanager
    def _temporary(self) -> Iterator[tuple[int, Path]]:
        """A new file that is locked for as long as its writer lives, and gone afterwards."""
        folder = self.root / RESERVED_FOLDER
        self._make_folder(folder)
        if not self._swept:
            self._swept = True
            _sweep(folder)
        path = folder / f"{uuid.uuid4().hex}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with suppress(OSError):  # without locks (some network file systems) age alone decides
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd, path
        finally:
            _unlink(path)
            os.close(fd)

    def _link(self, temporary: Path, path: Path) -> None:
        try:
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError:
            raise ObjectExists(f"{path.relative_to(self.root)} is there already") from None

    def _resurrect(self, path: Path) -> bool:
        """Take back a file that a collector has doomed; False when there is none."""
        doomed = _doomed(path)
        try:
            os.link(doomed, path, follow_symlinks=False)
        except FileNotFoundError:
            return os.path.lexists(path)  # somebody else took it back
        except FileExistsError:
            pass
        _unlink(doomed)
        return True


def write_all(fd: int, chunks: Sequence[Buffer]) -> None:
    """Write every byte of ``chunks``, letting the disk begin long before the end. Raises OSError."""
    offset = started = 0
    for batch in _batches(chunks):
        offset += _write_batch(fd, batch)
        if offset - started >= _WRITE_BACK_EVERY:
            _start_write_back(fd, started, offset - started)
            started = offset


def _batches(chunks: Sequence[Buffer]) -> Iterator[list[memoryview]]:
    """Buffers together: at most so many and so large that write-back starts in time."""
    batch: list[memoryview] = []
    size = 0
    for chunk in chunks:
        view = memoryview(chunk)
        while len(view):
            piece = view[: _WRITE_BACK_EVERY - size]
            view = view[len(piece) :]
            batch.append(piece)
            size += len(piece)
            if size >= _WRITE_BACK_EVERY or len(batch) >= _MAX_VECTOR:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _write_batch(fd: int, batch: list[memoryview]) -> int:
    total = sum(map(len, batch))
    left = total
    while left:
        written = os.writev(fd, batch)
        left -= written
        while written and batch:  # a short write: go on behind it
            head = batch[0]
            if written < len(head):
                batch[0] = head[written:]
                break
            written -= len(head)
            batch.pop(0)
    return total


def _start_write_back(fd: int, offset: int, length: int) -> None:
    sync_file_range = _sync_file_range()
    if sync_file_range is not None:
        sync_file_range(fd, offset, length, 2)  # SYNC_FILE_RANGE_WRITE; only a hint, what fails is seen by fsync


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    import ctypes  # takes as long to import as all the rest of this room

    try:
        function = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (OSError, AttributeError):  # not Linux
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return cast("Callable[[int, int, int, int], int]", function)


def _open_regular(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise IntegrityError(f"{path} is not a regular file", hint="nothing but modelkeep should write into a store")
    return fd


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _doomed(path: Path) -> Path:
    return path.with_name(path.name + RESERVED_ENDING)


def _unlink(path: Path) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what killed writers left: old, and locked by nobody."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_AFTER:
                    _remove_if_unlocked(Path(entry.path))


def _remove_if_unlocked(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(fd)


@contextmanager
def _named_errors(what: str) -> Iterator[None]:
    """Turn the system's errors into StorageError; ours pass."""
    try:
        yield
    except ModelkeepError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        hint = _ADVICE.get(error.errno or 0)
        if error.errno == errno.ELOOP:
            raise IntegrityError(
                f"{what}: a symbolic link", hint="nothing but modelkeep should write into a store"
            ) from error
        raise StorageError(f"{what}: {reason}", hint=hint) from error
