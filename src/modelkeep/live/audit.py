"""What a model would lose on the way through a store: state and arguments that neither weights nor configs hold.

Keras keeps the variables of the layers it can see and the arguments that ``get_config`` tells. Looked at here are
the classes that are not Keras' own: layers, variables and arrays that stand where Keras does not look (inside
plain objects, in sets, outside the functions that use them), constructor arguments that no config holds, and,
beside the model as it was rebuilt, every attribute that did not come back.

Out of reach is what no attribute leads to: state inside compiled extensions, generators and threads, and what the
functions that a layer calls use in turn. Replaying golden examples finds what that changes.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import keras

from modelkeep.live import internals
from modelkeep.live.arrays import is_array
from modelkeep.live.code import Reached, assigned_by_keras, reached_from
from modelkeep.live.configs import attributes
from modelkeep.live.likeness import same
from modelkeep.live.sources import is_user_code
from modelkeep.live.variables import inventory
from modelkeep.report import Finding, Severity

_DEPTH = 6  # of plain objects and containers within each other
_OF_EVERY_LAYER = frozenset({"name", "trainable", "dtype"})  # arguments that Keras' own config holds


def audit(model: keras.Model, rebuilt: keras.Model | None = None, *, architecture: bool = True) -> tuple[Finding, ...]:
    """Find what of ``model`` would be lost: failures where that is certain, warnings where it may be.

    ``rebuilt`` is the same model brought back from what was captured. With it, what came back by itself (a table
    of constants) is no finding, and every attribute that did not is one. Without ``architecture``, for a model
    whose weights alone are kept, only hidden state is looked for.
    """
    stored = _Stored.of(model)
    twins = None if rebuilt is None else dict(internals.walk(rebuilt))
    findings: list[Finding] = []
    for path, node in stored.nodes:
        twin = None if twins is None else twins.get(path)
        if is_user_code(type(node)):
            findings += _hidden(path, node, stored, with_arrays=twins is None)
        if not architecture:
            continue
        if is_user_code(type(node)):
            findings += _arguments(path, node, compared=twin is not None)
        if twin is not None:
            findings += _beside(path, node, twin, stored)
        findings += _functions(path, node, stored)
    if architecture:
        findings += [*_methods(stored), *_compiled(model, stored)]
    return tuple(findings)


@dataclass(frozen=True)
class _Stored:
    """What capture keeps: the objects Keras keeps state for, and every variable that they lead to."""

    nodes: list[tuple[str, internals.Node]]
    ids: frozenset[int]

    @classmethod
    def of(cls, model: keras.Model) -> _Stored:
        nodes = internals.walk(model)
        variables = [variable for _, node in nodes for variable in getattr(node, "variables", ())]
        ids = {*inventory(nodes).names, *map(id, variables), *(id(node) for _, node in nodes)}
        return cls(nodes, frozenset(ids))

    def __contains__(self, thing: object) -> bool:
        return id(thing.state if isinstance(thing, keras.random.SeedGenerator) else thing) in self.ids

    def owner(self, path: str) -> tuple[str, internals.Node] | None:
        """The innermost object of a user's class around ``path``."""
        around = [
            (p, node) for p, node in self.nodes if is_user_code(type(node)) and (not p or path.startswith(f"{p}/"))
        ]
        return max(around, key=lambda pair: len(pair[0]), default=None)


def _beside(path: str, node: internals.Node, twin: internals.Node, stored: _Stored) -> Iterator[Finding]:
    if is_user_code(type(node)):
        yield from _changed(path, node, twin)
    elif owner := stored.owner(path):
        yield from _remade(owner, path.removeprefix(owner[0]).lstrip("/"), node, twin)


# --- state where Keras does not look


def _hidden(path: str, node: internals.Node, stored: _Stored, *, with_arrays: bool) -> Iterator[Finding]:
    told = frozenset(_config(node) or ())
    for name, value in _own_attributes(node).items():
        arrays = []
        for place, thing in _within(value, name):
            if is_array(thing) and not _is_foreign_variable(thing):
                arrays.append(place)
            elif thing not in stored and (what := _state(thing)) is not None:
                yield _finding("hidden-state", what[0], path, node, place, f"{what[1]}, {_HIDDEN}")
        if arrays and with_arrays and name.lstrip("_") not in told:
            yield _finding("array-attribute", Severity.WARNING, path, node, arrays[0], _ARRAY)


