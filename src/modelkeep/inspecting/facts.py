"""What is told of a model file: values that are JSON as they are, since they come from a process of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from modelkeep.manifest import Signature, TensorSpec


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all of them."""

    # Neither msgspec nor mypy hands these options down, so each says them again.


class Stats(_Facts, frozen=True, kw_only=True):
    """What the numbers of a tensor are like. ``minimum``, ``maximum`` and ``mean`` are of the finite ones."""

    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    nan: int = 0
    infinite: int = 0


class TensorFacts(_Facts, frozen=True, kw_only=True):
    """One array of the file, under its name there."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    stats: Stats | None = None


class LayerFacts(_Facts, frozen=True, kw_only=True):
    """One layer or operation, as its config tells. A length or shape that is not known is None."""

    name: str
    class_name: str
    custom: bool = False  # not Keras' own
    inputs: tuple[str, ...] = ()  # the layers that feed it; of its own kind, by name
    output_shape: tuple[int | None, ...] | None = None
    dtype: str | None = None
    parameters: int | None = None
    trainable: bool = True
    settings: dict[str, Any] = {}
    layers: tuple[LayerFacts, ...] = ()  # within it: of a nested model or a wrapper

    def walk(self, depth: int = 0) -> Iterator[tuple[int, LayerFacts]]:
        """This layer and all within it, each with how deep it lies."""
        yield depth, self
        for layer in self.layers:
            yield from layer.walk(depth + 1)


class CustomFacts(_Facts, frozen=True, kw_only=True):
    """A class or function that is not Keras' own, and the layers that need it."""

    name: str
    module: str | None = None
    used_by: tuple[str, ...] = ()


class CompileFacts(_Facts, frozen=True, kw_only=True):
    """What ``compile`` was given, as text where it is an object."""

    optimizer: str | None = None
    optimizer_settings: dict[str, Any] = {}
    loss: Any = None
    metrics: Any = None


class MemberFacts(_Facts, frozen=True, kw_only=True):
    """A file inside the form."""

    name: str
    size: int


class ProblemFacts(_Facts, frozen=True, kw_only=True):
    """Something odd that did not stop the reading; ``modelkeep scan`` judges it."""

    rule: str
    message: str
    place: str = ""


class Architecture(_Facts, frozen=True, kw_only=True):
    """The network as its config tells it."""

    name: str
    kind: str  # Sequential, Functional, or the class of a subclassed model
    layers: tuple[LayerFacts, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    custom_objects: tuple[CustomFacts, ...] = ()


class Facts(_Facts, frozen=True, kw_only=True):
    """All that is told of one file or folder."""

    form: str
    title: str
    size: int  # bytes on disk
    writer: dict[str, str] = {}
    parameters: int = 0
    architecture: Architecture | None = None
    compiled: CompileFacts | None = None
    tensors: tuple[TensorFacts, ...] = ()
    optimizer: tuple[TensorFacts, ...] = ()
    signatures: dict[str, Signature] = {}
    members: tuple[MemberFacts, ...] = ()
    details: dict[str, Any] = {}
    problems: tuple[ProblemFacts, ...] = ()
