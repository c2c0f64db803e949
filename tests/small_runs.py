"""Checkpoints of a few bytes, for tests of runs: real blobs, manifests and entries, no training behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelkeep.checkpoint import Checkpoint
from modelkeep.curves import Curves
from modelkeep.manifest import Manifest, Part, Piece, encode
from modelkeep.runs import CURVES, Runs, version_of
from modelkeep.storage.blobs import Blobs, TensorSource
from modelkeep.storage.protocol import ObjectStore


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
