"""Keys of objects: what may be one."""

from __future__ import annotations

import re

from modelkeep.errors import UsageError

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_MAX_KEY = 1000
# A local store's own names: files being written, and files being deleted.
RESERVED_FOLDER = "tmp"
RESERVED_ENDING = ".doomed"


def check_key(key: str) -> str:
    """Return ``key`` if it may name an object, else raise UsageError."""
    if (
        len(key) > _MAX_KEY
        or not _KEY.fullmatch(key)
        or key.partition("/")[0] == RESERVED_FOLDER
        or any(part.endswith(RESERVED_ENDING) for part in key.split("/"))
    ):
        raise UsageError(
            "not an object key",
            found=repr(key[:_MAX_KEY]),
            expected="parts of letters, digits, '.', '_', '-' joined by '/'",
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if some key could begin with it, else raise UsageError."""
    if prefix:
        check_key(prefix + "x" if prefix.endswith("/") else prefix)
    return prefix
