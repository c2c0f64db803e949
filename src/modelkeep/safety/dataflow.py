"""Where the value of an input comes from in a TensorFlow graph: followed backwards, through functions and variables.

An operation that opens a file is harmless or not by the file it opens. TensorFlow's own graphs hand the names of
files down from two places: the tensor that is fed with the path of ``variables/``, and those fed with the paths of
assets. What comes from anywhere else, the author of the graph has chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from modelkeep.errors import LimitExceeded
from modelkeep.formats.tf_graph import Graph, Node

MAX_STEPS = 200_000  # of following inputs, in one graph; honest ones take a few hundred

# Operations that hand on a text, or make one of several: which inputs it comes from.
_ALL = slice(None)
_HANDED_ON = {
    "Identity": _ALL,
    "IdentityN": _ALL,
    "Pack": _ALL,
    "Reshape": slice(0, 1),
    "ExpandDims": slice(0, 1),
    "Squeeze": slice(0, 1),
    "PlaceholderWithDefault": _ALL,
    "Select": slice(1, 3),
    "SelectV2": slice(1, 3),
    "ShardedFilename": slice(0, 1),
    "StringJoin": _ALL,
}
# Operations that call a function with their inputs from this one on.
_FIRST_ARGUMENT = {
    "PartitionedCall": 0,
    "StatefulPartitionedCall": 0,
    "If": 1,
    "StatelessIf": 1,
    "Case": 1,
    "StatelessCase": 1,
}
_TEXT, _INT64 = 7, 9  # DT_STRING, DT_INT64


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value begins: a ``tensor`` of the outer graph by name, the ``text`` of a constant, or else an ``op``."""

    tensor: str = ""
    text: str = ""
    op: str = ""


@dataclass(frozen=True, slots=True)
class _Call:
    caller: str  # the function it is in; "" for the outer graph
    arguments: tuple[str, ...]


