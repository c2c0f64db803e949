"""A serialized Keras config as a tree of places, read beside the live objects it was made from.

The form is that of ``keras.saving.serialize_keras_object``: an object is a mapping with ``module``,
``class_name``, ``config`` and ``registered_name``; a function has the class name ``function`` and its
own name as ``config``; a lambda has ``__lambda__`` and marshalled code.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

from modelkeep.live import internals

FUNCTION = "function"
LAMBDA = "__lambda__"
# Values that are no objects, though written like one.
VALUES = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__slice__", "__ellipsis__"})

_INNER = (str, dict, list, tuple)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{40,}={0,2}\s*")


@dataclass(frozen=True, slots=True)
class Place:
    """One value in a config, where it stands, and what it was in memory (None where that is not known)."""

    value: Any
    path: tuple[str | int, ...]
    layers: tuple[str, ...] = ()  # names of the layers around it, itself last, the outermost model left out
    live: Any = None
    owner: Any = None  # the live object it is an argument of

    @property
    def is_object(self) -> bool:
        """Whether Keras would build something from it."""
        value = self.value
        return isinstance(value, dict) and "config" in value and isinstance(value.get("class_name"), str)

    @property
    def is_lambda(self) -> bool:
        """Whether it is a function by value. Keras drops the class name where the lambda is an activation."""
        if not isinstance(self.value, dict) or self.value.get("class_name") == LAMBDA:
            return isinstance(self.value, dict)
        by_value = self.value.get("value")
        bare = set(self.value) == {"value"} and self.path[-1:] != ("config",)
        return bare and isinstance(by_value, list | tuple) and is_code(next(iter(by_value), None))

    @property
    def argument(self) -> str:
        """The nearest name on the way here: ``activation``, ``loss``, ``layers``."""
        return next((str(key) for key in reversed(self.path) if isinstance(key, str) and key != "config"), "")

    @property
    def user(self) -> str:
        """Who uses it: the path of the layer, or ``compile/loss`` and the like; empty for the model itself."""
        if not self.layers and self.path[:1] in (("compile",), ("compile_config",)):
            return "/".join(("compile", *map(str, self.path[1:2])))
        return "/".join(self.layers)

    def __str__(self) -> str:
        return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.path).lstrip(".")


def walk(config: Any, live: Any = None, *, at: tuple[str, ...] = ()) -> Iterator[Place]:
    """Every text, list and mapping of ``config``, outer before inner, in order. Iterative: depth is no limit.

    ``live`` is what ``config`` was made from: a model, or the arguments of ``compile`` as a mapping.
    ``at`` begins every path.
    """
    waiting = [Place(config, at, live=live)]
    while waiting:
        place = _with_own_name(waiting.pop())
        yield place
        waiting.extend(reversed(list(_children(place))))


def is_code(value: Any) -> bool:
    """Whether a text is a marshalled code object: type ``c``, then counts of arguments, which are small."""
    if not isinstance(value, str) or not _BASE64.fullmatch(value):
        return False
    try:
        start = base64.b64decode("".join(value[:16].split())[:8])
    except binascii.Error:
        return False
    return start[0] & 0x7F == ord("c") and start[2:5] == b"\0\0\0"


def _children(place: Place) -> Iterator[Place]:
    value, live = place.value, place.live
    if isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            if isinstance(inner, _INNER):
                found = _item(live, index, inner, len(value))
                yield Place(inner, (*place.path, index), place.layers, found, place.owner)
    elif isinstance(value, dict):
        find = _beside if place.is_object else _attribute
        for key, inner in value.items():
            if isinstance(inner, _INNER):
                yield Place(inner, (*place.path, str(key)), place.layers, find(live, key), live)


def _with_own_name(place: Place) -> Place:
    """A layer's place with its name on the path; policies and compile arguments have names too, but are no layers."""
    if not place.is_object or not place.path:
        return place
    inner = place.value["config"]
    is_layer = "build_config" in place.value or place.argument in ("layers", "layer", "cell", "cells")
    if is_layer and isinstance(inner, dict) and isinstance(inner.get("name"), str):
        return replace(place, layers=(*place.layers, inner["name"]))
    return place


def attributes(owner: Any) -> dict[str, Any]:
    """The instance attributes of an object, without running any property of its class.

    Under torch a layer is a ``torch.nn.Module``, which keeps parameters and sub-modules apart.
    """
    own: dict[str, Any] = getattr(owner, "__dict__", {})
    apart = [own[name] for name in ("_parameters", "_buffers", "_modules") if isinstance(own.get(name), Mapping)]
    return {**own, **{name: value for values in apart for name, value in values.items()}} if apart else own


def _beside(owner: Any, key: str) -> Any:
    """What the parts of a serialized object were made from: arguments are its attributes, the rest it as a whole."""
    if key == "compile_config":
        return internals.compile_arguments(owner)
    return owner if key == "config" and not isinstance(owner, FunctionType) else None


def _attribute(owner: Any, key: str) -> Any:
    if owner is None or isinstance(owner, Mapping):
        return None if owner is None else owner.get(key)
    if key == "layers":
        inner = [*getattr(owner, "layers", ()), *getattr(owner, "operations", ())]
        return {layer.name: layer for layer in inner}
    own = attributes(owner)
    return own.get(key, own.get(f"_{key}"))


def _item(owner: Any, index: int, config: Any, count: int) -> Any:
    if isinstance(owner, Mapping) and isinstance(config, Mapping):
        inner = config.get("config")
        name = inner.get("name", config.get("name")) if isinstance(inner, Mapping) else config.get("name")
        return owner.get(name)
    if isinstance(owner, Sequence) and not isinstance(owner, str) and len(owner) == count:
        return owner[index]
    return None
