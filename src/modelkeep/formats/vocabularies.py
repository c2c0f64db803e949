"""The vocabularies of lookup layers in a SavedModel of Keras 2, where its config has none or only a path.

The layer's table is an object of the graph. It is filled from a text file, which is an asset of the model, or from two
constants of the graph, keys and values, which the function that fills the table captures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from modelkeep.errors import IntegrityError
from modelkeep.formats.json_walk import mapped
from modelkeep.formats.object_graph import children
from modelkeep.formats.protobuf import Message
from modelkeep.formats.tf_graph import Node

Vocabulary = list[str] | list[int]

# From a layer to its table.
_TABLES = (("lookup_table",), ("_lookup_layer", "lookup_table"))
_FILE = ("_initializer", "_filename")
_STRING, _INT64 = 7, 9  # DT_STRING, DT_INT64


class Tables:
    """What the tables of a graph are filled with."""

    def __init__(self, objects: Message, nodes: Iterable[Node], asset: Callable[[int], bytes | None]) -> None:
        """``objects`` are a SavedObjectGraph, ``nodes`` those of the outer graph; ``asset`` reads one by its number."""
        self._nodes = list(objects.messages(1))
        self._functions = objects.map(2)
        self._constants = {node.name: node for node in nodes if node.op == "Const"}
        self._asset = asset

    def vocabulary(self, layer: int) -> Vocabulary | None:
        """What the layer of that number looks up, in order; None where it has no table, or one filled otherwise."""
        for path in _TABLES:
            if (table := self._at(layer, path)) is not None:
                return self._from_file(table) or self._from_constants(table)
        return None

    def _at(self, start: int, path: Iterable[str]) -> int | None:
        number: int | None = start
        for name in path:
            known = number is not None and 0 <= number < len(self._nodes)
            number = children(self._nodes[number]).get(name) if known and number is not None else None
        return number if number is not None and 0 <= number < len(self._nodes) else None

    def _from_file(self, table: int) -> Vocabulary | None:
        file = self._at(table, _FILE)
        if file is None or 5 not in self._nodes[file]:
            return None
        data = self._asset(self._nodes[file].message(5).integer(1))
        return None if data is None else _texts(data.splitlines())

    def _from_constants(self, table: int) -> Vocabulary | None:
        filling = self._at(table, ("_initialize",))
        names = self._nodes[filling].message(6).texts(1) if filling is not None else []
        captured = self._functions[names[0]].integers(2) if names and names[0] in self._functions else []
        held = [self._nodes[number].message(9).text(1) for number in captured if 0 <= number < len(self._nodes)]
        values = [_values(self._constants[name]) for name in held if name in self._constants]
        if len(values) != 2 or any(value is None for value in values):
            return None
        keys, order = (value or [] for value in values)
        # A layer that turns numbers into texts has them the other way round.
        texts, numbers = (keys, order) if isinstance(next(iter(order), 0), int) else (order, keys)
        if len(texts) != len(numbers):
            raise IntegrityError(
                "a lookup table has not as many values as keys", found=len(numbers), expected=len(texts)
            )
        return [text for _, text in sorted(zip(numbers, texts, strict=True))]  # type: ignore[return-value]


def filled_in(config: Any, vocabularies: Mapping[str, Vocabulary]) -> Any:
    """A copy of a config in which layers of these names have their vocabulary, where none or a path stood."""

    def filled(record: dict[str, Any]) -> Any:
        name, stands = record.get("name"), record.get("vocabulary", [])
        if isinstance(name, str) and name in vocabularies and (stands is None or isinstance(stands, str)):
            return {**record, "vocabulary": vocabularies[name]}
        return record

    return mapped(config, filled)


def _values(node: Node) -> Vocabulary | None:
    """A constant's texts or whole numbers; None where it holds anything else or is not UTF-8."""
    value = node.attribute("value").message(8)
    kind = value.unsigned(1)
    if kind == _STRING:
        return _texts(map(bytes, value.views(8)))
    if kind != _INT64:
        return None
    stored = bytes(value.view(4))
    packed = [int.from_bytes(stored[at : at + 8], "little", signed=True) for at in range(0, len(stored), 8)]
    return packed or value.integers(10)


def _texts(found: Iterable[bytes]) -> list[str] | None:
    try:
        return [text.decode() for text in found]
    except UnicodeDecodeError:
        return None
