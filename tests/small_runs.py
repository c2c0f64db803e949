"""Checkpoints of a few bytes, for tests of runs: real blobs, manifests and entries, no training behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelkeep.checkpoint import Checkpoint
from modelkeep.curves import Curves
from modelkeep.manifest import Manifest, Part, Piece, encode
from modelkeep.retention import Retention
from modelkeep.runs import CURVES, Progress, Runs, version_of
from modelkeep.storage.blobs import Blobs, TensorSource
from modelkeep.storage.protocol import ObjectStore
from modelkeep.testing.faults import Fault, FaultyStore, Method


def source(name: str, data: bytes) -> TensorSource:
    """A tensor of bytes."""
    return TensorSource(name=name, dtype="uint8", shape=(len(data),), nbytes=len(data), read=lambda: data)


def draft(
    blobs: Blobs,
    run: str,
    step: int,
    tensors: Mapping[str, bytes],
    *,
    known: Mapping[str, tuple[Piece, ...]] | None = None,
    curves: Curves | None = None,
    **said: Any,
) -> Checkpoint:
    """Write what a checkpoint is made of, each tensor a blob of its own; the entry is still to be added."""
    logged = b"" if curves is None else curves.to_json()
    written = [blobs.write([source(name, data)], known=known) for name, data in tensors.items()]
    manifest = Manifest(
        model=run,
        version=version_of(step),
        created="2024-05-01T00:00:00Z",
        writer="modelkeep tests",
        kind="weights",
        parts=(Part(name=CURVES, digest=blobs.put(logged), size=len(logged)),) if logged else (),
        tensors=tuple(tensor for part in written for tensor in part.tensors),
    )
    digest, created = blobs.put_new(encode(manifest))
    created_blobs = {blob: time for part in written for blob, time in part.created.items()}
    return Checkpoint(
        run=run,
        step=step,
        manifest=digest,
        size=manifest.size,
        new_bytes=sum(part.new_bytes for part in written),
        created_blobs=created_blobs | ({} if created is None else {digest: created}),
        **{"epoch": 0, "step_in_epoch": step, "reason": "interval", **said},
    )


def add(store: ObjectStore, run: str, step: int, *tensors: bytes, runs: Runs | None = None, **said: Any) -> Checkpoint:
    """Write and add a checkpoint, as a process of its own unless ``runs`` is given."""
    blobs = Blobs(store)
    named = {f"weights/{position}": data for position, data in enumerate(tensors or (b"step %d" % step,))}
    return (runs or Runs(store, blobs)).add(draft(blobs, run, step, named, **said))


class GoingOn(FaultyStore):
    """The run ``r`` goes on whenever its entries, or any blob, are asked for: a checkpoint more, and none but it."""

    def __init__(self, inner: ObjectStore, turns: int) -> None:
        super().__init__(inner)
        self.turns = turns
        self.runs = Runs(inner, Blobs(inner))

    def _begin(self, method: Method, key: str) -> Sequence[Fault]:
        if self.turns and ("r/entries" in key or method == "map"):
            self.turns -= 1
            last = self.runs.find("r")
            known = {tensor.digest: tensor.pieces for tensor in self.runs.manifest(last).tensors}
            add(self.inner, "r", last.step + 1, b"frozen", b"%d" % last.step, runs=self.runs, known=known)
            self.runs.prune("r", Retention(last=1))
            self.runs.put_progress("r", Progress(step=last.step + 1, epoch=0))
        return super()._begin(method, key)
