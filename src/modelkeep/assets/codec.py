"""What a codec is: the way of one kind of value into a version and back.

A codec is found by the value when packing and by ``kind`` when unpacking; it need not inherit anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from modelkeep.errors import IntegrityError, MissingExtra
from modelkeep.manifest import Asset, Tensor

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Packed:
    """An asset as it will be stored: its record, and the bytes and arrays that the record names."""

    asset: Asset
    parts: Mapping[str, bytes] = field(default_factory=dict)
    tensors: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """An asset as it is stored, and the means to read what its record names."""

    asset: Asset
    read_part: Callable[[str], bytes]
    read_tensor: Callable[[str], tuple[Tensor, memoryview]]
    trust: Sequence[str] = ()

    def part(self) -> bytes:
        """The one part of an asset that has one. Raises IntegrityError where the record names another number."""
        if len(self.asset.parts) != 1:
            raise self.damaged(f"{len(self.asset.parts)} parts instead of one")
        return self.read_part(self.asset.parts[0])

    def damaged(self, why: object) -> IntegrityError:
        """The error for stored bytes that are no asset of the recorded kind."""
        return IntegrityError(f"the asset {self.asset.name!r} is not a whole {self.asset.kind}: {why}")


class Codec(Protocol):
    """One kind of asset."""

    @property
    def kind(self) -> str:
        """The word for it in manifests; never changed once released."""

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` is of this kind. Must not import what the value's own library would need."""

    def pack(self, name: str, value: Any) -> Packed:
        """Raises UsageError where the value cannot be kept whole, MissingExtra where its library is not there."""

    def unpack(self, stored: Stored) -> Any:
        """Raises IntegrityError for bytes that are not of this kind, MissingExtra, UnsafeContent."""


def one_part(name: str, kind: str, data: bytes, info: dict[str, Any], ending: str = "") -> Packed:
    """An asset of one part. Names hold no ``/``, so no two assets can come to the same part."""
    part = f"assets/{name}/{kind}{ending}"
    return Packed(Asset(name=name, kind=kind, parts=(part,), info=info), {part: data})


def extra(module: str, name: str, what: str) -> ModuleType:
    """Import what the optional dependency ``name`` brings. Raises MissingExtra with the pip line."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{what} needs {module.partition('.')[0]}", hint=f"pip install 'modelkeep[{name}]'"
        ) from error
