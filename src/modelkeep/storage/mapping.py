"""Tensors out of the store: mapped into private memory, and verified on every core."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from modelkeep.errors import IntegrityError
from modelkeep.manifest import ALIGNMENT, Piece, Tensor
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.protocol import Progress

_GROUP = 8 * 2**20  # bytes verified as one job

Verify = Literal["eager", "lazy"] | None


@dataclass(slots=True)
class Mapped:
    """Tensors as private writable memory, each at a multiple of 64 bytes, by name.

    Nothing written to it reaches the store. With lazy verification, damage is told by
    :meth:`raise_if_damaged` as soon as it is known, and by :meth:`wait` for certain.
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


def map_tensors(
    map_blob: Callable[[str], memoryview], tensors: Sequence[Tensor], *, verify: Verify, progress: Progress | None
) -> Mapped:
    """See :meth:`modelkeep.storage.blobs.Blobs.map`. ``map_blob`` is called once for each blob."""
    maps: dict[str, memoryview] = {}
    for tensor in tensors:
        for piece in tensor.pieces:
            if piece.blob not in maps:
                maps[piece.blob] = map_blob(piece.blob)
    views = {tensor.name: _view(tensor, maps) for tensor in tensors}
    jobs = [(tensor, views[tensor.name]) for tensor in tensors]
    if verify == "eager":
        _verify(jobs, progress)
    return Mapped(views, _verify_in_background(jobs) if verify == "lazy" else None)


def _view(tensor: Tensor, maps: dict[str, memoryview]) -> memoryview:
    pieces = [_piece(tensor, piece, maps[piece.blob]) for piece in tensor.pieces]
    if len(pieces) == 1 and tensor.pieces[0].offset % ALIGNMENT == 0:
        return pieces[0]
    return _aligned_copy(pieces)


def _piece(tensor: Tensor, piece: Piece, blob: memoryview) -> memoryview:
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
    size = sum(map(len, pieces))
    # An anonymous map begins at a page, and so at a multiple of 64.
    memory = memoryview(mmap.mmap(-1, size)) if size else memoryview(bytearray())
    offset = 0
    for piece in pieces:
        memory[offset : offset + len(piece)] = piece
        offset += len(piece)
    return memory


def _verify_in_background(jobs: Sequence[tuple[Tensor, memoryview]]) -> Future[None]:
    verification: Future[None] = Future()

    def run() -> None:
        try:
            _verify(jobs, None)
        except BaseException as error:  # noqa: BLE001 - handed on to whoever asks
            verification.set_exception(error)
        else:
            verification.set_result(None)

    threading.Thread(target=run, name="modelkeep-verify").start()
    return verification


def _verify(jobs: Sequence[tuple[Tensor, memoryview]], progress: Progress | None) -> None:
    total = sum(len(view) for _, view in jobs)
    done = 0
    with ThreadPoolExecutor(os.cpu_count(), "modelkeep-verify") as pool:
        for size in pool.map(_verify_group, list(_verify_groups(jobs))):
            done += size
            if progress is not None:
                progress("verifying", done, total)


def _verify_groups(jobs: Sequence[tuple[Tensor, memoryview]]) -> Iterator[list[tuple[Tensor, memoryview]]]:
    group: list[tuple[Tensor, memoryview]] = []
    size = 0
    for job in jobs:
        group.append(job)
        size += len(job[1])
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _verify_group(group: list[tuple[Tensor, memoryview]]) -> int:
    size = 0
    for tensor, view in group:
        if digest_of(view) != tensor.digest:
            raise IntegrityError(
                f"tensor {tensor.name} is damaged in {', '.join(piece.blob for piece in tensor.pieces)}",
                expected=tensor.digest,
                hint="run: modelkeep fsck",
            )
        size += len(view)
    return size
