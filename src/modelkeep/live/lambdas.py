"""Lambdas in a model: refused, or turned into names under which their functions must be given again.

Keras keeps a lambda as marshalled bytecode, which runs whatever it holds and fits one version of Python.
No bytecode is ever stored here. With ``allow_lambda`` the config keeps a function's name instead,
``lambda:<layer>`` (of a ``Lambda`` layer's function) or ``lambda:<layer>.<argument>`` (anywhere else),
and Keras finds that name in ``custom_objects`` like any other function's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelkeep.errors import UnsafeContent
from modelkeep.live.configs import FUNCTION, Place, walk
from modelkeep.report import Finding, Severity

PREFIX = "lambda:"


def check_or_replace(config: Any, *, allow_lambda: bool, at: tuple[str, ...] = ()) -> tuple[Any, tuple[Finding, ...]]:
    """The config without bytecode, and a notice for each lambda that was turned into a name.

    ``at`` is what the config is of: ``("compile",)`` for what ``compile`` was called with. The config
    given is left as it was. Raises UnsafeContent, naming every lambda, unless ``allow_lambda``.
    """
    found = {id(place.value): place for place in walk(config, at=at) if place.is_lambda}
    if found and not allow_lambda:
        raise _refused(list(found.values()))
    names = {identity: _name(place) for identity, place in found.items()}
    return _replaced(config, names), tuple(_notice(names[identity], place) for identity, place in found.items())


def _name(place: Place) -> str:
    if place.layers and place.argument == FUNCTION:
        return f"{PREFIX}{place.user}"
    keys = [str(key) for key in place.path if key != "config"]
    if not place.layers:
        return PREFIX + ".".join(keys)
    named = max(index for index, key in enumerate(keys) if not key.isdecimal())
    return ".".join([f"{PREFIX}{place.user}", *keys[named:]])


def _replaced(value: Any, names: Mapping[int, str]) -> Any:
    if id(value) in names:
        # What Keras itself writes for a named function.
        name = names[id(value)]
        return {"module": "builtins", "class_name": FUNCTION, "config": name, "registered_name": FUNCTION}
    if isinstance(value, Mapping):
        return {key: _replaced(inner, names) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(inner, names) for inner in value)
    return value


def _refused(places: list[Place]) -> UnsafeContent:
    lines = "".join(f"\n  - {place.argument} of {place.user or 'the model'}" for place in places)
    count = f"{len(places)} lambda{'s' if len(places) > 1 else ''}"
    return UnsafeContent(
        f"the model holds {count}, of which no more than bytecode could be kept:{lines}",
        hint="replace each by a named function:\n"
        "      @keras.saving.register_keras_serializable()\n"
        "      def scale(x): return x * 2\n"
        "      keras.layers.Lambda(scale)\n"
        "    or save with allow_lambda=True and give each function again when loading",
    )


def _notice(name: str, place: Place) -> Finding:
    return Finding(
        "lambda-kept-by-name",
        Severity.NOTE,
        f"a lambda is kept by name only; load with custom_objects={{{name!r}: <the function>}}",
        subject=place.user,
        details={"name": name},
    )
