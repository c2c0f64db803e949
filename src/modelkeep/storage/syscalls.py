"""System calls that Python does not offer, each with what happens where the system lacks it.

``ctypes`` takes as long to import as all the rest of this room, so it is imported on first use: reading
a ledger never needs it.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from functools import cache
from typing import Any

# Python 3.11 has no names for these two.
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0  # a model may be larger than this machine's memory
_PRIVATE = mmap.MAP_PRIVATE | _MAP_NORESERVE
_SYNC_FILE_RANGE_WRITE = 2
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2


def private_memory(size: int) -> memoryview:
    """``size`` zero bytes from the start of a page, so at a multiple of 64; a fork gets its own. Raises OSError."""
    if size == 0:
        return memoryview(bytearray())
    return memoryview(mmap.mmap(-1, size, flags=_PRIVATE | mmap.MAP_ANONYMOUS))


def private_map(fd: int, size: int) -> memoryview:
    """``size`` bytes of a file as private writable memory: read when touched, copied when written. Raises OSError.

    ``mmap.mmap`` would do, but it keeps a descriptor open for as long as the map lives, and a model of a thousand
    large tensors would run into the usual limit of 1,024. So the file is mapped over memory of nothing.
    """
    memory = private_memory(size)
    if size == 0:
        return memory
    import ctypes

    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    if _libc().mmap(address, size, protection, _PRIVATE | _MAP_FIXED, fd, 0) != address:
        raise _error(ctypes.get_errno())
    return memory


def start_write_back(fd: int, offset: int, length: int) -> None:
    """Let the disk begin to write these bytes. Only a hint: what fails is seen by ``fsync``."""
    libc = _libc()
    if hasattr(libc, "sync_file_range"):  # Linux
        import ctypes

        libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def rename_noreplace(source: str, source_folder: int, target: str, target_folder: int) -> None:
    """Rename unless the target is there. Raises FileExistsError, OSError (ENOSYS where there is no such call)."""
    _rename(source, source_folder, target, target_folder, _RENAME_NOREPLACE)


def rename_exchange(one: str, one_folder: int, other: str, other_folder: int) -> None:
    """Give each of two files or folders the other's name, at once. Raises OSError as :func:`rename_noreplace` does."""
    _rename(one, one_folder, other, other_folder, _RENAME_EXCHANGE)


def _rename(source: str, source_folder: int, target: str, target_folder: int, flags: int) -> None:
    libc = _libc()
    if not hasattr(libc, "renameat2"):
        raise _error(errno.ENOSYS)
    import ctypes

    names = os.fsencode(source), os.fsencode(target)
    if libc.renameat2(source_folder, names[0], target_folder, names[1], flags) != 0:
        raise _error(ctypes.get_errno())


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))  # becomes FileExistsError and the like by its number


@cache
def _libc() -> Any:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    ]
    return libc
