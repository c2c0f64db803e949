"""A version as the library hands it out: its name, its numbers, and its manifest when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from modelkeep.manifest import Manifest
from modelkeep.refs import SemVer
from modelkeep.sizes import human_bytes


@dataclass(frozen=True)
class Version:
    """One published version. Prints as ``sentiment:1.1.0  blake3:9f2c41d0  5.4 MB (0.3 MB new)``."""

    model: str
    version: SemVer
    digest: str  # of the manifest: the version's identity
    size: int  # bytes of everything it is made of
    new_bytes: int  # bytes that its save added to the store
    parameters: int
    metrics: dict[str, Any]
    metadata: dict[str, Any]
    tags: tuple[str, ...]
    created: str  # RFC 3339, UTC
    yanked: bool = False
    weights: dict[str, float] | None = None  # the alias' split it was resolved through, version → percent
    _read_manifest: Callable[[], Manifest] = field(repr=False, compare=False, kw_only=True)

    @cached_property
    def manifest(self) -> Manifest:
        """Everything the version says of itself; read, and checked against :attr:`digest`, on first use."""
        return self._read_manifest()

    @property
    def ref(self) -> str:
        """``model:version``."""
        return f"{self.model}:{self.version}"

    def __str__(self) -> str:
        return (
            f"{self.ref}  {self.digest[: len('blake3:') + 8]}  "
            f"{human_bytes(self.size)} ({human_bytes(self.new_bytes)} new)"
        )