_HIDDEN = (
    "which stands where Keras does not look, so it would not be saved. "
    "Assign it to an attribute of the layer itself, or make what holds it a keras.layers.Layer"
)
_ARRAY = (
    "an array that is no weight: it comes back only if the constructor makes the same one again. "
    "Make it one with self.add_weight(..., trainable=False), or return it from get_config"
)


def _state(thing: Any) -> tuple[Severity, str] | None:
    """How bad it is to lose something, and what it is; None for what holds nothing."""
    if isinstance(thing, keras.Layer):
        count = sum(1 for _ in thing.variables)
        return (Severity.FAILURE, f"a {type(thing).__name__} with {count} variables") if count else None
    if isinstance(thing, keras.Variable):
        return Severity.FAILURE, "a variable"
    if _is_foreign_variable(thing):
        return Severity.FAILURE, f"a {type(thing).__module__.partition('.')[0]} variable, not a Keras one"
    if isinstance(thing, keras.optimizers.Optimizer | keras.metrics.Metric):
        return (Severity.WARNING, f"a {type(thing).__name__}") if thing.variables else None
    return (Severity.WARNING, "a seed generator") if isinstance(thing, keras.random.SeedGenerator) else None


def _is_foreign_variable(thing: Any) -> bool:
    """A variable of TensorFlow or a parameter of torch or Flax, which Keras takes no notice of."""
    return any(
        base.__name__ in ("Variable", "Parameter")
        and base.__module__.partition(".")[0] in ("tensorflow", "torch", "flax")
        for base in type(thing).__mro__
    )


def _own_attributes(node: internals.Node) -> dict[str, Any]:
    """The attributes that the user's code gave an object."""
    cls: type = type(node)
    bookkeeping = assigned_by_keras(cls)
    return {name: value for name, value in attributes(node).items() if name not in bookkeeping}


def _within(
    value: Any, place: str, depth: int = _DEPTH, seen: frozenset[int] = frozenset()
) -> Iterator[tuple[str, Any]]:
    """State in a value, with where it stands: through containers and plain objects, not into layers."""
    if depth == 0 or id(value) in seen:
        return
    if isinstance(value, _STATEFUL) or _is_foreign_variable(value) or is_array(value):
        yield place, value
        return
    for inner_place, inner in _items(value):
        yield from _within(inner, f"{place}{inner_place}", depth - 1, seen | {id(value)})


_STATEFUL = (
    keras.Layer,
    keras.Variable,
    keras.metrics.Metric,
    keras.optimizers.Optimizer,
    keras.random.SeedGenerator,
)


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", inner) for key, inner in value.items()]
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [(f"[{index}]", inner) for index, inner in enumerate(value)]
    if isinstance(value, partial):
        return _items([value.func, *value.args, *value.keywords.values()])
    if isinstance(value, type | ModuleType | FunctionType):
        return ()
    if is_user_code(type(value)) or isinstance(value, SimpleNamespace):
        slots = [
            name for base in type(value).__mro__ for name in getattr(base, "__slots__", ()) if hasattr(value, name)
        ]
        inner = {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}
        return [(f".{name}", thing) for name, thing in inner.items()]
    return ()


# --- arguments that no config holds


def _arguments(path: str, node: internals.Node, *, compared: bool) -> Iterator[Finding]:
    """``compared``: the rebuilt model shows what an argument left out has changed, so it is not looked for here."""
    arguments, config = _constructor(type(node)), _config(node)
    if config is None:
        message = f"cannot be written as a config; {_advice(node)}"
        yield _finding("no-config", Severity.FAILURE, path, node, "", message)
        return
    if _reads_its_own_config(type(node)):
        return
    left_out = [name for name in arguments if name not in config or _are_defaults(node, config)]
    needed = [name for name in left_out if arguments[name].default is inspect.Parameter.empty]
    for name in needed:
        message = f"the constructor needs it, and {_advice(node)}"
        yield _finding("argument-left-out", Severity.FAILURE, path, node, name, message)
    if left_out and not needed and not compared:
        yield from _beside_another(path, node, left_out)


