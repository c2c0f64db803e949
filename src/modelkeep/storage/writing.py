"""Tensors on their way into the store: hashed ahead of the writer, written once, small ones in packs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from modelkeep.errors import IntegrityError
from modelkeep.manifest import ALIGNMENT, Piece, Tensor
from modelkeep.refs import Digest
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.protocol import Buffer, Progress

PACK_BELOW = 2**20  # bytes; smaller tensors share packs
PACK_SIZE = 32 * 2**20  # bytes at which a pack is closed
_COPIES_IN_FLIGHT = 64 * 2**20  # bytes of copied tensors held at once, beyond one
_GROUP = 8 * 2**20  # bytes of small tensors hashed as one job: a job apiece costs more than its hash
_AHEAD = 4  # groups hashed ahead of the writing
_WRITERS = 3  # one may wait for its fsync while another writes


@dataclass(frozen=True, slots=True)
class TensorSource:
    """A tensor about to be stored.

    ``read()`` gives its little-endian bytes in C order; it is called once, on a thread of the pool, as
    late as possible, and the result is let go after the write. ``copies`` says that the result is new
    memory rather than the tensor's own, so that not too many are held at once.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    read: Callable[[], Buffer]
    variable: str | None = None
    copies: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did: the tensors as a manifest lists them, and the bytes that were not there before."""

    tensors: tuple[Tensor, ...]
    new_bytes: int


class Place(Protocol):
    """Where the blobs go: :class:`modelkeep.storage.blobs.Blobs`."""

    def create(self, digest: str, chunks: Sequence[Buffer]) -> int:
        """Keep a blob unless it is there; returns the bytes that were not."""

    def refresh(self, digests: Iterable[str]) -> list[str]:
        """Make blobs young again; returns those that are not there."""


def write(
    place: Place,
    sources: Sequence[TensorSource],
    *,
    known: Mapping[str, tuple[Piece, ...]],
    progress: Progress | None,
) -> Written:
    """See :meth:`modelkeep.storage.blobs.Blobs.write`."""
    with (
        ThreadPoolExecutor(os.cpu_count(), "modelkeep-hash") as hashers,
        ThreadPoolExecutor(_WRITERS, "modelkeep-write") as writers,
    ):
        writing = _Writing(place, known, writers, sum(source.nbytes for source in sources), progress)
        try:
            for group, hashed in _ahead(hashers, list(_groups(sources)), writing):
                for source, (digest, data) in zip(group, hashed, strict=True):
                    writing.take(source, digest, data)
            return writing.finish()
        except BaseException:
            hashers.shutdown(cancel_futures=True)
            writers.shutdown(cancel_futures=True)
            raise


class _Writing:
    """The tensors of one write on their way: which are there already, which go where."""

    def __init__(
        self,
        place: Place,
        known: Mapping[str, tuple[Piece, ...]],
        writers: ThreadPoolExecutor,
        total: int,
        progress: Progress | None,
    ) -> None:
        self._place = place
        self._known = known
        self._writers = writers
        self._total = total
        self._progress = progress
        self._done = 0
        self._places: dict[str, tuple[Piece, ...]] = {}  # of this write, by tensor digest
        self._fresh: set[str] = set()  # blobs of earlier versions refreshed by this write
        self._tensors: list[tuple[TensorSource, Digest]] = []
        self._pack: list[tuple[Digest, Buffer]] = []
        self._pack_size = 0
        self._jobs: deque[tuple[Future[int], int]] = deque()
        self._new_bytes = 0
        self.copied = 0  # bytes of copied tensors that are read and not yet written

    def take(self, source: TensorSource, digest: Digest, data: Buffer) -> None:
        """Place one tensor."""
        self._tensors.append((source, digest))
        copied = source.nbytes if source.copies else 0
        if digest in self._places or self._is_known(digest):
            self._step(source.nbytes, copied)
        elif source.nbytes >= PACK_BELOW:
            self._places[digest] = (Piece(blob=digest, size=source.nbytes),)
            self._submit(digest, [data], source.nbytes, copied)
        else:
            self._places[digest] = ()  # known when the pack is closed
            self._pack.append((digest, data))
            self._pack_size += _padded(len(data))
            self._step(source.nbytes, copied)
            if self._pack_size >= PACK_SIZE:
                self._close_pack()

    def finish(self) -> Written:
        """Wait until everything is durable."""
        self._close_pack()
        while self._jobs:
            self.wait_for_one()
        tensors = tuple(
            Tensor(
                name=source.name,
                dtype=source.dtype,
                shape=source.shape,
                digest=digest,
                pieces=self._places[digest],
                variable=source.variable,
            )
            for source, digest in self._tensors
        )
        return Written(tensors, self._new_bytes)

    def wait_for_one(self) -> bool:
        """Wait for the oldest write; False when there is none."""
        if not self._jobs:
            return False
        job, copied = self._jobs.popleft()
        self._new_bytes += job.result()
        self.copied -= copied
        return True

    def _is_known(self, digest: Digest) -> bool:
        pieces = self._known.get(digest)
        if pieces is None:
            return False
        stale = {piece.blob for piece in pieces} - self._fresh
        if self._place.refresh(stale):
            return False  # collected in the meantime: write it anew
        self._fresh |= stale
        self._places[digest] = pieces
        return True

    def _close_pack(self) -> None:
        if not self._pack:
            return
        pack, self._pack, self._pack_size = self._pack, [], 0
        chunks: list[Buffer] = []
        offsets = []
        offset = 0
        for _, data in pack:
            offsets.append(offset)
            padding = _padded(len(data)) - len(data)
            chunks += [data, bytes(padding)] if padding else [data]
            offset += len(data) + padding
        blob = digest_of(*chunks)
        for (digest, data), offset in zip(pack, offsets, strict=True):
            self._places[digest] = (Piece(blob=blob, offset=offset, size=len(data)),)
        self._submit(blob, chunks, 0, 0)

    def _submit(self, blob: Digest, chunks: list[Buffer], nbytes: int, copied: int) -> None:
        def create() -> int:
            added = self._place.create(blob, chunks)
            chunks.clear()
            return added

        self._jobs.append((self._writers.submit(create), copied))
        self._step(nbytes, 0)

    def _step(self, nbytes: int, copied: int) -> None:
        self.copied -= copied
        self._done += nbytes
        if self._progress is not None:
            self._progress("saving", self._done, self._total)


def _groups(sources: Iterable[TensorSource]) -> Iterator[list[TensorSource]]:
    """Each large tensor by itself, small neighbours together."""
    group: list[TensorSource] = []
    size = 0
    for source in sources:
        if source.nbytes >= PACK_BELOW:
            if group:
                yield group
                group, size = [], 0
            yield [source]
            continue
        group.append(source)
        size += source.nbytes
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _ahead(
    hashers: ThreadPoolExecutor, groups: list[list[TensorSource]], writing: _Writing
) -> Iterator[tuple[list[TensorSource], list[tuple[Digest, Buffer]]]]:
    """Each group with its digests and data, in order, hashed a few groups ahead."""
    waiting = deque(groups)
    hashing: deque[tuple[list[TensorSource], Future[list[tuple[Digest, Buffer]]]]] = deque()
    while waiting or hashing:
        while waiting and len(hashing) < _AHEAD:
            copied = sum(source.nbytes for source in waiting[0] if source.copies)
            if copied and writing.copied and writing.copied + copied > _COPIES_IN_FLIGHT:
                break
            writing.copied += copied
            group = waiting.popleft()
            hashing.append((group, hashers.submit(_hash_group, group)))
        if hashing:
            group, future = hashing.popleft()
            yield group, future.result()
        else:
            writing.wait_for_one()


def _hash_group(group: list[TensorSource]) -> list[tuple[Digest, Buffer]]:
    hashed: list[tuple[Digest, Buffer]] = []
    for source in group:
        data = source.read()
        if len(data) != source.nbytes:
            raise IntegrityError(
                f"tensor {source.name} changed while it was saved",
                found=f"{len(data)} bytes",
                expected=f"{source.nbytes}",
            )
        hashed.append((digest_of(data), data))
    return hashed


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
