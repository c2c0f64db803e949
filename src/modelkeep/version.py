"""A version as the library hands it out: its name, its numbers, and its manifest when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from modelkeep.catalog import Attachment, VersionRecord
from modelkeep.manifest import Manifest
from modelkeep.refs import SemVer, short_digest
from modelkeep.sizes import human_bytes


@dataclass(frozen=True)
class Version:
    """One published version. Prints as ``sentiment:1.1.0  blake3:9f2c41d0  5.4 MB (0.3 MB new)``."""

    model: str
    version: SemVer
    digest: str  # of the manifest: the version's identity
    kind: str  # "whole", "weights" where no architecture was kept, "servable" where there is no Keras model
    size: int  # bytes of everything it is made of
    new_bytes: int  # bytes that its save added to the store
    parameters: int
    metrics: Mapping[str, Any] = field(hash=False)
    metadata: Mapping[str, Any] = field(hash=False)
    tags: tuple[str, ...]
    note: str | None
    created: str  # RFC 3339, UTC
    actor: str
    yanked: bool
    attachments: tuple[Attachment, ...] = field(hash=False)
    weights: Mapping[str, float] | None = field(hash=False)  # per cent by version, where a split alias selected it
    _read_manifest: Callable[[], Manifest] = field(repr=False, compare=False)

    @classmethod
    def of(
        cls,
        model: str,
        record: VersionRecord,
        read_manifest: Callable[[], Manifest],
        *,
        weights: Mapping[str, float] | None = None,
    ) -> Version:
        """A version from what the ledger tells of it."""
        return cls(
            model=model,
            version=SemVer.parse(record.version),
            digest=record.digest,
            kind=record.kind,
            size=record.size,
            new_bytes=record.new_bytes,
            parameters=record.parameters,
            metrics=_own(record.metrics),
            metadata=_own(record.metadata),
            tags=record.tags,
            note=record.note,
            created=record.created,
            actor=record.actor,
            yanked=record.yanked,
            attachments=record.attachments,
            weights=dict(weights) if weights is not None and len(weights) > 1 else None,
            _read_manifest=read_manifest,
        )

    @cached_property
    def manifest(self) -> Manifest:
        """Everything the version says of itself; read, and checked against :attr:`digest`, on first use."""
        return self._read_manifest()

    @property
    def ref(self) -> str:
        """``model:version``."""
        return f"{self.model}:{self.version}"

    def __str__(self) -> str:
        return f"{self.ref}  {short_digest(self.digest)}  {human_bytes(self.size)} ({human_bytes(self.new_bytes)} new)"


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy: whoever changes what a version told them must not change what the registry remembers."""
    copied: dict[str, Any] = msgspec.to_builtins(values)
    return copied