def _beside_another(path: str, node: internals.Node, left_out: list[str]) -> Iterator[Finding]:
    """Make another one from the config, without weights, to see whether what the config leaves out matters."""
    twin = _made_again(node)
    if twin is None:
        message = f"{_advice(node)}, so it would come back with the default"
        yield _finding("argument-left-out", Severity.WARNING, path, node, _listed(left_out), message)
        return
    yield from (
        finding for finding in _changed(path, node, twin) if str(finding.details["attribute"]).lstrip("_") in left_out
    )
    twins = dict(internals.walk(twin))
    for inner_path, inner in internals.walk(node):
        if inner_path in twins and not is_user_code(type(inner)):
            yield from _remade((path, node), inner_path, inner, twins[inner_path])


def _made_again(node: internals.Node) -> internals.Node | None:
    try:
        config = keras.saving.serialize_keras_object(node.get_config())
        with internals.unchanged_randomness():
            return type(node).from_config(config)
    except Exception:  # noqa: BLE001 - the user's own code, which the check at save runs and reports on
        return None


def _constructor(cls: type) -> dict[str, inspect.Parameter]:
    """The named arguments of a user's class and, as far as it passes others on, of the user's classes below it."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if not is_user_code(base):
            break
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        named = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        found = {**{p.name: p for p in named if p.name not in _OF_EVERY_LAYER}, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _config(node: internals.Node) -> Mapping[str, Any] | None:
    try:
        return dict(node.get_config())
    except Exception:  # noqa: BLE001 - the user's own code; that it raises is the answer
        return None


def _reads_its_own_config(cls: Any) -> bool:
    """Whether the class has its own ``from_config``, which may do with a config whatever it likes."""
    return is_user_code(getattr(cls.from_config, "__func__", cls.from_config))


def _are_defaults(node: internals.Node, config: Mapping[str, Any]) -> bool:
    """Whether Keras made the config by itself from a model's arguments, of which it then knows only the defaults."""
    return isinstance(node, keras.Model) and not is_user_code(type(node).get_config) and "layers" not in config


# --- beside another one made from the config


def _changed(path: str, node: internals.Node, twin: internals.Node) -> Iterator[Finding]:
    arguments, others = _constructor(type(node)), _own_attributes(twin)
    for name, value in _own_attributes(node).items():
        other = others.get(name)
        if same(value, other) is not False:
            continue
        text = (
            f"{_short(value)} comes back as {_short(other)}"
            if name in others
            else f"{_short(value)} does not come back"
        )
        if name.lstrip("_") in arguments:
            message = f"{text}: {_advice(node)}"
            yield _finding("attribute-changed", Severity.FAILURE, path, node, name, message)
        else:
            message = f"{text}, because attributes are not saved; make it a weight, or return it from get_config"
            yield _finding("attribute-changed", Severity.WARNING, path, node, name, message)


def _remade(
    owner: tuple[str, internals.Node], inner: str, layer: internals.Node, twin: internals.Node
) -> Iterator[Finding]:
    """A layer of Keras' own that a user's class makes: another config tells of an argument lost around it."""
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.Model):
        return
    was, now = (_nameless(_config(one) or {}) for one in (layer, twin))
    for key in sorted((was.keys() & now.keys()) - _OF_EVERY_LAYER - _SET_LATER):
        if same(was[key], now[key]) is False:
            text = f"{key}={_short(was[key])} comes back as {_short(now[key])}: {_advice(owner[1])}"
            yield _finding("layer-changed", Severity.FAILURE, *owner, inner, text)


# Arguments in Keras' own configs that change after a layer was made.
_SET_LATER = frozenset({"quantization_config", "vocabulary_size", "build_input_shape"})


