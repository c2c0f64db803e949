"""A config that an older Keras can read: without the arguments that equal the constructor's default.

Each release of Keras adds arguments to its layers, and every one writes all of them, so nothing opens in the
release before. Left out where they say nothing, they hinder nobody. Only arguments of Keras' own constructors
are left out, and only where value and type are the same.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from modelkeep.live.allowlist import own_class

_REQUIRED = object()


def portable(config: Any, objects: Mapping[str, object]) -> Any:
    """A copy of a serialized config without the defaults; ``objects`` are custom classes by the name it uses."""
    if isinstance(config, list | tuple):
        return [portable(value, objects) for value in config]
    if not isinstance(config, Mapping):
        return config
    inner = {key: portable(value, objects) for key, value in config.items()}
    if isinstance(inner.get("class_name"), str) and isinstance(inner.get("config"), dict):
        cls = _class_of(inner, objects)
        if cls is not None:
            defaults = _defaults(cls)
            inner["config"] = {
                key: value for key, value in inner["config"].items() if not _equal(value, defaults.get(key, _REQUIRED))
            }
    return inner


def _class_of(node: Mapping[str, Any], objects: Mapping[str, object]) -> type | None:
    given = objects.get(node.get("registered_name") or node["class_name"])
    return given if isinstance(given, type) else own_class(node.get("module"), node["class_name"])


@cache
def _defaults(cls: type) -> dict[str, Any]:
    """What each argument is when it is not given, where Keras alone decides that.

    An argument that a constructor takes by ``**kwargs`` is one of the class it extends.
    """
    defaults: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        for parameter in parameters:
            known = base.__module__.startswith("keras.") and parameter.default is not parameter.empty
            defaults.setdefault(parameter.name, _as_json(parameter.default) if known else _REQUIRED)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return defaults


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
