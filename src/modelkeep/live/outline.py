"""The layers that a config lists, in order: the path each has in Keras' files, its names, and what feeds it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelkeep.inspecting import architecture
from modelkeep.inspecting.facts import LayerFacts

Names = tuple[str, ...]
_OPERATIONS = ("keras.src.ops.", "keras.ops.")  # modules of what a functional model lists beside its layers


@dataclass(frozen=True)
class Listed:
    """A layer that is no model: ``names`` are those of the models around it and its own.

    ``inputs`` are the layers and operations that feed it, by their names.
    """

    path: str
    names: Names
    kind: str  # the class
    inputs: tuple[Names, ...]


def outline(config: Any) -> tuple[Listed, ...]:
    """Every layer and operation of a sequential or functional model's config, of Keras 1, 2 or 3; models in it opened.

    What a model within feeds is fed by its last layer, and its input layers by what feeds the model. Empty where the
    config lists no layers: a subclassed model's.
    """
    read = architecture.read(config, {})
    return () if read is None else tuple(_within(read.layers, _layers(config), (), "", ()))


def _within(
    facts: Sequence[LayerFacts], configs: Sequence[Any], around: Names, path: str, fed: tuple[Names, ...]
) -> Iterator[Listed]:
    counts: dict[str, int] = {}
    ends: dict[str, Names] = {}  # of a model among the layers, the layer that its output comes from
    for layer, config in zip(facts, configs, strict=True):
        names = (*around, layer.name)
        inputs = tuple(ends.get(name, (*around, name)) for name in layer.inputs) or fed
        own = path if _is_operation(config) else f"{path}layers/{_numbered(layer.class_name, counts)}"
        inner = _layers(config)
        if not inner:
            yield Listed(own, names, layer.class_name, inputs)
            continue
        last = names
        for each in _within(layer.layers, inner, names, f"{own}/", inputs):
            last = each.names
            yield each
        ends[layer.name] = last


def _layers(config: Any) -> list[Any]:
    inner = config.get("config") if isinstance(config, Mapping) else None
    listed = inner.get("layers") if isinstance(inner, Mapping) else inner
    return [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []


def _is_operation(config: Mapping[str, Any]) -> bool:
    return str(config.get("module", "")).startswith(_OPERATIONS)


def _numbered(kind: str, counts: dict[str, int]) -> str:
    """What Keras' files call a layer of this class: ``dense``, ``dense_1``."""
    name = snake_case(kind)
    counts[name] = counts.get(name, -1) + 1
    return f"{name}_{counts[name]}" if counts[name] else name


def snake_case(kind: str) -> str:
    """The name that Keras gives to a layer of a class: ``LSTMCell`` becomes ``lstm_cell``."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def wiring(listed: Sequence[Listed], weighted: Collection[Names]) -> dict[Names, tuple[Names, ...]]:
    """For each layer with weights, those that feed it through nothing but layers without."""
    by_names = {one.names: one for one in listed}

    def sources(names: Names, passed: frozenset[Names]) -> Iterator[Names]:
        for each in by_names[names].inputs:
            if each in weighted:
                yield each
            elif each in by_names and each not in passed:
                yield from sources(each, passed | {each})

    return {names: tuple(dict.fromkeys(sources(names, frozenset((names,))))) for names in weighted if names in by_names}
