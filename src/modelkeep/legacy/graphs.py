"""Calls between layers in a functional model: from lists of places to arguments by position and by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from modelkeep.legacy import operations
from modelkeep.legacy.rules import JSON, Note

_CONSTANT = "_CONSTANT_VALUE"
_RECURRENT = frozenset({"RNN", "LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional"})
_UNSET = frozenset({"training", "mask"})  # arguments that say nothing where they are None


def upgrade(config: JSON, place: str, notes: list[Note]) -> list[Note]:
    """Make the calls in a functional config new, in place; what cannot be is in the answer."""
    graph = _Graph(config, place, notes)
    graph.calls()
    graph.ends()
    graph.operations()
    graph.drop_shapes()
    return graph.refusals


class _Graph:
    def __init__(self, config: JSON, place: str, notes: list[Note]) -> None:
        self.config, self.place, self.notes = config, place, notes
        self.refusals: list[Note] = []
        self.layers: dict[str, JSON] = {layer["name"]: layer for layer in config["layers"]}
        self.offsets = self._offsets()

    def _offsets(self) -> dict[str, int]:
        """How many calls each layer had before those that the model keeps.

        A nested model was called once when it was made, so its calls were counted from one. Every kept call is used
        by another, so the highest number used tells.
        """
        highest: Counter[str] = Counter()
        for name, index in self._references():
            highest[name] = max(highest[name], index)
        return {
            name: max(0, highest[name] - max(0, len(layer["inbound_nodes"]) - 1)) for name, layer in self.layers.items()
        }

    def _references(self) -> Iterator[tuple[str, int]]:
        waiting: list[Any] = [self.config["input_layers"], self.config["output_layers"]]
        waiting += [layer["inbound_nodes"] for layer in self.config["layers"]]
        while waiting:
            value = waiting.pop()
            if self.is_tensor(value):
                yield value[0], value[1]
            if isinstance(value, list):
                waiting += value
            elif isinstance(value, dict):
                waiting += value.values()

    def is_tensor(self, value: Any) -> bool:
        """Whether a list is a place: a layer's name, which of its calls, which of its outputs, arguments."""
        return (
            isinstance(value, list)
            and len(value) in (3, 4)
            and isinstance(value[0], str)
            and value[0] in self.layers
            and all(isinstance(number, int) for number in value[1:3])
        )

    # --- calls

    def calls(self) -> None:
        for layer in self.config["layers"]:
            layer["inbound_nodes"] = [self.call(layer, node) for node in layer["inbound_nodes"]]

    def call(self, layer: JSON, node: Any) -> JSON:
        if isinstance(node, dict):  # as Keras 3 writes it
            return node
        keywords: JSON = {}
        first = self.first(node, keywords)
        if isinstance(first, list) and len(first) == 1 and layer["class_name"] not in operations.CLASSES:
            first = first[0]
        named = self.keywords(keywords)
        if layer["class_name"] in _RECURRENT and isinstance(first, list):
            # What a state began with was an input among the others.
            first, named = first[0], {"initial_state": first[1:], **named}
        return {"args": [first], "kwargs": named}

    def first(self, value: Any, keywords: JSON) -> Any:
        """The first argument: tensors in lists or mappings; each brings the other arguments along."""
        if isinstance(value, list) and len(value) > 3 and isinstance(value[3], dict) and isinstance(value[0], str):
            keywords.update(value[3])
        if self.is_tensor(value):
            return self.tensor(value)
        if isinstance(value, list):
            if value and value[0] == _CONSTANT:
                return operations.constant(value[2])
            return [self.first(inner, keywords) for inner in value]
        if isinstance(value, dict):
            return {key: self.first(inner, keywords) for key, inner in value.items()}
        return value

    def keywords(self, keywords: JSON) -> JSON:
        return {
            name: self.argument(value) for name, value in keywords.items() if not (value is None and name in _UNSET)
        }

    def argument(self, value: Any) -> Any:
        if self.is_tensor(value):
            return self.tensor(value)
        if isinstance(value, list):
            return [self.argument(inner) for inner in value]
        if isinstance(value, dict):
            return {key: self.argument(inner) for key, inner in value.items()}
        return value

    def tensor(self, value: list[Any]) -> JSON:
        name, index, output = value[:3]
        return _tensor(name, index - self.offsets[name], output)

    # --- operations of TensorFlow

    def operations(self) -> None:
        """Put Keras' operations in the places of TensorFlow's."""
        layers: list[JSON] = []
        for layer in self.config["layers"]:
            layers += self.operation(layer) if layer["class_name"] in operations.CLASSES else [layer]
        self.config["layers"] = [layer for layer in layers if layer is not None]

    def operation(self, layer: JSON) -> list[JSON]:
        name, function = layer["name"], _function(layer)
        place = f"{self.place}/{name}" if self.place else name
        if function in _SHAPES or self._is_of_a_shape(layer):
            return [layer]  # looked at once more when all else is done
        try:
            made = [_made(layer, call) for call in layer["inbound_nodes"]]
        except operations.Unknown as unknown:
            self.refusals.append(Note("tensorflow-operation", place, str(unknown)))
            return [layer]
        first = made[0]
        if any((each.place, each.config, each.then) != (first.place, first.config, first.then) for each in made):
            self.refusals.append(Note("tensorflow-operation", place, f"tf.{function} is called in two ways"))
            return [layer]
        calls = [{"args": each.inputs, "kwargs": each.keywords} for each in made]
        words = first.place if not first.then else f"{first.place} and {first.then}"
        self.notes.append(Note("tensorflow-operation", place, f"tf.{function} is {words} of Keras"))
        if not first.then:
            return [_operation(name, first.place, first.config, calls)]
        inner = _free(f"{name}_inner", self.layers)
        outer = [{"args": [_tensor(inner, index, 0)], "kwargs": {}} for index in range(len(calls))]
        return [_operation(inner, first.place, first.config, calls), _operation(name, first.then, {}, outer)]

    def _is_of_a_shape(self, layer: JSON) -> bool:
        """Whether an operation takes one length out of a shape."""
        history = [_history(call["args"][0]) for call in layer["inbound_nodes"]]
        return all(name is not None and str(self.layers[name]["config"].get("function")) in _SHAPES for name in history)

    def drop_shapes(self) -> None:
        """Leave out shapes whose lengths nobody uses any more; where somebody does, say so."""
        for _ in range(2):  # a length is taken out of a shape
            used = set(self._used())
            self.config["layers"] = [
                layer
                for layer in self.config["layers"]
                if layer["class_name"] not in operations.CLASSES or layer["name"] in used
            ]
        said = {note.place.rpartition("/")[2] for note in self.refusals}
        for layer in self.config["layers"]:
            if layer["class_name"] in operations.CLASSES and layer["name"] not in said:
                place = f"{self.place}/{layer['name']}" if self.place else layer["name"]
                why = "Keras wants lengths to be fixed, here they are computed from a tensor's shape"
                self.refusals.append(Note("tensorflow-operation", place, why))

    def _used(self) -> Iterator[str]:
        waiting: list[Any] = [layer["inbound_nodes"] for layer in self.config["layers"]]
        waiting += [self.config["output_layers"]]
        while waiting:
            value = waiting.pop()
            if (name := _history(value)) is not None:
                yield name
            elif self.is_tensor(value):
                yield value[0]
            elif isinstance(value, list | dict):
                waiting += value.values() if isinstance(value, dict) else value

    # --- inputs and outputs

    def ends(self) -> None:
        for end in ("input_layers", "output_layers"):
            self.config[end] = self.end(_single(self.config[end]))

    def end(self, value: Any) -> Any:
        if self.is_tensor(value):
            name, index, output = value
            # Of an inner functional model Keras 3 counts the calls from one here, and only here.
            first = 1 if self.layers[name]["class_name"] == "Functional" else 0
            return [name, index - self.offsets[name] + first, output]
        if isinstance(value, list):
            return [self.end(inner) for inner in value]
        return {key: self.end(inner) for key, inner in value.items()}


