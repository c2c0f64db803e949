"""What a rule is: one thing that changed between Keras versions, in one kind of object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

JSON: TypeAlias = dict[str, Any]
Kind = Literal["layer", "initializer", "regularizer", "constraint", "optimizer", "schedule", "loss", "metric", "policy"]


@dataclass(frozen=True, slots=True)
class Note:
    """What a rule did at one place of a config, or why it could do nothing."""

    rule: str
    place: str  # names of the layers around it, and its own: "encoder/bidirectional"
    message: str


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A version of Keras, as far as configs tell them apart."""

    major: int
    minor: int

    @classmethod
    def of(cls, text: str | None) -> Version:
        """From ``2.12.0`` or ``2.2.4-tf``; an HDF5 file that does not say is of Keras 1, which wrote no version."""
        numbers = re.findall(r"\d+", text or "1")
        return cls(int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0)

    @classmethod
    def told_by(cls, config: Any) -> Version:
        """From the config itself, where nobody says: a config by itself has no version in Keras 2 and 3."""
        keys = set(_keys(config))
        if "module" in keys and "batch_input_shape" not in keys:
            return cls(3, 0)
        return cls(1, 0) if keys & _ONLY_IN_KERAS_1 else cls(2, 0)

    @property
    def is_legacy(self) -> bool:
        """Whether it is older than Keras 3."""
        return self.major < 3


_ONLY_IN_KERAS_1 = frozenset({"nb_filter", "inner_init", "border_mode", "dim_ordering", "W_regularizer", "dropout_W"})


def _keys(config: Any) -> Iterator[str]:
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


@dataclass(slots=True)
class Node:
    """An object in a config, while rules change it in place."""

    kind: Kind
    class_name: str
    config: JSON
    version: Version
    place: str
    kept: bool = False  # by modelkeep, as it was
    refusals: list[str] = field(default_factory=list)

    def refuse(self, why: str) -> None:
        """Say why nothing in Keras 3 does what this object did."""
        self.refusals.append(why)


Apply = Callable[[Node], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One change of Keras. ``apply`` says what it did, or gives None where there was nothing to do."""

    id: str
    kind: Kind
    classes: frozenset[str]  # empty: all of the kind
    versions: str  # of Keras, that wrote what it is about
    why: str
    apply: Apply

    def concerns(self, node: Node) -> bool:
        """Whether the rule is about this object."""
        return node.kind == self.kind and (not self.classes or node.class_name in self.classes)


class Rules(list[Rule]):
    """The rules of one module, in order; as a decorator's maker it enters a function among them."""

    def __call__(
        self, id: str, *classes: str, kind: Kind = "layer", versions: str = "all before 3"
    ) -> Callable[[Apply], Apply]:
        """Enter a function under an id that is used once. The first line of its docstring is the reason."""

        def enter(apply: Apply) -> Apply:
            why = (apply.__doc__ or "").partition("\n")[0]
            self.append(Rule(id, kind, frozenset(classes), versions, why, apply))
            return apply

        return enter
