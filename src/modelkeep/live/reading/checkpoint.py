"""A checkpoint of TensorFlow brought into a model: object by object, or name by name.

Keras 2 wrote a graph of objects: the model, its layers by number, their variables under the names of attributes.
Keras 3 kept these names, so the graph is walked along the model's own objects. TensorFlow 1 wrote the variables' names
alone; what is then not found by name, a map of names can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras

from modelkeep.errors import IntegrityError, UsageError
from modelkeep.formats.checkpointed import graph_of
from modelkeep.formats.contents import Contents, ForeignTensor
from modelkeep.formats.limits import DEFAULT
from modelkeep.formats.object_graph import SLOT, ObjectGraph
from modelkeep.formats.tensor_bundle import open_bundle
from modelkeep.live import internals, matching
from modelkeep.live.internals import Variable
from modelkeep.live.matching import Pair
from modelkeep.live.reading import Read, optimizer_slots, weights
from modelkeep.report import Finding, Severity

_LAYERS = ("layer-", "layer_with_weights-")  # followed by a number: among all layers, among those with weights
# What Keras 2 lists of an object beside its attributes, in an order that is not that of Keras 3.
_LISTS = frozenset({"variables", "trainable_variables", "non_trainable_variables", "layers", "metrics", "keras_api"})
_COUNTERS = ("iter", "iteration", "_iterations", "iterations")
_RENAMED = {"depthwise_kernel": "kernel"}  # attributes of Keras 2, by what DepthwiseConv1D and 2D call them since
_STATE = "_state_var"  # of a random generator of Keras 2


def read(
    contents: Contents,
    *,
    into: keras.Model | None = None,
    custom_objects: Any = None,
    trust: Sequence[str] = (),
    compile: bool = True,
    skip: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> Read:
    """The model ``into`` with the weights of a checkpoint; its optimizer goes on if it is compiled and ``compile``.

    ``names`` are, by the name of a tensor in the file, what the model calls it: ``encoder/dense/kernel``. ``skip``
    names what may be left out (:func:`modelkeep.live.matching.assign`). Raises UsageError without a model or for
    one that is not built, NotFaithful with its report, the model as it was, where not everything fits.
    """
    if into is None or names or not contents.details.get("object_based"):
        named = tuple(replace(tensor, name=(names or {}).get(tensor.name, tensor.name)) for tensor in contents.tensors)
        return weights.read(replace(contents, form="safetensors", tensors=named), into=into, skip=skip)
    if not into.built:
        raise UsageError(
            f"the model {into.name!r} has no weights yet, because it was never built",
            hint="call it on a batch of data, or model.build(input_shape), before loading",
        )
    return Read(into, fill(into, contents, contents.path, skip=skip, compile=compile))


def fill(
    model: keras.Model,
    contents: Contents,
    prefix: Path,
    *,
    order: Sequence[str] = (),
    skip: Sequence[str] = (),
    compile: bool = True,
) -> tuple[Finding, ...]:
    """Give a model the tensors of the checkpoint whose files begin with ``prefix``; all of them, or none.

    ``order`` are the names of the model's layers in the order in which the checkpoint numbers them; without it they are
    taken to be in the same. Raises NotFaithful.
    """
    found = _found(model, contents, prefix, order)
    beside, unused = found.left(contents)
    report = matching.assign(found.pairs, missing=found.missing(model), unused=unused, skip=skip)
    findings = (*report.findings, *found.findings, *beside, *_of_other_layers(contents, found))
    if compile and model.compiled:
        findings += _continued(model, contents, found)
    for _, node in internals.walk(model):
        internals.finish(node)
    return findings


def optimizer_of(contents: Contents) -> tuple[ForeignTensor, ...]:
    """What belongs to the optimizer, under the names that its variables had; rates and the like are in its config."""
    names = contents.details.get("variables", {})
    return tuple(
        replace(tensor, name=names.get(tensor.name, tensor.name))
        for tensor in contents.optimizer
        if SLOT in tensor.name or "_variables/" in tensor.name or tensor.name.rpartition("/")[2] in _COUNTERS
    )


@dataclass
class _Found:
    """What a walk along the model has found."""

    pairs: list[Pair] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)  # names of tensors that are accounted for
    within: frozenset[str] = frozenset()  # names of all tensors of the object that was taken for the model

    def missing(self, model: keras.Model) -> list[Variable]:
        paired = {id(variable) for variable, _ in self.pairs}
        return [variable for variable in model.weights if id(variable) not in paired]

    def left(self, contents: Contents) -> tuple[list[Finding], list[ForeignTensor]]:
        """Tensors of what the checkpoint holds beside the model, which are told; and those of the model itself."""
        rest = [tensor for tensor in contents.tensors if tensor.name not in self.taken]
        text = "belongs to something else that the checkpoint holds beside the model"
        beside = [tensor for tensor in rest if tensor.name not in self.within]
        told = [Finding("weights-beside", Severity.NOTE, text, tensor.name) for tensor in beside]
        return told, [tensor for tensor in rest if tensor.name in self.within]

    @property
    def fits(self) -> int:
        return sum(tuple(variable.shape) == tensor.shape for variable, tensor in self.pairs)


def _found(model: keras.Model, contents: Contents, prefix: Path, order: Sequence[str]) -> _Found:
    """The best of the ways to begin: the checkpoint may be the model's own, or of something that holds the model."""
    with open_bundle(prefix, DEFAULT) as bundle:
        graph = graph_of(bundle, DEFAULT)
    if not graph.nodes:
        raise IntegrityError(f"{prefix.name} has no objects", hint="give a map of names")
    tensors = {tensor.name: tensor for tensor in contents.tensors}
    starts = [0, *graph.nodes[0].children.values()]
    walks = [(start, _Walk(graph, tensors, word, order).run(model, start)) for start in starts for word in _LAYERS]
    start, found = max(walks, key=lambda walk: walk[1].fits)
    found.within = frozenset(map(graph.name_of, graph.below(start)))
    return found


