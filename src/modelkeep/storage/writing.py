"""Tensors on their way into the store: hashed ahead of the writer, written once, small ones in packs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from modelkeep.errors import IntegrityError
from modelkeep.manifest import ALIGNMENT, Piece, Tensor
from modelkeep.refs import Digest
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.protocol import Buffer, Progress

PACK_BELOW = 2**20  # bytes; smaller tensors share packs
PACK_SIZE = 32 * 2**20  # bytes a pack does not exceed
COPIES_IN_FLIGHT = 64 * 2**20  # bytes of copied tensors held at once, beyond the largest
_GROUP = 4 * 2**20  # bytes hashed as one job: one for each small tensor would cost more than its hash
_AHEAD = 4  # groups hashed ahead of the writing
_WRITERS = 8  # most wait for an fsync, and the file system serves several at once


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
    """What a write did: the tensors as a manifest lists them, and the bytes that were not there before.

    ``created`` are the blobs that it created, each with the exact time that it was created with.
    """

    tensors: tuple[Tensor, ...]
    new_bytes: int
    created: Mapping[str, float] = field(default_factory=dict, compare=False)


class Place(Protocol):
    """Where the blobs go: :class:`modelkeep.storage.blobs.Blobs`."""

    def ensure(self, digest: str, chunks: Sequence[Buffer]) -> float | None:
        """Keep a blob unless it is there; returns the time that it was created with."""

    def refresh(self, digests: Iterable[str]) -> list[str]:
        """Make blobs young again; returns those that are not there."""


class _Hashed(NamedTuple):
    source: TensorSource
    digest: Digest
    data: Buffer


class _Kept(NamedTuple):
    digest: Digest
    size: int
    created: float | None  # None where it was there


@dataclass(frozen=True, slots=True)
class _Job:
    """A blob being written: what comes of it, the tensors in it, the copied bytes it holds."""

    blob: Future[_Kept]
    laid: list[tuple[Digest, int, int]]  # digest, offset, size
    nbytes: int
    copied: int


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
        writing = _Writing(place, sources, known, progress, hashers, writers)
        try:
            for group in _groups(sources):
                writing.read(group)
            return writing.finish()
        except BaseException:
            hashers.shutdown(cancel_futures=True)
            writers.shutdown(cancel_futures=True)
            raise


class _Writing:
    """The tensors of one write on their way, in order: read and hashed, then placed, then written.

    One thread decides; those of the pools hash and write. What ``_copied`` counts is bounded by ``_may_copy``:
    bytes of sources that copy, from before their reading to the end of their writing.
    """

    def __init__(
        self,
        place: Place,
        sources: Sequence[TensorSource],
        known: Mapping[str, tuple[Piece, ...]],
        progress: Progress | None,
        hashers: ThreadPoolExecutor,
        writers: ThreadPoolExecutor,
    ) -> None:
        self._place = place
        self._sources = sources
        self._known = known
        self._progress = progress
        self._hashers = hashers
        self._writers = writers
        self._hashing: deque[Future[list[_Hashed]]] = deque()
        self._jobs: deque[_Job] = deque()
        self._pack: list[_Hashed] = []
        self._pack_size = 0
        self._digests: list[Digest] = []  # of the sources placed so far
        # By digest. Those of a blob that is not written yet are empty, and those of no bytes stay so.
        self._places: dict[str, tuple[Piece, ...]] = {digest_of(b""): ()}
        self._fresh: set[str] = set()  # blobs of earlier versions refreshed by this write
        self._new_bytes = 0
        self._created: dict[str, float] = {}
        self._done = 0
        self._total = sum(source.nbytes for source in sources)
        self._copied = 0
        self._may_copy = COPIES_IN_FLIGHT + max(map(_copied, sources), default=0)

    def read(self, group: list[TensorSource]) -> None:
        """Have a group read and hashed, as soon as there is room for it."""
        copied = sum(map(_copied, group))
        while self._hashing and (len(self._hashing) >= _AHEAD or self._copied + copied > self._may_copy):
            self._place_group()
        while self._jobs and (len(self._jobs) > _WRITERS or self._copied + copied > self._may_copy):
            self._finish_job()
        self._copied += copied
        self._hashing.append(self._hashers.submit(_read_and_hash, group))

    def finish(self) -> Written:
        """Wait until everything is durable."""
        while self._hashing:
            self._place_group()
        self._close_pack()
        while self._jobs:
            self._finish_job()
        described = zip(self._sources, self._digests, strict=True)
        tensors = tuple(self._tensor(source, digest) for source, digest in described)
        return Written(tensors, self._new_bytes, self._created)

    def _tensor(self, source: TensorSource, digest: Digest) -> Tensor:
        return Tensor(
            name=source.name,
            dtype=source.dtype,
            shape=source.shape,
            digest=digest,
            pieces=self._places[digest],
            variable=source.variable,
        )

    def _place_group(self) -> None:
        there = []
        for hashed in self._hashing.popleft().result():
            source, digest, _ = hashed
            self._digests.append(digest)
            if digest in self._places or self._is_known(digest):
                there.append(source)
            elif source.nbytes >= PACK_BELOW:
                self._submit([hashed])
            else:
                self._add_to_pack(hashed)
        if there:
            self._let_go(sum(source.nbytes for source in there), sum(map(_copied, there)))

    def _is_known(self, digest: Digest) -> bool:
        """Whether an earlier version has the tensor, and its blobs are there, young again."""
        pieces = self._known.get(digest)
        if pieces is None:
            return False
        stale = [piece.blob for piece in pieces if piece.blob not in self._fresh]
        if stale and self._place.refresh(stale):
            return False  # collected in the meantime: write it anew
        self._fresh.update(stale)
        self._places[digest] = pieces
        return True

    def _add_to_pack(self, hashed: _Hashed) -> None:
        size = _padded(hashed.source.nbytes)
        if self._pack_size + size > PACK_SIZE:
            self._close_pack()
        self._places[hashed.digest] = ()
        self._pack.append(hashed)
        self._pack_size += size

    def _close_pack(self) -> None:
        if self._pack:
            self._submit(self._pack)
        self._pack, self._pack_size = [], 0

    def _submit(self, tensors: list[_Hashed]) -> None:
        """Have tensors written as one blob."""
        chunks: list[Buffer] = []
        laid = []
        offset = 0
        for hashed in tensors:
            self._places[hashed.digest] = ()
            size = hashed.source.nbytes
            laid.append((hashed.digest, offset, size))
            chunks.append(hashed.data)
            offset += size
            if hashed is not tensors[-1] and offset % ALIGNMENT:
                chunks.append(bytes(-offset % ALIGNMENT))
                offset += len(chunks[-1])
        digest = tensors[0].digest if len(tensors) == 1 else None
        self._jobs.append(
            _Job(
                blob=self._writers.submit(_create, self._place, digest, chunks),
                laid=laid,
                nbytes=sum(hashed.source.nbytes for hashed in tensors),
                copied=sum(_copied(hashed.source) for hashed in tensors),
            )
        )

    def _finish_job(self) -> None:
        job = self._jobs.popleft()
        blob = job.blob.result()
        if blob.created is not None:
            self._new_bytes += blob.size
            self._created[blob.digest] = blob.created
        for digest, offset, size in job.laid:
            self._places[digest] = (Piece(blob=blob.digest, offset=offset, size=size),)
        self._let_go(job.nbytes, job.copied)

    def _let_go(self, nbytes: int, copied: int) -> None:
        self._copied -= copied
        self._done += nbytes
        if self._progress is not None:
            self._progress("saving", self._done, self._total)


def _groups(sources: Iterable[TensorSource]) -> Iterator[list[TensorSource]]:
    """Neighbours together up to the size of a job, a larger tensor by itself."""
    group: list[TensorSource] = []
    size = 0
    for source in sources:
        if group and size + source.nbytes > _GROUP:
            yield group
            group, size = [], 0
        group.append(source)
        size += source.nbytes
    if group:
        yield group


def _read_and_hash(group: list[TensorSource]) -> list[_Hashed]:
    hashed = []
    for source in group:
        data = source.read()
        if len(data) != source.nbytes:
            raise IntegrityError(
                f"tensor {source.name} changed while it was saved",
                found=f"{len(data)} bytes",
                expected=f"{source.nbytes}",
            )
        hashed.append(_Hashed(source, digest_of(data), data))
    return hashed


def _create(place: Place, digest: Digest | None, chunks: list[Buffer]) -> _Kept:
    blob = digest or digest_of(*chunks)
    kept = _Kept(blob, sum(map(len, chunks)), place.ensure(blob, chunks))
    chunks.clear()  # the job is kept for longer than its bytes
    return kept


def _copied(source: TensorSource) -> int:
    return source.nbytes if source.copies else 0


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
