"""Where bytes live: object stores, and the blobs kept in them.

Above this room nothing knows whether a store is a folder, memory or a bucket.
"""

from __future__ import annotations

import os

from modelkeep.errors import UsageError
from modelkeep.storage.protocol import ObjectStore


def open_store(place: str | os.PathLike[str]) -> ObjectStore:
    """The object store that a folder's path or a URL names. Raises UsageError for a scheme nobody implements."""
    text = os.fspath(place)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme == "file":
        from modelkeep.storage.local import LocalStore

        return LocalStore(rest if separator else text)
    if scheme == "memory":
        from modelkeep.storage.memory import MemoryStore

        return MemoryStore()
    raise UsageError(f"no store for {scheme}://", expected="a folder, file:// or memory://")
