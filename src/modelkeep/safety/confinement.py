"""What a process may still do once it looks at a foreign file: compute, within limits, and read that file.

Every measure is one that Linux gives to processes without privileges: resource limits, ``no_new_privs``, a
user and network namespace of its own (namespaces(7)), and Landlock (landlock(7),
https://docs.kernel.org/userspace-api/landlock.html), by which no other file can be opened, none written
outside one folder, no program started and no TCP port reached. A system that lacks one of them lacks that
one: ``absent`` names it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_absent: tuple[str, ...] = ("confinement",)

_FILES = 256  # descriptors
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

# System calls 444 to 446 have these numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_REFER, _IOCTL_DEV, _EVERY_RIGHT_OF_1 = 1 << 13, 1 << 15, (1 << 13) - 1
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
_TCP, _SCOPES = 3, 3  # binding and connecting; abstract sockets and signals

# What the interpreter and the libraries it loads late read of the system.
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
)


def absent() -> tuple[str, ...]:
    """The measures that this process does without; all of them, in one word, where nothing confined it."""
    return _absent


def confine(readable: Iterable[Path], scratch: Path, *, seconds: int, memory: int, file_size: int) -> None:
    """Confine this process for the rest of its life.

    Afterwards it reads ``readable`` (files, and folders with all that is in them) and Python's own files, and
    writes only beneath ``scratch``, no file larger than ``file_size`` bytes. It dies after ``seconds`` of CPU;
    memory beyond ``memory`` bytes is not given to it.
    """
    global _absent
    measures: dict[str, Callable[[], None]] = {
        "out-of-memory order": _first_to_go,
        "limit of memory": lambda: _limit("RLIMIT_DATA", memory),
        "limit of CPU time": lambda: _limit("RLIMIT_CPU", seconds, and_then=1),
        "limit of file size": lambda: _limit("RLIMIT_FSIZE", file_size),
        "limit of open files": lambda: _limit("RLIMIT_NOFILE", _FILES),
        "no core dumps": lambda: _limit("RLIMIT_CORE", 0),
        "no new privileges": lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1),
        "network namespace": _leave_network,
        "Landlock": lambda: _landlock([*readable, *_own_files()], scratch),
    }
    _absent = tuple(name for name, measure in measures.items() if not _done(measure))


def _done(measure: Callable[[], None]) -> bool:
    try:
        measure()
    except (ImportError, AttributeError, OSError, ValueError):
        return False
    return True


def _own_files() -> list[Path]:
    return [Path(place) for place in (*_SYSTEM, sys.prefix, sys.base_prefix, *sys.path)]


def _limit(name: str, most: int, *, and_then: int = 0) -> None:
    import resource

    kind = getattr(resource, name)
    _, hard = resource.getrlimit(kind)
    soft, hard = (value if hard == resource.RLIM_INFINITY else min(value, hard) for value in (most, most + and_then))
    resource.setrlimit(kind, (soft, hard))


def _first_to_go() -> None:
    # Should the machine run out of memory, then this process ends and no bystander.
    Path("/proc/self/oom_score_adj").write_text("1000")


def _leave_network() -> None:
    _checked(_libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET))


def _prctl(option: int, value: int) -> None:
    _checked(_libc().prctl(option, value, 0, 0, 0))


def _landlock(readable: Iterable[Path], scratch: Path) -> None:
    import struct

    version = _syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    rights = _EVERY_RIGHT_OF_1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        rights |= right if version >= since else 0
    handled = [rights] + [_TCP] * (version >= 4) + [_SCOPES] * (version >= 6)
    rules = _syscall(_CREATE_RULESET, struct.pack(f"={len(handled)}Q", *handled), 8 * len(handled), 0)
    try:
        for path in readable:
            _allow(rules, path, (_READ_FILE | _READ_DIR) & rights)
        _allow(rules, scratch, rights & ~_IOCTL_DEV & ~1)
        _syscall(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    import struct

    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, so nothing to allow
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        _syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


def _syscall(number: int, *arguments: Any) -> int:
    return _checked(_libc().syscall(number, *arguments))


def _checked(result: int) -> int:
    import ctypes

    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _libc() -> Any:
    import ctypes

    if not sys.platform.startswith("linux"):
        raise OSError("only Linux has these calls")
    return ctypes.CDLL(None, use_errno=True)
