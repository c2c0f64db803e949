"""A config that an older Keras can read: without the arguments that equal the constructor's default.

Each release of Keras adds arguments to its layers, and every one writes all of them, so nothing opens in the
release before. Left out where they say nothing, they hinder nobody. Only arguments of Keras' own constructors
are left out, and only where value and type are the same. Which may be left out is known when a model is saved,
and which must be when it is opened.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import keras

from modelkeep.live.allowlist import own_class

_REQUIRED = object()


def portable(config: Any, objects: Mapping[str, object]) -> Any:
    """A copy of a serialized config without the defaults; ``objects`` are custom classes by the name it uses."""
    if isinstance(config, list | tuple):
        return [portable(value, objects) for value in config]
    if not isinstance(config, Mapping):
        return config
    copy = {key: portable(value, objects) for key, value in config.items()}
    cls = _class_of(copy, objects)
    if cls is not None:
        defaults = _defaults(cls)
        copy["config"] = {
            key: value
            for key, value in copy["config"].items()
            if not (_equal(value, defaults.get(key, _REQUIRED)) or (key == "name" and _is_named_beside(copy, cls)))
        }
    return copy


def readable(config: Any, less: Any, objects: Mapping[str, object]) -> Any:
    """A whole config without what the running Keras' constructors do not know, where ``less`` leaves it out too.

    ``less`` is what :func:`portable` made of it when it was saved. What the constructors know stays, because some
    classes want every argument of their own in the config.
    """
    if isinstance(config, list):
        return [readable(value, left, objects) for value, left in zip(config, less, strict=True)]
    if not isinstance(config, Mapping):
        return config
    cls = _class_of(config, objects)
    copy = {}
    for key, value in config.items():
        if key not in less:  # a default, of a class that does not know it or is not known
            copy[key] = value
        elif key == "config" and cls is not None:
            wanted = {name: inner for name, inner in value.items() if name in less[key] or name in known_arguments(cls)}
            copy[key] = readable(wanted, less[key], objects)
        else:
            copy[key] = readable(value, less[key], objects)
    return copy


def _is_named_beside(node: Mapping[str, Any], cls: type) -> bool:
    """In a functional model the name of an operation stands beside its config too; older ones do not take it there."""
    return issubclass(cls, keras.Operation) and not issubclass(cls, keras.Layer) and "inbound_nodes" in node


def _class_of(node: Mapping[str, Any], objects: Mapping[str, object]) -> type | None:
    if not isinstance(node.get("class_name"), str) or not isinstance(node.get("config"), Mapping):
        return None
    given = objects.get(node.get("registered_name") or node["class_name"])
    return given if isinstance(given, type) else own_class(node.get("module"), node["class_name"])


@cache
def _defaults(cls: type) -> dict[str, Any]:
    """What each argument is when it is not given, where Keras alone decides that."""
    defaults: dict[str, Any] = {}
    for base, parameter in _parameters(cls):
        known = base.__module__.startswith("keras.") and parameter.default is not parameter.empty
        defaults.setdefault(parameter.name, _as_json(parameter.default) if known else _REQUIRED)
    return defaults


@cache
def known_arguments(cls: type) -> frozenset[str]:
    """The names of all arguments that the constructor of a class takes here."""
    return frozenset(parameter.name for _, parameter in _parameters(cls))


def _parameters(cls: type) -> Iterator[tuple[type, inspect.Parameter]]:
    """A constructor's parameters; those it takes by ``**kwargs`` are those of the class it extends."""
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        yield from ((base, parameter) for parameter in parameters)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return


def _as_json(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return _REQUIRED


def _equal(value: Any, default: Any) -> bool:
    if type(value) is not type(default):
        return False
    if isinstance(value, list):
        return len(value) == len(default) and all(map(_equal, value, default))
    if isinstance(value, dict):
        return value.keys() == default.keys() and all(_equal(value[key], default[key]) for key in value)
    return bool(value == default)
