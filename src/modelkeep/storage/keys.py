"""Keys of objects: what may be one."""

from __future__ import annotations

import re

from modelkeep.errors import IntegrityError, UsageError

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_MAX_KEY = 1000
RESERVED = "tmp"
"""The top folder that a store may keep for what is on its way in or out. No key begins with it."""


def check_key(key: str) -> str:
    """Return ``key`` if it may name an object, else raise UsageError.

    Parts of letters, digits, ``.``, ``_`` and ``-`` that do not begin with ``.``, joined by ``/``; at most 1,000
    characters; the first part is not ``tmp``.
    """
    if len(key) > _MAX_KEY or not _KEY.fullmatch(key) or key.partition("/")[0] == RESERVED:
        raise UsageError(
            "not an object key",
            found=repr(key[:_MAX_KEY]),
            expected="parts of letters, digits, '.', '_', '-' joined by '/', outside tmp/",
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if some key could begin with it, else raise UsageError."""
    if prefix and prefix != RESERVED:  # keys may begin with these letters: tmp-1
        check_key(f"{prefix}x" if prefix.endswith("/") else prefix)
    return prefix


def check_folder(prefix: str) -> str:
    """Return ``prefix`` if it is empty or a folder's, ending in ``/``; else raise UsageError."""
    if prefix and not prefix.endswith("/"):
        raise UsageError("not a folder's prefix", found=repr(prefix), expected="nothing, or a key that ends in '/'")
    return check_prefix(prefix)


def check_range(key: str, start: int, length: int, size: int) -> None:
    """Raise IntegrityError unless ``length`` bytes from ``start`` lie in an object of ``size`` bytes."""
    if start < 0 or length < 0 or start + length > size:
        raise IntegrityError(f"{key} is too short", found=f"{size} bytes", expected=f"{length} from {start}")
