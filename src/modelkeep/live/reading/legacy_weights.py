"""Weights as Keras 1 and 2 laid them in HDF5: by layer, and within a layer by order alone.

The outermost model's layers have names there, everything below them is one list: first what is trainable, then
what is not, each from the inner layers in their order. The same order is made here from the model's config, and each
tensor is given to the variable of its place, converted where the layout of its layer changed
(:mod:`modelkeep.live.reading.conversions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from modelkeep.formats.contents import Contents, ForeignTensor
from modelkeep.legacy.names import without_slashes
from modelkeep.live import internals
from modelkeep.live.internals import Variable
from modelkeep.live.matching import Pair
from modelkeep.live.reading import conversions
from modelkeep.report import Finding, Severity


@dataclass
class Plan:
    """Which tensor is whose: what :func:`modelkeep.live.matching.assign` takes.

    ``by_name`` has the variable of each weight by its name in the file: an optimizer's slots are named by it.
    """

    pairs: list[Pair] = field(default_factory=list)
    missing: list[Variable] = field(default_factory=list)
    unused: list[ForeignTensor] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    by_name: dict[str, Variable] = field(default_factory=dict)
    trainable: list[Variable] = field(default_factory=list)  # in the file's order


def plan(
    model: keras.Model, contents: Contents, *, config: Any = None, renamed: Mapping[str, str] | None = None
) -> Plan:
    """Find the variable of each tensor of a file in the old layout.

    ``config`` is what the model was built from, which tells the order of inner layers; ``renamed`` the names that
    the file has for layers, by the names they have now. Layers are found by name; where no name fits, as in a model
    built anew by code, those with weights by their order.
    """
    return _Planning(model, contents, config or {}, dict(renamed or {})).run()


def plan_layer(layer: keras.Layer, tensors: Sequence[ForeignTensor], name: str, contents: Contents) -> Plan:
    """Find the variable of each tensor that a file in the old layout has of one layer, called ``name`` there."""
    planning = _Planning(layer, contents, {}, {})
    planning._match(layer, name, list(tensors), planning.converter())
    return planning.plan


@dataclass
class _Planning:
    model: keras.Model
    contents: Contents
    config: Any
    renamed: dict[str, str]
    plan: Plan = field(default_factory=Plan)

    def run(self) -> Plan:
        tensors = {tensor.name: tensor for tensor in self.contents.tensors}
        groups = {
            group["layer"]: [tensors[name] for name in group["weights"]]
            for group in self.contents.details.get("layers", ())
        }
        converter = self.converter()
        for layer, name in self._layers(groups):
            self._match(layer, name, groups.pop(name, []), converter)
        for left in groups.values():
            self._unused(left)
        top_level = [tensors[name] for name in self.contents.details.get("top_level", ())]
        self._pair(internals.own_variables(self.model), top_level, "")
        self.plan.trainable = _split(self.model, self.config)[0]
        return self.plan

    def converter(self) -> conversions.Converter:
        owners = {id(v): node for _, node in internals.walk(self.model) for v in internals.own_variables(node)}
        return conversions.Converter(self.contents.writer, owners)

    def _layers(self, groups: Mapping[str, Sequence[ForeignTensor]]) -> Iterator[tuple[keras.Layer, str]]:
        """Each layer of the model that has weights, and its name in the file."""
        layers = [layer for layer in self.model.layers if layer.weights]
        renamed = {new: old for old, new in without_slashes(list(groups)).items()} | self.renamed
        names = {layer.name: renamed.get(layer.name, layer.name) for layer in layers}
        if not any(name in groups for name in names.values()):
            filled = [name for name, group in groups.items() if group]
            if len(filled) == len(layers):
                names = {layer.name: name for layer, name in zip(layers, filled, strict=True)}
        for layer in layers:
            yield layer, names[layer.name]

    def _match(
        self, layer: keras.Layer, name: str, group: list[ForeignTensor], converter: conversions.Converter
    ) -> None:
        variables = [*_ordered(layer, _config_of(self.config, layer.name))]
        states, weights = _without_states(group)
        if states:
            text = "the state of a random generator, which Keras 3 keeps in another form; it starts anew"
            self.plan.findings += [Finding("weights-state", Severity.NOTE, text, state.name) for state in states]
        self._pair(variables, weights, name, converter)

    def _pair(
        self,
        variables: Sequence[Variable],
        tensors: Sequence[ForeignTensor],
        layer: str,
        converter: conversions.Converter | None = None,
    ) -> None:
        slots = converter.slots(variables) if converter else [(variable, 0) for variable in variables]
        if converter and len(slots) != len(tensors):  # rather by what each is called
            slots = [(variable, 0) for variable in variables]
        by_order = _reordered(tensors, [variable for variable, _ in slots])
        found: dict[int, list[ForeignTensor]] = {}
        for (variable, _), tensor in zip(slots, by_order, strict=False):
            found.setdefault(id(variable), []).append(tensor)
            self.plan.by_name.setdefault(tensor.name.removeprefix(f"{layer}/"), variable)
        converted = converter.converted(variables, found) if converter else {key: v[0] for key, v in found.items()}
        self.plan.pairs += [(variable, converted[id(variable)]) for variable in variables if id(variable) in converted]
        self.plan.missing += [variable for variable in variables if id(variable) not in converted]
        self._unused(by_order[len(slots) :])

    def _unused(self, tensors: Iterable[ForeignTensor]) -> None:
        self.plan.unused += _without_states(list(tensors))[1]


def _without_states(tensors: list[ForeignTensor]) -> tuple[list[ForeignTensor], list[ForeignTensor]]:
    """Generators of random numbers, which Keras 2 counted among a layer's weights, and the rest."""
    states = [tensor for tensor in tensors if _leaf(tensor.name) in ("StateVar", "seed_generator_state")]
    return states, [tensor for tensor in tensors if tensor not in states]