def _single(ends: Any) -> Any:
    """Keras 2 wrote one tensor as a list of one; its model gave and took the tensor itself."""
    return ends[0] if isinstance(ends, list) and len(ends) == 1 else ends


_SHAPES = frozenset({"shape", "compat.v1.shape"})


def _tensor(name: str, call: int, output: int) -> JSON:
    """What a call of a layer gave, as Keras 3 writes it. It reads no more than the history."""
    form = {"shape": [None], "dtype": "float32", "keras_history": [name, call, output]}
    return {"class_name": "__keras_tensor__", "config": form}


def _history(value: Any) -> str | None:
    """The layer that gave a tensor; None for anything else."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return str(value["config"]["keras_history"][0])
    return None


def _operation(name: str, place: str, config: JSON, calls: list[JSON]) -> JSON:
    module, class_name = operations.module_of(place)
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": name, **config},
        "name": name,
        "inbound_nodes": calls,
    }


def _function(layer: JSON) -> str:
    config = layer["config"]
    return str(config["node_def"].get("op") if isinstance(config.get("node_def"), dict) else config.get("function"))


def _made(layer: JSON, call: JSON) -> operations.Operation:
    first = call["args"][0]
    if layer["class_name"] == "TensorFlowOpLayer":
        return operations.of_node(layer["config"], first)
    return operations.operation(_function(layer), first, call["kwargs"])


def _free(name: str, taken: JSON) -> str:
    while name in taken:
        name += "_"
    return name
