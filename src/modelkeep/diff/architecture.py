"""Two Keras configs compared layer by layer, without Keras.

A config is what ``keras.saving.serialize_keras_object`` gives: an object is a mapping with
``class_name`` and ``config``; a model's config holds ``layers``, and in a functional model each of
them has ``inbound_nodes``. Keras numbers the layers that a user did not name as they are made
(``dense``, ``dense_1``), so such a name does not tell which layer it is: those are matched by what
they are.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from modelkeep.report import Change, Section

NAME = "architecture"
# What is told layer by layer, or follows from the layers.
_TOLD_BY_LAYERS = frozenset({"layers", "input_layers", "output_layers", "build_input_shape"})


@dataclass(frozen=True)
class Layer:
    """A layer, or a model with its own layers. ``path`` joins the names below the outermost model."""

    path: str
    name: str
    kind: str  # the class name
    config: Mapping[str, Any]
    nodes: Any  # each call, with where its inputs come from; None in a Sequential
    layers: tuple[Layer, ...]

    @property
    def is_named_by_user(self) -> bool:
        """Whether the name is more than the class name in snake case and a number."""
        return re.sub(r"_\d+$", "", self.name).replace("_", "") != self.kind.lower()

    @property
    def around(self) -> str:
        """The path of the model it is in, with a final ``/``."""
        return self.path.removesuffix(self.name)


Pair = tuple[Layer | None, Layer | None]


@dataclass(frozen=True)
class Compared:
    """What differs, and which layer of the new config is which of the old one."""

    section: Section
    renamed: Mapping[str, str]  # old path → new path
    roots: tuple[str, str]  # the names of the two models

    def old_variable(self, path: str) -> str:
        """Where the variable at ``path`` of the old model is in the new one."""
        parts = path.removeprefix(f"{self.roots[0]}/").split("/")
        for end in range(len(parts) - 1, 0, -1):
            layer = "/".join(parts[:end])
            if layer in self.renamed:
                return "/".join((self.renamed[layer], *parts[end:]))
        return "/".join(parts)

    def new_variable(self, path: str) -> str:
        """The path of a variable of the new model, without the model's own name."""
        return path.removeprefix(f"{self.roots[1]}/")


def compare(old: Any, new: Any) -> Compared:
    """Compare two configs as read from JSON. Anything that is no config of a model has no layers."""
    before, after = _model(old), _model(new)
    pairs = [(before, after), *_matched(before, after)]
    renamed = {was.path: now.path for was, now in pairs if was and now}
    found = [list(_changes(pair, renamed)) for pair in pairs]
    same = sum(not changes for changes in found[1:])
    section = Section(NAME, tuple(change for changes in found for change in changes), same)
    return Compared(section, renamed, (before.name, after.name))