def _nameless(config: Any) -> Any:
    """A config without names: Keras numbers layers that were given none, and the rebuilt ones come later."""
    if isinstance(config, Mapping):
        return {key: _nameless(value) for key, value in config.items() if key != "name"}
    return [_nameless(value) for value in config] if isinstance(config, list | tuple) else config


def _advice(node: internals.Node) -> str:
    cls, arguments = type(node).__name__, list(_constructor(type(node)))
    if not is_user_code(type(node).get_config):
        return f"{cls} has no get_config; add one that returns {_listed(arguments)}"
    left_out = [name for name in arguments if name not in (_config(node) or arguments)]
    if left_out:
        return f"get_config of {cls} leaves out {_listed(left_out)}"
    return f"get_config of {cls} must return {_listed(arguments)} as they were given"


# --- functions that use what they were not given


def _functions(path: str, node: internals.Node, stored: _Stored) -> Iterator[Finding]:
    """Functions that an object holds. Those of a user's object are made anew with it, and hold the new parts then."""
    made_anew = is_user_code(type(node))
    for name, value in attributes(node).items():
        function = inspect.unwrap(value) if callable(value) else None
        if not isinstance(function, FunctionType) or not is_user_code(function):
            continue
        for reached in _state_reached(function):
            if reached.value in stored and made_anew:
                continue
            certain = reached.value in stored or not reached.is_global
            severity = Severity.FAILURE if certain else Severity.WARNING
            yield _finding("state-outside", severity, path, node, name, _outside(function, reached, stored))


def _methods(stored: _Stored) -> Iterator[Finding]:
    classes = dict.fromkeys(base for _, node in stored.nodes for base in type(node).__mro__ if is_user_code(base))
    for cls in classes:
        for name, function in vars(cls).items():
            for reached in _state_reached(function) if isinstance(function, FunctionType) else ():
                certain = name == "call" and (reached.value in stored or not reached.is_global)
                severity = Severity.FAILURE if certain else Severity.WARNING
                message = f"{cls.__name__}.{_outside(function, reached, stored)}"
                yield Finding("state-outside", severity, message, subject=cls.__name__, details={"name": reached.name})


def _compiled(model: keras.Model, stored: _Stored) -> Iterator[Finding]:
    for argument, value in (internals.compile_arguments(model) or {}).items():
        for place, function in _functions_within(value, argument):
            for reached in _state_reached(function):
                message = f"{place}: {_outside(function, reached, stored)}"
                yield Finding("state-outside", Severity.WARNING, message, subject=f"compile/{argument}")


def _functions_within(value: Any, place: str) -> Iterator[tuple[str, FunctionType]]:
    if isinstance(value, FunctionType) and is_user_code(value):
        yield place, value
    elif isinstance(value, Mapping | list | tuple):
        for inner_place, inner in _items(value):
            yield from _functions_within(inner, f"{place}{inner_place}")


def _state_reached(function: FunctionType) -> Iterator[Reached]:
    return (reached for reached in reached_from(function) if _state(reached.value) is not None)


def _outside(function: FunctionType, reached: Reached, stored: _Stored) -> str:
    what = "which is part of this model" if reached.value in stored else "which is not saved with this model"
    return (
        f"{function.__name__} uses {reached.name} from outside, {what}: the rebuilt one would use whatever "
        f"{reached.name} is then. Write a layer that is given {reached.name} and keeps it as an attribute"
    )


# --- words


def _finding(check: str, severity: Severity, path: str, node: internals.Node, place: str, message: str) -> Finding:
    what = f"{type(node).__name__}.{place}" if place else type(node).__name__
    joined = f"{what}: {message}" if place else f"{what} {message}"
    subject = path or getattr(node, "name", what)
    return Finding(check, severity, joined, subject=subject, details={"class": type(node).__name__, "attribute": place})


def _listed(names: Iterable[str]) -> str:
    *most, last = list(names) or ["its arguments"]
    return f"{', '.join(most)} and {last}" if most else last


def _short(value: Any) -> str:
    if is_array(value):
        return f"an array {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
