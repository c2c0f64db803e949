"""Models into a store and out again, by capture and restore alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np

from modelkeep import manifest as manifests
from modelkeep.live.capture import Captured, capture
from modelkeep.live.restore import restore, restore_into
from modelkeep.live.variables import internals, inventory, view
from modelkeep.manifest import Manifest, Part
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore


@dataclass
class Kept:
    """A model that was captured and written."""

    manifest: Manifest
    blobs: Blobs
    objects: Mapping[str, object]

    def part(self, name: str) -> bytes:
        return self.blobs.get(next(part.digest for part in self.manifest.parts if part.name == name))

    def back(self, **options: Any) -> keras.Model:
        views = self.blobs.map(self.manifest.tensors).views
        return restore(self.manifest, self.part, views, **{"objects": self.objects, **options})

    def into(self, model: keras.Model) -> keras.Model:
        restore_into(model, self.manifest, self.part, self.blobs.map(self.manifest.tensors).views)
        return model

    def changed(self, **fields: Any) -> Kept:
        """The same with another manifest."""
        return Kept(msgspec.structs.replace(self.manifest, **fields), self.blobs, self.objects)

    def with_part(self, name: str, data: bytes) -> Kept:
        """The same with one part replaced."""
        part = Part(name=name, digest=self.blobs.put(data), size=len(data))
        return self.changed(parts=(*(old for old in self.manifest.parts if old.name != name), part))


def keep(model: keras.Model, folder: Path | None = None, **options: Any) -> Kept:
    """Capture a model and write it to memory, or to a folder where :func:`kept_in` finds it again."""
    return write(capture(model, **options), folder)


def write(captured: Captured, folder: Path | None = None) -> Kept:
    blobs = Blobs(LocalStore(folder) if folder else MemoryStore())
    parts = tuple(
        Part(name=name, digest=blobs.put(data), size=len(data)) for name, data in sorted(captured.parts.items())
    )
    manifest = Manifest(
        model="m",
        version="1.0.0",
        created="2026-05-01T12:00:00Z",
        writer="modelkeep",
        kind=captured.kind,
        parameters=captured.parameters,
        trainable_parameters=captured.trainable_parameters,
        signature=captured.signature,
        custom_objects=captured.custom_objects,
        parts=parts,
        tensors=blobs.write(captured.tensors).tensors,
    )
    if folder:
        (folder / "manifest.json").write_bytes(manifests.encode(manifest))
    return Kept(manifest, blobs, captured.objects)


def kept_in(folder: Path, objects: Mapping[str, object]) -> Kept:
    """What :func:`keep` wrote to a folder, perhaps in another process."""
    manifest = manifests.decode((folder / "manifest.json").read_bytes())
    return Kept(manifest, Blobs(LocalStore(folder)), objects)


def state(model: keras.Model, like: keras.Model | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """A copy of every variable of a model, by the name it is stored under; numbered as in another if given."""
    names = {name: one.path for name, one in inventory(internals.walk(like)).variables.items()} if like else None
    found = inventory(internals.walk(model), names)
    return {name: np.array(view(variable)) for name, variable in found.variables.items()}


def assert_same_state(a: keras.Model, b: keras.Model) -> None:
    """The same variables, and every bit of them the same."""
    left, right = state(a), state(b, like=a)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name].tobytes() != right[name].tobytes()] == []


def numbers_in(value: Any) -> list[Any]:
    """The leaves of nested outputs, as arrays."""
    return [keras.ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(value)]