def differences(old: Any, new: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every value that differs, by its dotted place; a missing one is None. Objects of two classes differ whole."""
    if old == new:
        return
    match old, new:
        case dict(), dict() if _class(old) == _class(new) != "":
            yield from differences(old["config"], new["config"], at)
        case dict(), dict() if _class(old) == _class(new):
            for key in dict.fromkeys((*old, *new)):
                yield from differences(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
        case [dict(), *_], [dict(), *_] if len(old) == len(new):
            for index, (before, after) in enumerate(zip(old, new, strict=True)):
                yield from differences(before, after, f"{at}[{index}]")
        case _:
            yield at, _short(old), _short(new)


def _class(value: Any) -> str:
    if isinstance(value, Mapping) and isinstance(value.get("class_name"), str) and "config" in value:
        return str(value["class_name"])
    return ""


def _short(value: Any) -> Any:
    kind = _class(value)
    return value["config"] if kind == "function" else kind or value


# --- reading


def _model(value: Any) -> Layer:
    return _layer(value if _class(value) else {"class_name": "", "config": value}, None)


def _layer(value: Mapping[str, Any], around: str | None) -> Layer:
    config = value["config"] if isinstance(value["config"], Mapping) else {}
    name = str(config.get("name", ""))
    path = "" if around is None else around + name
    inside = config.get("layers")
    layers = [layer for layer in inside if _class(layer)] if isinstance(inside, list) else []
    hidden = {"name", *(_TOLD_BY_LAYERS if layers else ())}
    return Layer(
        path=path,
        name=name,
        kind=value["class_name"],
        config={key: item for key, item in config.items() if key not in hidden},
        nodes=value.get("inbound_nodes"),
        layers=tuple(_layer(layer, f"{path}/" if path else "") for layer in layers),
    )


# --- matching


def _matched(old: Layer, new: Layer) -> Iterator[Pair]:
    """Which layer within ``new`` is which within ``old``, at every depth: new order, then what was removed."""
    partner = _partners(old.layers, new.layers)
    for layer in new.layers:
        was = partner.get(layer.path)
        yield was, layer
        if was:
            yield from _matched(was, layer)
    kept = {was.path for was in partner.values()}
    yield from ((was, None) for was in old.layers if was.path not in kept)


def _partners(old: Sequence[Layer], new: Sequence[Layer]) -> dict[str, Layer]:
    """Path of a new layer → the old layer it is: by the user's name, else equal, else the next of its class."""
    rules: tuple[Callable[[Layer], Any], ...] = (
        lambda layer: layer.name if layer.is_named_by_user else None,
        lambda layer: (layer.kind, repr(layer.config), repr(_shape(layer))),
        lambda layer: layer.kind,
    )
    partner: dict[str, Layer] = {}
    for rule in rules:
        taken = {layer.path for layer in partner.values()}
        free = defaultdict[Any, deque[Layer]](deque)
        for layer in old:
            if layer.path not in taken:
                free[rule(layer)].append(layer)
        for layer in new:
            key = rule(layer)
            if layer.path not in partner and key is not None and free[key]:
                partner[layer.path] = free[key].popleft()
    return partner


def _shape(layer: Layer) -> list[Any]:
    return [(inner.kind, inner.config, _shape(inner)) for inner in layer.layers]


# --- telling


def _changes(pair: Pair, renamed: Mapping[str, str]) -> Iterator[Change]:
    was, now = pair
    if was is None or now is None:
        if now:
            yield Change("added", now.path, new=_described(now))
        elif was:
            yield Change("removed", was.path, old=_described(was))
        return
    path = now.path or "model"
    if was.kind != now.kind:
        yield Change("changed", path, was.kind, now.kind)
        return
    if now.path and was.name != now.name and (was.is_named_by_user or now.is_named_by_user):
        yield Change("changed", f"{path}.name", was.name, now.name)
    for place, before, after in differences(was.config, now.config):
        yield Change("changed", f"{path}.{place}", before, after)
    wires = _wires(was.nodes, lambda name: _sibling(was, name, renamed)), _wires(now.nodes, str)
    if wires[0] != wires[1]:
        yield Change("changed", f"{path}.inputs", *wires)
    if _reordered(was, now, renamed):
        yield Change("changed", f"{path}.order", [one.name for one in was.layers], [one.name for one in now.layers])


def _described(layer: Layer) -> str:
    """``Dense(units=64, activation=relu)``: the class and its first arguments."""
    told = [
        f"{key}={value}"
        for key, value in layer.config.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    ]
    return f"{layer.kind}({', '.join(told[:3])})"


def _sibling(layer: Layer, name: str, renamed: Mapping[str, str]) -> str:
    """What the layer ``name``, in the same model as ``layer``, is called in the new config."""
    return renamed.get(layer.around + name, name).rpartition("/")[2]


def _wires(nodes: Any, name_of: Callable[[str], str]) -> Any:
    """Calls reduced to the names of the layers that their tensors come from; other arguments as they are."""
    match nodes:
        case {"class_name": "__keras_tensor__", "config": {"keras_history": [str(name), int(node), int(index)]}}:
            return name_of(name) + (f":{node}:{index}" if node or index else "")
        case {"args": list(args), "kwargs": dict(kwargs)}:
            given = {key: _wires(value, name_of) for key, value in kwargs.items() if value is not None}
            return _wires([*args, given] if given else args, name_of)
        case dict():
            return {key: _wires(value, name_of) for key, value in nodes.items()}
        case [only]:
            return _wires(only, name_of)
        case list():
            return [_wires(value, name_of) for value in nodes]
    return nodes


def _reordered(was: Layer, now: Layer, renamed: Mapping[str, str]) -> bool:
    """Whether layers that are called one after the other changed places."""
    if any(layer.nodes for layer in (*was.layers, *now.layers)):
        return False
    place = {layer.path: index for index, layer in enumerate(now.layers)}
    order = [place[renamed[layer.path]] for layer in was.layers if layer.path in renamed]
    return any(first > second for first, second in pairwise(order))
