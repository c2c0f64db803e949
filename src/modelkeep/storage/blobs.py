"""Blobs: immutable bytes named by their digest, and tensors laid out in them.

A tensor of 1 MiB or more is a blob of its own. Smaller ones are laid together in packs, each at a multiple of
64 bytes, since a file apiece would cost more than their bytes. What is in the store already is never written again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from modelkeep.errors import BlobMissing, IntegrityError, LimitExceeded, NotFound, ObjectExists
from modelkeep.manifest import Piece, Tensor
from modelkeep.refs import Digest, parse_digest
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.mapping import Mapped, Verify, map_tensors
from modelkeep.storage.protocol import Buffer, ObjectStore, Progress
from modelkeep.storage.writing import TensorSource, Written, write

__all__ = ["Blobs", "Mapped", "TensorSource", "Verify", "Written", "blob_key"]

PART_LIMIT = 2**30  # bytes; what get() reads at most unless told otherwise


def blob_key(digest: str) -> str:
    """Where a blob lies in the store."""
    hexadecimal = parse_digest(digest).removeprefix("blake3:")
    return f"blobs/{hexadecimal[:2]}/{hexadecimal}"


class Blobs:
    """The blobs of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    # --- runs of bytes

    def put(self, data: Buffer) -> Digest:
        """Keep ``data``, durably. Raises StorageError."""
        return self.add(data)[0]

    def add(self, data: Buffer) -> tuple[Digest, int]:
        """As :meth:`put`; tells the number of bytes that were not there before, too."""
        digest = digest_of(data)
        return digest, self.create(digest, [data])

    def put_new(self, data: Buffer) -> tuple[Digest, float | None]:
        """As :meth:`put`; tells the time that it was created with, too: None where it was there."""
        digest = digest_of(data)
        return digest, self.ensure(digest, [data])

    def get(self, digest: str, *, limit: int = PART_LIMIT) -> bytes:
        """The blob's bytes, checked. Raises BlobMissing, IntegrityError, LimitExceeded."""
        view = self.map_blob(digest)
        if len(view) > limit:
            raise LimitExceeded(f"blob {digest} is too large", found=f"{len(view)} bytes", expected=f"at most {limit}")
        data = bytes(view)
        if digest_of(data) != digest:
            raise _damaged(digest)
        return data

    def check(self, digest: str) -> int:
        """Read a whole blob and compare its digest; returns its size. Raises BlobMissing, IntegrityError."""
        view = self.map_blob(digest)
        if digest_of(view) != digest:
            raise _damaged(digest)
        return len(view)

    def exists(self, digest: str) -> bool:
        """Whether the blob is there, by its name alone."""
        key = blob_key(digest)
        return any(info.key == key for info in self.store.list(key))

    def refresh(self, digests: Iterable[str]) -> list[str]:
        """Make these blobs as young as new, so that no collector takes them; returns those that are not there."""
        return [digest for digest in digests if not self.store.refresh(blob_key(digest))]

    def create(self, digest: str, chunks: Sequence[Buffer]) -> int:
        """Keep the concatenation of ``chunks``, whose digest this is, unless it is there; returns the bytes added."""
        return 0 if self.ensure(digest, chunks) is None else sum(map(len, chunks))

    def ensure(self, digest: str, chunks: Sequence[Buffer]) -> float | None:
        """As :meth:`create`; returns the exact time that the blob was created with, None where it was there."""
        key = blob_key(digest)
        while not self.store.refresh(key):
            try:
                return self.store.create(key, chunks)
            except ObjectExists:
                continue  # somebody else was first: refresh what they wrote
        return None

    def delete_created(self, digest: str, created: float) -> bool:
        """Remove a blob unless anybody refreshed it, and so came to rely on it, since it was created at that time."""
        return self.store.delete(blob_key(digest), unless_younger_than=math.nextafter(created, math.inf))

    def map_blob(self, digest: str) -> memoryview:
        """The blob as private writable memory, not checked. Raises BlobMissing."""
        with _missing(digest):
            return self.store.map(blob_key(digest))

    # --- tensors

    def write(
        self,
        sources: Sequence[TensorSource],
        *,
        known: Mapping[str, tuple[Piece, ...]] | None = None,
        progress: Progress | None = None,
    ) -> Written:
        """Store tensors, durably. ``known`` tells where tensors of earlier versions lie, by digest.

        Hashing runs ahead of the writing. Of tensors whose ``read`` copies, 64 MiB and one more are held at
        once. Raises StorageError, and whatever a source's ``read`` raises; blobs written until then stay
        behind, unreferenced, for ``gc``.
        """
        return write(self, sources, known=known or {}, progress=progress)

    def map(self, tensors: Sequence[Tensor], *, verify: Verify = "eager", progress: Progress | None = None) -> Mapped:
        """Map tensors into private memory.

        ``verify="eager"`` compares every digest, on all cores, before it returns; ``"lazy"`` does it in the
        background; None leaves it. Raises BlobMissing, IntegrityError.
        """
        return map_tensors(self.map_blob, tensors, verify=verify, progress=progress)


@contextmanager
def _missing(digest: str) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        raise BlobMissing(f"blob {digest} is not in the store", hint="run: modelkeep fsck") from error


def _damaged(digest: str) -> IntegrityError:
    return IntegrityError(f"blob {digest} is damaged: its bytes have another digest", hint="run: modelkeep fsck")
