"""The objects of a TensorFlow checkpoint: which holds which under what name, and which tensor is whose value.

``TrackableObjectGraph`` (tensorflow/core/protobuf/trackable_object_graph.proto) and the ``SavedObjectGraph`` of a
SavedModel number their objects alike: 0 is the root, and children are named as the attributes of Python
objects were, ``layer_with_weights-0`` or ``kernel``, or by place in a list. An object may have several parents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelkeep.errors import IntegrityError
from modelkeep.formats.limits import Limits
from modelkeep.formats.protobuf import Message, fields

KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"  # of the tensor that holds the graph
VALUE = "VARIABLE_VALUE"  # the attribute of a variable
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # of the keys of variables
SLOT = "/.OPTIMIZER_SLOT/"  # between a variable, and an optimizer and its word for a slot


@dataclass(frozen=True, slots=True)
class Slot:
    """What an optimizer keeps for one variable: the numbers of both objects, and its word for it, such as "m"."""

    variable: int
    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Node:
    """One object."""

    children: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)  # attribute → key of its tensor in the checkpoint
    full_name: str = ""  # of a variable: "dense/kernel"
    slots: tuple[Slot, ...] = ()


class ObjectGraph:
    """All objects, by number. Every number that is named is that of an object."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        """Raises IntegrityError where an object is named that is not there."""
        self.nodes = tuple(nodes)
        count = len(self.nodes)
        for node in self.nodes:
            named = [*node.children.values(), *(slot.variable for slot in node.slots), *(s.value for s in node.slots)]
            if any(not 0 <= number < count for number in named):
                raise IntegrityError(
                    "an object graph names objects that it lacks", found=max(named), expected=f"below {count}"
                )

    def at(self, path: Iterable[str]) -> int | None:
        """The number of the object at a path of names from the root; None where there is none."""
        number = 0 if self.nodes else None
        for name in path:
            number = None if number is None else self.nodes[number].children.get(name)
        return number

    def name_of(self, number: int) -> str:
        """The name of the variable of that number: its key without what all keys end with; "" for other objects."""
        return self.nodes[number].keys.get(VALUE, "").removesuffix(SUFFIX)

    def below(self, number: int) -> set[int]:
        """The numbers of all objects that one leads to, its own among them."""
        found, waiting = {number}, [number]
        while waiting:
            fresh = set(self.nodes[waiting.pop()].children.values()) - found
            found |= fresh
            waiting += fresh
        return found


def read_graph(data: memoryview, limits: Limits) -> ObjectGraph:
    """The objects of a ``TrackableObjectGraph``. Raises IntegrityError, LimitExceeded."""
    nodes: list[Node] = []
    for number, value in fields(data):
        if number == 1 and isinstance(value, memoryview):
            limits.check("objects", len(nodes) + 1, "too many objects in a checkpoint")
            nodes.append(_node(Message(value)))
    return ObjectGraph(nodes)


def children(node: Message) -> dict[str, int]:
    """The children that an object of either graph has, by their names."""
    return {reference.text(2): reference.integer(1) for reference in node.messages(1)}


def slots(node: Message) -> tuple[Slot, ...]:
    """The slot variables that an object of either graph has, where it is an optimizer."""
    return tuple(Slot(slot.integer(1), slot.text(2), slot.integer(3)) for slot in node.messages(3))


def _node(node: Message) -> Node:
    attributes = list(node.messages(2))
    return Node(
        children=children(node),
        keys={attribute.text(1): attribute.text(3) for attribute in attributes},
        full_name=next((name for attribute in attributes if (name := attribute.text(2))), ""),
        slots=slots(node),
    )
