"""TensorFlow's graphs as data: nodes, and the functions they call.

``GraphDef``, ``NodeDef``, ``FunctionDef`` and ``AttrValue`` are in tensorflow/core/framework/. Nodes are read one by
one and their attributes only where somebody asks, since a graph may have millions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from modelkeep.errors import IntegrityError
from modelkeep.formats.limits import Limits
from modelkeep.formats.protobuf import Message, fields, text


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. An input is ``node``, ``node:1`` or, where only the order matters, ``^node``."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    _attributes: tuple[memoryview, ...] = field(default=(), repr=False)

    @property
    def size(self) -> int:
        """Bytes that its attributes take in the file: a constant's value is one."""
        return sum(map(len, self._attributes))

    def attribute(self, name: str) -> Message:
        """The ``AttrValue`` of that name; one without fields where it has none."""
        for entry in map(Message, self._attributes):
            if entry.text(1) == name:
                return entry.message(2)
        return Message(b"")

    def calls(self) -> Iterator[str]:
        """The names of the functions that its attributes name: its body, branches, or what it maps over data."""
        for entry in map(Message, self._attributes):
            value = entry.message(2)
            yield from (function.text(1) for function in value.messages(10))
            yield from (function.text(1) for function in value.message(1).messages(9))


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a graph's library."""

    name: str
    arguments: tuple[str, ...]
    _data: memoryview = field(repr=False)

    def nodes(self) -> Iterator[Node]:
        """Its operations, read anew each time. Raises IntegrityError."""
        return map(_node, _of(self._data, 3))


class Graph:
    """A ``GraphDef``: the outer graph and every function of its library."""

    def __init__(self, data: memoryview, limits: Limits) -> None:
        """Raises IntegrityError, also where two functions have one name; LimitExceeded."""
        self._data = data
        self.functions: dict[str, Function] = {}
        count = 0
        for number, value in fields(data):
            if number == 2 and isinstance(value, memoryview):
                for definition in _of(value, 1):
                    limits.check("functions", len(self.functions) + 1, "a graph has too many functions")
                    self._add(definition)
                    count += sum(1 for _ in _of(definition, 3))
                    limits.check("nodes", count, "a graph has too many operations")
            elif number == 1:
                count += 1
                limits.check("nodes", count, "a graph has too many operations")

    def _add(self, definition: memoryview) -> None:
        signature = Message(next(_of(definition, 1), memoryview(b"")))
        arguments = tuple(argument.text(1) for argument in signature.messages(2))
        function = Function(signature.text(1), arguments, definition)
        if function.name in self.functions:
            raise IntegrityError("two functions of a graph have one name", found=repr(function.name))
        self.functions[function.name] = function

    def nodes(self) -> Iterator[Node]:
        """The operations of the outer graph, read anew each time. Raises IntegrityError."""
        return map(_node, _of(self._data, 1))

    def operations(self) -> Iterator[str]:
        """What each node of the outer graph and of every function does, and no more of it: several times as fast."""
        for nodes in (_of(self._data, 1), *(_of(function._data, 3) for function in self.functions.values())):
            for node in nodes:
                yield text(next(_of(node, 2), memoryview(b"")))

    def everything(self) -> Iterator[tuple[str, Node]]:
        """Every operation with the name of the function it is in, "" for the outer graph."""
        for node in self.nodes():
            yield "", node
        for function in self.functions.values():
            for node in function.nodes():
                yield function.name, node


def _of(data: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for number, value in fields(data) if number == wanted and isinstance(value, memoryview))


def _node(data: memoryview) -> Node:
    name = op = ""
    inputs, attributes = [], []
    for number, value in fields(data):
        if isinstance(value, int):
            continue
        if number == 5:
            attributes.append(value)
        elif number == 3:
            inputs.append(text(value))
        elif number == 1:
            name = text(value)
        elif number == 2:
            op = text(value)
    return Node(name, op, tuple(inputs), tuple(attributes))
