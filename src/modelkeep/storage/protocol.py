"""The port every place for bytes implements, and what it promises.

Whoever writes a new one runs :mod:`modelkeep.testing.object_store` against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Buffer: TypeAlias = "bytes | bytearray | memoryview"
"""Contiguous bytes; a memoryview must have ``format == 'B'`` and one dimension."""


Progress: TypeAlias = Callable[[str, int, int], None]
"""What is being done, how much of it is done, how much there is: bytes or steps."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object in a listing. ``modified`` is seconds since the epoch by the store's own clock."""

    key: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """Immutable objects by key. What may be a key, :func:`modelkeep.storage.keys.check_key` says; else UsageError.

    Safe to use from many threads, processes and machines at once. Every method raises
    StorageError when the place itself fails (disk full, read-only, I/O error); a failed
    ``create`` leaves nothing behind that any method could see, unless its message says so.
    """

    @property
    def url(self) -> str:
        """How a person names this store."""

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFound."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``, none included.

        Raises NotFound; IntegrityError when the object is shorter.
        """

    def map(self, key: str) -> memoryview:
        """The object as private writable memory, at an address that is a multiple of 64.

        Where the store can, pages are read when touched and copied when written; writing never
        reaches the store. Raises NotFound.
        """

    def create(self, key: str, chunks: Sequence[Buffer]) -> float:
        """Write the concatenation of ``chunks`` under a key that must be free, durably.

        When it returns, the object survives a power cut. When two race, exactly one succeeds and
        the other gets ObjectExists. No reader ever sees part of it. The answer is the object's ``modified``, exactly:
        for as long as a listing tells the same time, nobody has refreshed it.
        """

    def refresh(self, key: str) -> bool:
        """Make the object as young as if it had just been created; False when it is not there.

        Its time becomes later than it was by a microsecond at least, whatever the clock says, so whoever knows the
        time that an object was created with can delete it unless somebody has come to rely on it. What it
        answered survives a power cut.
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key begins with ``prefix``, in no order. A missing prefix lists nothing.

        Strangers among the objects are listed as well, by names that may be no keys. Objects that come or go
        during the listing may be in it or not.
        """

    def folders(self, prefix: str) -> Iterator[str]:
        """The distinct next key parts below ``prefix`` that hold objects further down.

        ``prefix`` ends in ``/`` or is empty.
        """

    def delete(self, key: str, *, unless_younger_than: float | None = None) -> bool:
        """Remove an object; False when it was not there or is too young.

        ``unless_younger_than`` is a time (seconds since the epoch): an object created or refreshed
        at it or later stays, even when the refresh races with this call. Meanwhile every reader finds it.
        Without it, the object stays removed after a power cut once this returned.
        """

    def now(self) -> float:
        """The store's own clock, which ``modified`` is measured by; finer than the time between two calls."""
