"""Objects as files below a folder, durable and whole or not there at all.

**Creating.** A file is written under ``tmp/``, fsynced, and *linked* to its name: a link never replaces, so of two
writers one wins. Then the folder is fsynced, and the parents of every folder that had to be made. A rename without
these leaves empty or missing files after a power cut.

**Deleting against refreshing.** There is no lock. ``refresh`` opens the file, sets its time, and makes sure that the
name still leads to the file whose time it set. ``delete`` of old files first moves the file to a name of its own,
``tmp/doomed/<key>/<unique>``, and looks at its time only then:

* A refresh that made sure before the move has set its time before it: the deleter sees a young file, and links it back.
* A refresh that comes after the move finds no name. It takes the file back itself (links it from ``tmp/doomed/``)
  and starts again. If the deleter was faster, nothing is left: it answers False, and the caller writes the object anew.

Whoever reads takes a file back in the same way, so there is no moment in which an object that is wanted cannot be had,
and a collector killed halfway has lost nothing: the first writer to come by puts back what it left (:meth:`_sweep`).
Since every deletion moves to a name that is never used again, a deleter that was held up for long can only
ever unlink what it moved itself, and a file that was taken back meanwhile keeps its other name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from modelkeep.errors import IntegrityError, ModelkeepError, NotFound, ObjectExists, StorageError
from modelkeep.storage.keys import RESERVED, check_folder, check_key, check_prefix, check_range
from modelkeep.storage.protocol import Buffer, ObjectInfo
from modelkeep.storage.syscalls import private_map, rename_noreplace, start_write_back

_WRITE_BACK_EVERY = 4 * 2**20  # bytes; the disk works while the next ones are copied
_MAX_VECTOR = 512  # buffers a writev; Linux takes 1,024
_ABANDONED_AFTER = 60.0  # seconds; younger files may belong to somebody who has not come to lock them
_TICKS = (1_000, 10_000_000, 2_000_000_000)  # nanoseconds: file systems may cut times to 10 ms (exFAT) or 2 s (FAT)
_MOST_SETTLED = 10_000
_KERNEL_TICK = 0.01  # seconds, at the slowest
_TEMPORARY = "write-"  # tmp/ may hold a stranger's files too, when the folder was not a store before
_DOOMED = f"{RESERVED}/doomed"
_MOVED = "~"  # no part of a key begins so
# No object: also where the key leads through another object, or is the beginning of other keys.
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

_ADVICE = {
    errno.ENOSPC: "free some space, then run it again: nothing was changed",
    errno.EDQUOT: "the quota is used up; free some space, then run it again: nothing was changed",
    errno.EFBIG: "the file system or a limit (ulimit -f) allows no file so large",
    errno.EROFS: "the file system is read-only; use a store on one that can be written",
    errno.EACCES: "check who owns the folder, its permissions and, among several users, their umask",
    errno.EPERM: "check who owns the folder, and that its file system has hard links",
    errno.EXDEV: f"{RESERVED}/ must lie in the same file system as the rest of the store",
    errno.EIO: "the disk reported a fault: look at the system's log, and do not trust the disk",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
}


class LocalStore:
    """An ObjectStore in a folder of a local file system.

    Making one touches nothing; the folder appears with the first object. Symbolic links and other irregular files
    inside the store are refused.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._name = os.fspath(root)
        self._root = os.path.abspath(root)  # the working folder may change
        self.root = Path(self._root)
        self._durable: set[str] = set()  # folders whose own names are known to be on the disk
        self._syncing = threading.Lock()
        self._settled: set[tuple[str, int]] = set()  # objects whose names are, each with its inode
        self._swept = False

    @property
    def url(self) -> str:
        """The folder."""
        return self._name

    # --- reading

    def get(self, key: str) -> bytes:
        """The whole file. Raises NotFound, IntegrityError, StorageError."""
        with self._reading(key), self._open(check_key(key)) as fd, open(fd, "rb", buffering=0, closefd=False) as file:
            return file.readall()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``. Raises NotFound, IntegrityError, StorageError."""
        with self._reading(key), self._open(check_key(key)) as fd, open(fd, "rb", closefd=False) as file:
            check_range(key, start, length, os.fstat(fd).st_size)
            file.seek(start)
            return file.read(length)

    def map(self, key: str) -> memoryview:
        """The file as private memory, its pages copied when written. Raises NotFound, IntegrityError, StorageError."""
        with self._reading(key), self._open(check_key(key)) as fd:
            return private_map(fd, os.fstat(fd).st_size)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every file whose key begins so; what is no regular file, too. Raises StorageError."""
        folder, slash, start = check_prefix(prefix).rpartition("/")
        yield from self._walk(folder + slash, start)

    def folders(self, prefix: str) -> Iterator[str]:
        """The sub-folders that hold files further down. Raises StorageError."""
        doing = _NamedErrors(f"cannot list {prefix} in {self._name}")
        with doing, suppress(*_GONE), self._folder(check_folder(prefix).rstrip("/")) as fd, os.scandir(fd) as entries:
            for entry in entries:
                if prefix + entry.name != RESERVED and _holds_files(entry, fd):
                    yield entry.name

    def now(self) -> float:
        """This machine's clock, by which files are stamped."""
        return time.time_ns() / 1e9

    # --- writing

    def create(self, key: str, chunks: Sequence[Buffer]) -> float:
        """Write a file that was not there, durably; tells its time. Raises ObjectExists, IntegrityError, StorageError.

        Should the disk fail after the link, in the fsync of the folder, StorageError says so and the object stays:
        others may have seen it.
        """
        folder, name = _split(check_key(key))
        doing = _NamedErrors(f"cannot write {key} in {self._name}")
        with doing, self._made(folder) as above, self._made(RESERVED) as tmp:
            if _exists(name, above):
                raise ObjectExists(f"{key} is there already")
            self._sweep()
            with _temporary(tmp) as (fd, temporary):
                write_all(fd, chunks)
                os.fsync(fd)
                _stamp(fd)  # when it appears, not when its last byte was written
                stamped = os.fstat(fd)  # before it has a name: from then on others may refresh it
                _publish(temporary, tmp, name, above)
                with _NamedErrors(f"{key} is in {self._name}, but the disk did not confirm that it stays"):
                    self._settle(key, stamped, above)
        return stamped.st_mtime_ns / 1e9

    def refresh(self, key: str) -> bool:
        """Set the file's time to now or later; False when it is not there. Raises IntegrityError, StorageError."""
        folder, name = _split(check_key(key))
        with _NamedErrors(f"cannot refresh {key} in {self._name}"):
            while True:
                try:
                    with self._folder(folder) as above, _open_regular(name, above) as fd:
                        before = os.fstat(fd)
                        _stamp(fd, after=before.st_mtime_ns)
                        if _leads_to(name, above, fd):
                            os.fsync(
                                fd
                            )  # who knows when it was created may delete it by that time, if this one is lost
                            self._settle(key, before, above)
                            return True
                except _GONE:
                    if not self._take_back(key):
                        return False

    def delete(self, key: str, *, unless_younger_than: float | None = None) -> bool:
        """Unlink a file; False when it is not there or too young. Raises StorageError."""
        folder, name = _split(check_key(key))
        with _NamedErrors(f"cannot delete {key} in {self._name}"):
            try:
                with self._folder(folder) as above:
                    if unless_younger_than is not None:
                        self._sweep()
                        return self._delete_old(key, name, above, unless_younger_than)
                    os.unlink(name, dir_fd=above)
                    os.fsync(above)
                    return True
            except _GONE:
                return False

    def _settle(self, key: str, file: os.stat_result, above: int) -> None:
        """Make sure that the name is on the disk: its writer may not have come so far, and the caller relies on it."""
        identity = (key, file.st_ino)
        if identity not in self._settled and time.time() - file.st_ctime < _ABANDONED_AFTER:
            os.fsync(above)
        if len(self._settled) >= _MOST_SETTLED:
            self._settled.clear()  # they are soon too old to be asked for, and a long training makes a great many
        self._settled.add(identity)

    def _delete_old(self, key: str, name: str, above: int, limit: float) -> bool:
        if _modified(name, above) >= limit:
            return False
        place = f"{_DOOMED}/{key}"
        with suppress(FileExistsError):
            os.makedirs(self.root / place)  # it need not survive anything
        try:
            with self._folder(place) as doom:
                mine = f"{_MOVED}{uuid.uuid4().hex}"
                os.rename(name, mine, src_dir_fd=above, dst_dir_fd=doom)
                with suppress(FileNotFoundError):  # somebody took it back
                    if _modified(mine, doom) >= limit:
                        _put_back(mine, doom, name, above)
                    else:
                        os.unlink(mine, dir_fd=doom)
            return not _exists(name, above)
        finally:
            self._forget(place)

    def _take_back(self, key: str) -> bool:
        """Link a file to its name again that a collector moved away; False when there is none."""
        folder, name = _split(key)
        try:
            with self._folder(f"{_DOOMED}/{key}") as doom, self._folder(folder) as above:
                for mine in os.listdir(doom):
                    if mine.startswith(_MOVED):
                        with suppress(FileNotFoundError):
                            _put_back(mine, doom, name, above)
                            return True
                return _exists(name, above)  # somebody else took it back
        except _GONE:
            return False

    def _sweep(self) -> None:
        """Once a process: remove what killed writers left in ``tmp/``, put back what killed collectors left there."""
        if self._swept:
            return
        self._swept = True
        with suppress(FileNotFoundError), self._folder(RESERVED) as tmp:
            for name in os.listdir(tmp):
                if name.startswith(_TEMPORARY) and _is_abandoned(name, tmp):
                    with suppress(OSError):  # locked by its writer; or no locks here, and then it stays
                        _unlink_unlocked(name, tmp)
        for info in self._walk(f"{_DOOMED}/"):
            place, name = _split(info.key)
            with suppress(FileNotFoundError), self._folder(place) as doom:
                if _is_abandoned(name, doom):
                    self._take_back(place.removeprefix(f"{_DOOMED}/"))
                    self._forget(place)

    # --- folders

    def _reading(self, key: str) -> _NamedErrors:
        return _NamedErrors(f"cannot read {key} in {self._name}")

    def _open(self, key: str) -> _Open:
        """An object's file."""
        folder, name = _split(key)
        while True:
            try:
                with self._folder(folder) as above:
                    return _open_regular(name, above)
            except _GONE:
                if not self._take_back(key):
                    raise NotFound(f"no object {key} in {self._name}") from None

    def _folder(self, path: str) -> _Open:
        """A folder of the store. Raises FileNotFoundError, IntegrityError for a symbolic link on the way."""
        folder = _Open(os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for part in path.split("/") if path else ():
            with folder as fd:
                folder = _open_folder(part, fd)
        return folder

    @contextmanager
    def _made(self, path: str) -> Iterator[int]:
        """The same, made if it is not there."""
        self._make(path)
        with self._folder(path) as fd:
            yield fd

    def _make(self, path: str) -> None:
        if path in self._durable and os.path.isdir(self.root / path):
            return
        if not path:
            _make_durably(self.root)
            return
        above, name = _split(path)
        self._make(above)
        with self._folder(above) as fd:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=fd)
                self._durable.discard(path)
            with self._syncing:
                if path in self._durable:
                    return
                # Also when it was there, since its maker may not have come so far. The fsync holds for all that are
                # there now, and so for those whose threads are waiting.
                names = os.listdir(fd)
                os.fsync(fd)
                self._durable.update(f"{above}/{name}" if above else name for name in names)

    def _forget(self, path: str) -> None:
        """Remove a folder if nobody uses it."""
        above, name = _split(path)
        with suppress(OSError), self._folder(above) as fd:
            os.rmdir(name, dir_fd=fd)

    def _walk(self, above: str, start: str = "") -> Iterator[ObjectInfo]:
        doing = _NamedErrors(f"cannot list {above} in {self._name}")
        with doing, suppress(*_GONE), self._folder(above.rstrip("/")) as folder:
            yield from _files(folder, above, start)