def _of_other_layers(contents: Contents, found: _Found) -> Iterator[Finding]:
    """Layers whose variables have in the file the name of another layer of the model: they may have changed places."""
    names = contents.details.get("variables", {})
    layers = {_layer_of(variable.path) for variable, _ in found.pairs}
    pairs = ((_layer_of(variable.path), _layer_of(names.get(tensor.name, ""))) for variable, tensor in found.pairs)
    for here, there in dict.fromkeys(pairs):
        if there != here and there in layers:
            text = f"takes what the file calls {there!r}, by its place in the model"
            yield Finding("weights-renamed", Severity.WARNING, text, here)


def _layer_of(path: str) -> str:
    return path.rpartition("/")[0].rpartition("/")[2]


@dataclass
class _Walk:
    graph: ObjectGraph
    tensors: Mapping[str, ForeignTensor]
    numbering: str  # of _LAYERS, the one that is gone by
    order: Sequence[str] = ()  # names of the outermost layers
    found: _Found = field(default_factory=_Found)
    start: int = 0

    def run(self, model: keras.Model, start: int) -> _Found:
        self.start = start
        waiting: list[tuple[Any, int]] = [(model, start)]
        seen = {start}
        while waiting:
            thing, number = waiting.pop()
            node = self.graph.nodes[number]
            for name, child in node.children.items():
                if child in seen:
                    continue
                inner = self._inner(thing, number, name)
                key = self.graph.name_of(child)
                if key in self.tensors:
                    self._take(inner, self.tensors[key])
                if inner is not None:
                    seen.add(child)
                    waiting.append((inner, child))
        return self.found

    def _take(self, variable: Any, tensor: ForeignTensor) -> None:
        if isinstance(variable, internals.Variable):
            self.found.pairs.append((variable, tensor))
            self.found.taken.add(tensor.name)
        elif tensor.name.endswith(_STATE):
            text = "the state of a random generator, which Keras 3 keeps in another form; it starts anew"
            self.found.findings.append(Finding("weights-state", Severity.NOTE, text, tensor.name))
            self.found.taken.add(tensor.name)

    def _inner(self, thing: Any, number: int, name: str) -> Any:
        """What an object of the model has under the name that the checkpoint has for it."""
        if name.startswith(_LAYERS):
            return self._layer(thing, name, outermost=number == self.start) if isinstance(thing, keras.Model) else None
        if isinstance(thing, list | tuple):
            return thing[int(name)] if name.isdecimal() and int(name) < len(thing) else None
        if isinstance(thing, Mapping):
            return thing.get(name)
        inner = getattr(thing, name, None) if name not in _LISTS and not name.startswith("__") else None
        inner = getattr(thing, _RENAMED[name], None) if inner is None and name in _RENAMED else inner
        return inner if isinstance(inner, (internals.Variable, keras.Layer, list, tuple, Mapping)) else None

    def _layer(self, model: keras.Model, name: str, *, outermost: bool) -> keras.Layer | None:
        prefix, _, number = name.rpartition("-")
        if f"{prefix}-" != self.numbering or not number.isdecimal():
            return None
        layers = [layer for layer in model.layers if layer.weights or self.numbering == _LAYERS[0]]
        if outermost and self.order and self.numbering == _LAYERS[0]:
            by_name = {layer.name: layer for layer in layers}
            layers = [by_name.get(each) for each in self.order]
        return layers[int(number)] if int(number) < len(layers) else None


def _continued(model: keras.Model, contents: Contents, found: _Found) -> tuple[Finding, ...]:
    """Let the optimizer go on where the checkpoint's stood, if it can."""
    names = contents.details.get("variables", {})
    by_name = {names[tensor.name]: variable for variable, tensor in found.pairs if tensor.name in names}
    trained = [variable for variable, _ in found.pairs if variable.trainable]
    pairs, findings = optimizer_slots.plan(model, optimizer_of(contents), by_name, trained)
    return (*findings, *matching.assign(pairs).findings) if pairs else tuple(findings)