def _leaf(name: str) -> str:
    return name.rpartition("/")[2].partition(":")[0]


# --- the order of Keras 2


def _ordered(layer: keras.Layer, config: Any) -> Iterator[Variable]:
    trainable, others = _split(layer, config)
    seen: set[int] = set()
    for variable in (*trainable, *others):
        if id(variable) not in seen:
            seen.add(id(variable))
            yield variable


def _split(layer: keras.Layer, config: Any) -> tuple[list[Variable], list[Variable]]:
    """What is trainable and what is not, as Keras 2 listed them."""
    if not isinstance(layer, keras.Model) or not isinstance(config, dict) or "layers" not in config:
        return list(layer.trainable_weights), list(layer.non_trainable_weights)
    trainable: list[Variable] = []
    others: list[Variable] = []
    inner = {child.name: child for child in layer.layers}
    named = [each["config"].get("name") for each in config["layers"]]
    for name in (*(name for name in named if name in inner), *(name for name in inner if name not in named)):
        first, second = _split(inner[name], _config_of(config, name))
        trainable += first
        others += second
    own, own_others = layer._trainable_variables, layer._non_trainable_variables
    return (
        ([*trainable, *own], [*own_others, *others])
        if layer.trainable
        else ([], [*trainable, *own, *others, *own_others])
    )


def _config_of(config: Any, name: str) -> Any:
    """The config of a model's inner layer."""
    layers = config.get("layers", ()) if isinstance(config, dict) else ()
    return next((each["config"] for each in layers if each["config"].get("name") == name), None)


def _reordered(tensors: Sequence[ForeignTensor], variables: Sequence[Variable]) -> list[ForeignTensor]:
    """The tensors in the order of the variables, where their names tell it and the file's order is another."""
    wanted = [_word(variable.path.rpartition("/")[2]) for variable in variables]
    named = [_word(_leaf(tensor.name)) for tensor in tensors]
    if named == wanted or len(set(named)) != len(named) or set(named) != set(wanted):
        return list(tensors)
    return [tensors[named.index(word)] for word in wanted]


def _word(name: str) -> str:
    return name.rstrip("0123456789").rstrip("_")