# --- one file


def _split(key: str) -> tuple[str, str]:
    folder, _, name = key.rpartition("/")
    return folder, name


class _Open:
    """An open file or folder, closed at the end of a ``with``."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _open_folder(name: str, above: int) -> _Open:
    """Raises one of _GONE, IntegrityError for a symbolic link."""
    try:
        return _Open(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above))
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise _irregular(f"{name} is a symbolic link") from None
        raise


def _open_regular(name: str, above: int) -> _Open:
    """A regular file, for reading. Raises one of _GONE, IntegrityError for a link, a pipe and the like."""
    try:
        # Without O_NONBLOCK a pipe would keep us waiting for its writer.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=above)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _irregular(f"{name} is a symbolic link") from error
        raise
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return _Open(fd)
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise _is_folder(name)
    raise _irregular(f"{name} is no regular file")


def _files(folder: int, above: str, start: str = "") -> Iterator[ObjectInfo]:
    """Whatever is no folder, below an open one whose key is ``above``, if its name there begins with ``start``."""
    with os.scandir(folder) as entries:
        for entry in entries:
            key = above + entry.name
            if key == RESERVED or not entry.name.startswith(start):
                continue
            with suppress(*_GONE):  # deleted since the folder was read
                if entry.is_dir(follow_symlinks=False):
                    with _open_folder(entry.name, folder) as inner:
                        yield from _files(inner, f"{key}/")
                else:
                    found = entry.stat(follow_symlinks=False)
                    yield ObjectInfo(key, found.st_size, found.st_mtime_ns / 1e9)


def _holds_files(entry: os.DirEntry[str], above: int) -> bool:
    with suppress(*_GONE):
        if entry.is_dir(follow_symlinks=False):
            with _open_folder(entry.name, above) as folder:
                return next(_files(folder, ""), None) is not None
    return False


def _is_folder(name: str) -> IsADirectoryError:
    return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)


def _irregular(what: str) -> IntegrityError:
    return IntegrityError(what, hint="nothing but modelkeep should write into a store: move it away")


@contextmanager
def _temporary(tmp: int) -> Iterator[tuple[int, str]]:
    """A new file that is locked for as long as its writer lives, and gone afterwards."""
    name = f"{_TEMPORARY}{uuid.uuid4().hex}"
    # 0666 less the umask: among several users of one store, all must be able to refresh.
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=tmp)
    try:
        with suppress(OSError):  # some network file systems have no locks; nothing is swept there
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd, name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=tmp)
        os.close(fd)


def _publish(source: str, source_folder: int, target: str, target_folder: int) -> None:
    """Give a file its name, which must be free. Raises ObjectExists, OSError."""
    try:
        try:
            os.link(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:
                rename_noreplace(source, source_folder, target, target_folder)
            except OSError as other:
                if other.errno in (errno.ENOSYS, errno.EINVAL):
                    raise StorageError(
                        "the file system can give a file a name neither by link nor by renameat2, unless it is free",
                        hint="use a store on one that has hard links",
                    ) from error
                raise
    except FileExistsError:
        raise ObjectExists(f"{target} is there already") from None


def _put_back(mine: str, doom: int, name: str, above: int) -> None:
    """Link a moved file to its name, then forget where it was moved to. Raises FileNotFoundError."""
    try:
        _publish(mine, doom, name, above)
    except ObjectExists:
        # Another copy has the name. This one may have been refreshed, so that one must be young.
        with _open_regular(name, above) as fd:
            _stamp(fd, after=os.fstat(fd).st_mtime_ns)
    with suppress(FileNotFoundError):
        os.unlink(mine, dir_fd=doom)


def _stamp(fd: int, *, after: int = 0) -> None:
    """Set a file's time to :meth:`LocalStore.now`, and to a microsecond after a time (in ns) at the earliest."""
    for tick in _TICKS:
        wanted = max(time.time_ns(), after + tick)
        try:
            os.utime(fd, ns=(wanted, wanted))
        except PermissionError:
            _touch(fd)
        if os.fstat(fd).st_mtime_ns > after:
            return
    raise StorageError(
        "the time of a file cannot be set to a later one, for it lies in the future",
        hint="set the clocks of the machines and users that share the store",
    )


