"""Versions of a few bytes, for tests of names: real blobs, manifests and entries, no model in them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from modelkeep.catalog import VersionRecord
from modelkeep.manifest import Manifest, Part, Piece, Tensor
from modelkeep.refs import SemVer
from modelkeep.registry import Registry
from modelkeep.storage.hashing import digest_of


def publish(
    registry: Registry,
    model: str,
    version: str | None = None,
    *,
    bump: Any = None,
    part: bytes = b"{}",
    tensors: Sequence[bytes] = (),
    reason: str | None = None,
    **said: Any,
) -> VersionRecord:
    """Publish a version of one part and of tensors that share one pack; ``said`` is more of its manifest."""
    fresh_since = time.monotonic()
    parts = (Part(name="config.json", digest=registry.blobs.put(part), size=len(part)),)
    packed = pack(registry, tensors) if tensors else ()

    def build(number: SemVer) -> Manifest:
        return Manifest(
            model=model,
            version=str(number),
            created="2024-05-01T00:00:00Z",
            writer="modelkeep tests",
            parts=parts,
            tensors=packed,
            **said,
        )

    return registry.publish(
        model, build, version=version, bump=bump, new_bytes=len(part), fresh_since=fresh_since, reason=reason
    )


def pack(registry: Registry, tensors: Sequence[bytes]) -> tuple[Tensor, ...]:
    """Put tensors into one blob, one after the other."""
    blob = registry.blobs.put(b"".join(tensors))
    offsets = [sum(map(len, tensors[:position])) for position in range(len(tensors))]
    return tuple(
        Tensor(
            name=f"weights/{position}",
            dtype="uint8",
            shape=(len(data),),
            digest=digest_of(data),
            pieces=(Piece(blob=blob, offset=offset, size=len(data)),),
        )
        for position, (data, offset) in enumerate(zip(tensors, offsets, strict=True))
    )
