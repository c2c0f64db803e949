"""Tensors out of the store: mapped into private memory, and verified on every core."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from modelkeep.errors import IntegrityError
from modelkeep.manifest import ALIGNMENT, Piece, Tensor
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.protocol import Progress
from modelkeep.storage.syscalls import private_memory

_GROUP = 8 * 2**20  # bytes verified as one job
_MAP_FROM = (
    2**20
)  # bytes; where a tensor needs memory of its own, larger ones are mapped once more, smaller ones copied

Verify = Literal["eager", "lazy"] | None
MapBlob: TypeAlias = Callable[[str], memoryview]
_Job: TypeAlias = tuple[Tensor, Sequence[memoryview]]


@dataclass(slots=True, weakref_slot=True)
class Mapped:
    """Tensors as private writable memory, each at a multiple of 64 bytes, by name.

    Nothing written to it reaches the store or another tensor. With lazy verification, damage is told by
    :meth:`raise_if_damaged` as soon as it is known, and by :meth:`wait` for certain; it ends when this object is let
    go, and with the program.
    """

    views: dict[str, memoryview]
    _verification: Future[None] | None = field(default=None, repr=False)

    def raise_if_damaged(self) -> None:
        """Raise IntegrityError if a mismatch is known by now."""
        if self._verification is not None and self._verification.done():
            self._verification.result()

    def wait(self) -> None:
        """Return when every tensor has been verified; raises IntegrityError on a mismatch."""
        if self._verification is not None:
            self._verification.result()


def map_tensors(map_blob: MapBlob, tensors: Sequence[Tensor], *, verify: Verify, progress: Progress | None) -> Mapped:
    """See :meth:`modelkeep.storage.blobs.Blobs.map`."""
    maps = _Maps(map_blob)
    views = _views(maps, tensors)
    if verify == "eager":
        _verify([(tensor, [views[tensor.name]]) for tensor in tensors], progress)
    mapped = Mapped(views)
    if verify == "lazy":
        mapped._verification = _verify_in_background(weakref.ref(mapped), _Maps(map_blob), tensors)
    return mapped


class _Maps:
    """Blobs, each mapped once."""

    def __init__(self, map_blob: MapBlob) -> None:
        self._map_blob = map_blob
        self._maps: dict[str, memoryview] = {}

    def pieces(self, tensor: Tensor, *, anew: bool = False) -> list[memoryview]:
        """Where a tensor lies; ``anew`` gives memory that nobody else was given. Raises BlobMissing, IntegrityError."""
        return [_cut(tensor, piece, self._blob(piece.blob, anew)) for piece in tensor.pieces]

    def _blob(self, digest: str, anew: bool) -> memoryview:
        if anew:
            return self._map_blob(digest)
        if digest not in self._maps:
            self._maps[digest] = self._map_blob(digest)
        return self._maps[digest]


def _views(maps: _Maps, tensors: Iterable[Tensor]) -> dict[str, memoryview]:
    """Each tensor's own memory: of two that lie in the same bytes, training one must not change the other."""
    views = {}
    given: dict[str, int] = {}  # of each blob, where the part begins that nobody was given yet
    for tensor in sorted(tensors, key=_place):
        if not _is_one_aligned_piece(tensor):
            views[tensor.name] = _aligned_copy(maps.pieces(tensor))
            continue
        piece = tensor.pieces[0]
        if piece.offset >= given.get(piece.blob, 0):
            given[piece.blob] = piece.offset + piece.size
            (views[tensor.name],) = maps.pieces(tensor)
        elif piece.size >= _MAP_FROM:
            (views[tensor.name],) = maps.pieces(tensor, anew=True)
        else:
            views[tensor.name] = _aligned_copy(maps.pieces(tensor))
    return views


def _place(tensor: Tensor) -> tuple[str, int]:
    return (tensor.pieces[0].blob, tensor.pieces[0].offset) if tensor.pieces else ("", 0)


def _is_one_aligned_piece(tensor: Tensor) -> bool:
    return len(tensor.pieces) == 1 and tensor.pieces[0].offset % ALIGNMENT == 0


def _cut(tensor: Tensor, piece: Piece, blob: memoryview) -> memoryview:
    end = piece.offset + piece.size
    if piece.offset < 0 or piece.size < 0 or end > len(blob):
        raise IntegrityError(
            f"tensor {tensor.name} reaches beyond blob {piece.blob}",
            found=f"{len(blob)} bytes",
            expected=f"at least {end}",
            hint="run: modelkeep fsck",
        )
    return blob[piece.offset : end]


def _aligned_copy(pieces: Sequence[memoryview]) -> memoryview:
    memory = private_memory(sum(map(len, pieces)))
    offset = 0
    for piece in pieces:
        memory[offset : offset + len(piece)] = piece
        offset += len(piece)
    return memory


# --- verification


def _verify(jobs: Sequence[_Job], progress: Progress | None) -> None:
    total = sum(map(_size, jobs))
    done = 0
    with ThreadPoolExecutor(os.cpu_count(), "modelkeep-verify") as pool:
        for size in pool.map(_verify_group, list(_groups(jobs))):
            done += size
            if progress is not None:
                progress("verifying", done, total)


def _verify_in_background(mapped: weakref.ref[Mapped], maps: _Maps, tensors: Sequence[Tensor]) -> Future[None]:
    """Verify over maps of its own: the views may be trained by now, and that is no damage."""
    verification: Future[None] = Future()

    def run() -> None:
        try:
            for tensor in tensors:
                # The program's end waits for this thread, so it looks for it. (A daemon would be
                # torn away in the middle of a hash, which takes the process with it.)
                if mapped() is None or not threading.main_thread().is_alive():
                    raise IntegrityError("verification was not finished: nobody waited for it")
                _verify_group([(tensor, maps.pieces(tensor))])
        except BaseException as error:  # noqa: BLE001 - handed on to whoever asks
            verification.set_exception(error)
        else:
            verification.set_result(None)

    threading.Thread(target=run, name="modelkeep-verify").start()
    return verification


def _groups(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    group: list[_Job] = []
    size = 0
    for job in jobs:
        group.append(job)
        size += _size(job)
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(job: _Job) -> int:
    return sum(map(len, job[1]))


def _verify_group(group: list[_Job]) -> int:
    for tensor, chunks in group:
        found = digest_of(*chunks)
        if found != tensor.digest:
            raise IntegrityError(
                f"tensor {tensor.name} is damaged in {', '.join(piece.blob for piece in tensor.pieces)}",
                found=found,
                expected=tensor.digest,
                hint="run: modelkeep fsck",
            )
    return sum(map(_size, group))