class Dataflow:
    """The graph of a SavedModel, to be asked about single inputs."""

    def __init__(self, graph: Graph, fed: frozenset[str], calling: frozenset[str]) -> None:
        """``fed`` are tensors of the outer graph that get their values from outside; ``calling`` are the
        operations that may call functions."""
        self._graph = graph
        self._fed = fed
        self._calling = calling
        self._nodes: dict[str, dict[str, Node]] = {}
        self._steps = 0

    def origins(self, function: str, tensor: str) -> frozenset[Origin]:
        """Every origin of an input, which is named as the operations of ``function`` name it.

        Raises LimitExceeded.
        """
        found, seen, waiting = set(), {(function, tensor)}, [(function, tensor)]
        while waiting:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise LimitExceeded(
                    "a graph leads to its files by too many ways", expected=f"at most {MAX_STEPS:,} steps"
                )
            here = waiting.pop()
            origin, further = self._step(*here)
            if origin:
                found.add(origin)
            fresh = [place for place in further if place not in seen]
            seen.update(fresh)
            waiting += fresh
        return frozenset(found)

    def reached(self, tensors: list[str]) -> Iterator[Node]:
        """Every operation of the outer graph that is run to compute these tensors, or before it."""
        nodes, waiting, seen = self._named(""), [_node_of(tensor) for tensor in tensors], set()
        while waiting:
            name = waiting.pop()
            if name in seen or name not in nodes:
                continue
            seen.add(name)
            yield nodes[name]
            waiting += [_node_of(tensor) for tensor in nodes[name].inputs]

    def run(self, tensors: list[str]) -> Iterator[tuple[str, Node]]:
        """The same, and every operation of the functions that are called then, with the function's name."""
        waiting, seen = [("", node) for node in self.reached(tensors)], set()
        while waiting:
            function, node = waiting.pop()
            yield function, node
            called = [node.op] if node.op in self._graph.functions else []
            called += node.calls() if node.op in self._calling else ()
            for name in called:
                if name not in seen and name in self._graph.functions:
                    seen.add(name)
                    waiting += [(name, inner) for inner in self._graph.functions[name].nodes()]

    def is_constant(self, origin: Origin) -> bool:
        """Whether a tensor that is fed has a value of its own for when it is not."""
        node = self._named("").get(_node_of(origin.tensor)) if origin.tensor else None
        return node is not None and node.op != "Placeholder"

    def numbers(self, function: str, tensor: str) -> list[int]:
        """The whole numbers of a constant, such as a shape; none where it is no constant."""
        node = self._named(function).get(_node_of(tensor))
        if node is None or node.op != "Const":
            return []
        value = node.attribute("value").message(8)
        width = 8 if value.unsigned(1) == _INT64 else 4
        stored = bytes(value.view(4))
        packed = [int.from_bytes(stored[at : at + width], "little", signed=True) for at in range(0, len(stored), width)]
        return packed or value.integers(7) or value.integers(10)

    def _step(self, function: str, tensor: str) -> tuple[Origin | None, list[tuple[str, str]]]:
        """The origin, if it is one, or the places that the value comes from."""
        name = _node_of(tensor)
        if not function and f"{name}:{_index_of(tensor)}" in self._fed:
            return Origin(tensor=f"{name}:{_index_of(tensor)}"), []
        node = self._named(function).get(name)
        if node is None:
            return self._argument(function, name)
        inputs = [one for one in node.inputs if not one.startswith("^")]
        if node.op in _HANDED_ON:
            return None, [(function, one) for one in inputs[_HANDED_ON[node.op]]]
        if node.op == "ReadVariableOp":
            return None, self._assigned
        if node.op == "Const":
            return _constant(node), []
        return Origin(op=node.op), []

    def _argument(self, function: str, name: str) -> tuple[Origin | None, list[tuple[str, str]]]:
        """What the callers of a function give for one of its arguments."""
        definition = self._graph.functions.get(function)
        if definition is None or name not in definition.arguments:
            return Origin(op="nothing"), []
        index = definition.arguments.index(name)
        calls = self._calls.get(function, [])
        if not calls or any(index >= len(call.arguments) for call in calls):
            return Origin(op="an argument"), []
        return None, [(call.caller, call.arguments[index]) for call in calls]

    @cached_property
    def _assigned(self) -> list[tuple[str, str]]:
        """Whatever any text variable is given: which variable it is, a handle need not tell."""
        return [
            (function, node.inputs[1])
            for function, node in self._graph.everything()
            if node.op == "AssignVariableOp" and node.attribute("dtype").unsigned(6) == _TEXT and len(node.inputs) > 1
        ]

    @cached_property
    def _calls(self) -> dict[str, list[_Call]]:
        """Every call of each function. Where it is not known what is given for what, nothing is given."""
        calls: dict[str, list[_Call]] = {}
        for caller, node in self._graph.everything():
            inputs = tuple(one for one in node.inputs if not one.startswith("^"))
            if node.op in self._graph.functions:
                calls.setdefault(node.op, []).append(_Call(caller, inputs))
            elif node.op in self._calling:
                first = _FIRST_ARGUMENT.get(node.op, len(inputs))
                for name in node.calls():
                    calls.setdefault(name, []).append(_Call(caller, inputs[first:]))
        return calls

    def _named(self, function: str) -> dict[str, Node]:
        if function not in self._nodes:
            where = self._graph.functions.get(function)
            nodes = where.nodes() if where else self._graph.nodes()
            self._nodes[function] = {node.name: node for node in nodes}
        return self._nodes[function]


def _node_of(tensor: str) -> str:
    return tensor.lstrip("^").partition(":")[0]


def _index_of(tensor: str) -> str:
    return tensor.rpartition(":")[2] if ":" in tensor else "0"


def _constant(node: Node) -> Origin:
    texts = node.attribute("value").message(8).views(8)
    return Origin(text=" ".join(str(bytes(text), errors="replace") for text in texts))
