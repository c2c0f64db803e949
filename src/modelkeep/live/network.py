"""A model as layers that hold weights: what a transfer fills."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import keras

from modelkeep.errors import CannotRebuild, UnsafeContent, UsageError
from modelkeep.live import capture, internals
from modelkeep.live.correspondence import Holder, Weight, stem_of
from modelkeep.live.internals import Variable
from modelkeep.live.outline import Listed, Names, outline, snake_case, wiring
from modelkeep.live.variables import inventory, without_number

_IN_MODELS = re.compile(r"(?:layers/[^/]+/)*layers/[^/]+")


@dataclass(frozen=True)
class Network:
    """A model as layers that hold weights."""

    model: keras.Model
    holders: tuple[Holder[Variable], ...]
    layers: Mapping[int, keras.Layer]  # by the id of the holder
    names: Mapping[int, str]  # by the id of the variable: what people call it

    def split(self, names: Names) -> tuple[Names, Names]:
        """The names of a tensor as those of its layer and those within: by what the model's layers are called."""
        stems = {stem_of(holder.names[-1]) for holder in self.holders if holder.names}
        for index, name in enumerate(names[:-1], 1):
            if stem_of(name) in stems:
                return names[:index], names[index:]
        return names[:-1], names[-1:]

    def kind_of(self, names: Names) -> str | None:
        """The class of the model's layers that Keras calls so."""
        stem = without_number(names[-1]) if names else ""
        return next((holder.kind for holder in self.holders if holder.kind and snake_case(holder.kind) == stem), None)

    def path_of(self, path: str) -> str:
        """The path of the layer that a path of Keras' files lies in: one of the model's, else by their form."""
        mine = [h.path for h in self.holders if h.path and (path == h.path or path.startswith(f"{h.path}/"))]
        if mine:
            return mine[0]
        found = _IN_MODELS.match(path)
        return found[0] if found else path


def network_of(model: keras.Model) -> Network:
    """The layers of a model that hold weights; models within it are looked into.

    Raises UsageError for what is no model, or was never built.
    """
    if not isinstance(model, keras.Model):
        raise UsageError("weights go into a Keras model", found=f"a {type(model).__name__}")
    if not model.built:
        raise UsageError(
            f"the model {model.name!r} has no weights yet, because it was never built",
            hint="call it on a batch of data, or model.build(input_shape), before the transfer",
        )
    nodes = internals.walk(model)
    by_path = {path: node for path, node in nodes if isinstance(node, keras.Layer)}
    listed = {one.path: one for one in _outline(model)}
    members: dict[str, list[Weight[Variable]]] = {}
    names: dict[int, str] = {}
    keys = {id(v): key for _, node in nodes for key, v in (internals.saved_variables(node) or {}).items()}
    for place, variable in inventory(nodes).variables.items():
        if not place.startswith("weights/"):
            continue
        path, _, index = f"/{place.removeprefix('weights/')}".rpartition("/vars/")
        layer, *inner = _layer_and_within(path.strip("/"), by_path)
        key = f"{path.strip('/').removeprefix(layer).strip('/')}/vars/{keys.get(id(variable), index)}".lstrip("/")
        within = (*(by_path[each].name for each in inner), _own(variable))
        shape = tuple(int(length) for length in variable.shape)
        members.setdefault(layer, []).append(Weight(within, key, shape, variable))
        names[id(variable)] = "/".join((*_names(layer, by_path), *within))
    weighted = {listed[path].names for path in members if path in listed}
    feeds = wiring(tuple(listed.values()), weighted)
    holders = tuple(
        Holder(
            names=_names(path, by_path),
            weights=tuple(weights),
            path=path,
            kind=type(by_path[path]).__name__,
            place=place,
            feeds=feeds.get(listed[path].names) if path in listed else None,
        )
        for place, (path, weights) in enumerate(members.items())
    )
    return Network(model, holders, {id(h): by_path[h.path or ""] for h in holders}, names)


def _outline(model: keras.Model) -> tuple[Listed, ...]:
    try:
        return outline(capture.configs(model, allow_lambda=True)[0])
    except (CannotRebuild, UnsafeContent):
        return ()  # then the order of its layers alone tells its structure


def _layer_and_within(path: str, layers: Mapping[str, keras.Layer]) -> list[str]:
    """The path of the outermost layer around a path that is no model, and those of the layers within it."""
    parts = path.split("/") if path else []
    around = ["/".join(parts[:count]) for count in range(len(parts) + 1)]
    found = [each for each in around if each in layers]
    outer = next((index for index, each in enumerate(found) if not isinstance(layers[each], keras.Model)), -1)
    return found[outer:]


def _names(path: str, layers: Mapping[str, keras.Layer]) -> Names:
    parts = path.split("/") if path else []
    around = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return tuple(layers[each].name for each in around if each in layers)


def _own(variable: Variable) -> str:
    return str(variable.path.rpartition("/")[2])
