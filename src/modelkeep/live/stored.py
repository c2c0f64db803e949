"""A version's parts and tensors as they lie in the store, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelkeep.errors import IntegrityError
from modelkeep.manifest import Manifest, Part, Tensor
from modelkeep.storage.blobs import Blobs

if TYPE_CHECKING:
    from modelkeep.live.capture import Captured


def put_aside(captured: Captured, blobs: Blobs) -> Manifest:
    """A captured model written where nobody names it, and its manifest: to be read again by tensor, or elsewhere."""
    parts = [Part(name=name, digest=blobs.put(data), size=len(data)) for name, data in captured.parts.items()]
    return Manifest(
        model="draft",
        version="0.0.0",
        created="",
        writer="",
        kind=captured.kind,
        signature=captured.signature,
        custom_objects=captured.custom_objects,
        parts=tuple(parts),
        tensors=blobs.write(captured.tensors).tensors,
    )


class Stored:
    """A version's parts and tensors by name, each checked against its digest when it is read."""

    def __init__(self, manifest: Manifest, blobs: Blobs) -> None:
        self._parts = {part.name: part for part in manifest.parts}
        self._tensors = {tensor.name: tensor for tensor in manifest.tensors}
        self._blobs = blobs

    def part(self, name: str) -> bytes:
        """A part's bytes. Raises IntegrityError where the manifest has none of that name."""
        if name not in self._parts:
            raise IntegrityError(f"the manifest has no part {name!r}", hint="run: modelkeep fsck")
        return self._blobs.get(self._parts[name].digest, limit=self._parts[name].size)

    def tensor(self, name: str) -> tuple[Tensor, memoryview]:
        """A tensor's record and private bytes. Raises IntegrityError where the manifest has none of that name."""
        if name not in self._tensors:
            raise IntegrityError(f"the manifest has no tensor {name!r}", hint="run: modelkeep fsck")
        tensor = self._tensors[name]
        return tensor, self._blobs.map([tensor]).views[name]