def _touch(fd: int) -> None:
    """Set the time of another user's file, which only the kernel's coarser clock may be asked for: it lags."""
    time.sleep(_KERNEL_TICK)
    os.utime(fd)


def _modified(name: str, above: int) -> float:
    found = os.stat(name, dir_fd=above, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        raise _is_folder(name)
    return found.st_mtime_ns / 1e9


def _exists(name: str, above: int) -> bool:
    try:
        return not stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _leads_to(name: str, above: int, fd: int) -> bool:
    return os.path.samestat(os.stat(name, dir_fd=above, follow_symlinks=False), os.fstat(fd))


def _is_abandoned(name: str, above: int) -> bool:
    try:
        changed = os.stat(name, dir_fd=above, follow_symlinks=False).st_ctime
    except FileNotFoundError:
        return False
    return time.time() - changed > _ABANDONED_AFTER


def _unlink_unlocked(name: str, above: int) -> None:
    with _open_regular(name, above) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=above)


def _make_durably(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_durably(folder.parent)
    with suppress(FileExistsError):
        os.mkdir(folder)
    above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(above)
    finally:
        os.close(above)


# --- its bytes


def write_all(fd: int, chunks: Sequence[Buffer]) -> None:
    """Write every byte of ``chunks`` from where the file stands, letting the disk begin long before the end.

    Raises OSError.
    """
    offset = started = os.lseek(fd, 0, os.SEEK_CUR)
    for batch in _batches(chunks):
        offset += _write_batch(fd, batch)
        if offset - started >= _WRITE_BACK_EVERY:
            start_write_back(fd, started, offset - started)
            started = offset


def _batches(chunks: Sequence[Buffer]) -> Iterator[list[memoryview]]:
    """Buffers together: at most so many, and so large that write-back starts in time."""
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
    total = left = sum(map(len, batch))
    while True:
        written = os.writev(fd, batch)
        left -= written
        if not left:
            return total
        while written >= len(batch[0]):  # a short write: go on behind it
            written -= len(batch.pop(0))
        batch[0] = batch[0][written:]


class _NamedErrors:
    """Turns the system's errors within a ``with`` into StorageError; ours pass."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, ModelkeepError):
            reason = error.strerror or type(error).__name__
            raise StorageError(f"{self._what}: {reason}", hint=_ADVICE.get(error.errno or 0)) from error
