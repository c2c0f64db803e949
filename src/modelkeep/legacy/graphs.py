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
            made = [self.call(layer, node) for node in layer["inbound_nodes"]]
            if layer["class_name"] in operations.CLASSES:
                made = self.operation(layer, made)
            layer["inbound_nodes"] = made

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
        history = [name, index - self.offsets[name], output]
        # Keras takes the tensor by its history; the form is written to be complete.
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None], "dtype": "float32", "keras_history": history},
        }

    # --- operations of TensorFlow

    def operation(self, layer: JSON, calls: list[JSON]) -> list[JSON]:
        place = f"{self.place}/{layer['name']}" if self.place else layer["name"]
        try:
            message = operations.upgrade(layer, calls)
        except operations.Unknown as unknown:
            self.refusals.append(Note("tensorflow-operation", place, str(unknown)))
            return calls
        self.notes.append(Note("tensorflow-operation", place, message))
        return calls

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
