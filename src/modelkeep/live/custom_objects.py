"""Classes and functions that are not Keras' own: found when a model is saved, gathered again when it is loaded.

At save each one that the config names is recorded with where it was defined and its source, for reading and for
noticing edits. At load they come from three places and no other: what the caller gave, what is registered with
Keras in this process, and (for packages the caller trusts) the modules they were defined in. Recorded source is
never run, and nothing is imported because a file says so.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import FunctionType
from typing import Any

import keras
from msgspec.structs import replace

from modelkeep.errors import CannotLoad, MissingCustomObjects, UsageError
from modelkeep.live import internals
from modelkeep.live.allowlist import KINDS, kind_of, own_class, own_function, public_module, pure_function
from modelkeep.live.configs import FUNCTION, LAMBDA, VALUES, Place, attributes, walk
from modelkeep.live.lambdas import PREFIX as LAMBDA_PREFIX
from modelkeep.live.sources import Source, is_user_code, source_of
from modelkeep.manifest import CustomObject
from modelkeep.refs import short_digest
from modelkeep.report import Finding, Severity

Given = Mapping[str, object] | Iterable[object]


@dataclass(frozen=True)
class Found:
    """The custom objects of a model.

    ``sources`` are parts by name; ``objects`` the live objects by the name that Keras asks for;
    ``findings`` hold a failure for each object that Keras could not find again, or would take for another.
    """

    records: tuple[CustomObject, ...]
    sources: dict[str, bytes]
    objects: dict[str, object]
    findings: tuple[Finding, ...]


# --- at save


def find(config: Any, compile_config: Any, model: keras.Model) -> Found:
    """Find what a model is made of beside Keras' own.

    ``config`` and ``compile_config`` are what Keras serialized, after :func:`lambdas.check_or_replace`;
    ``model`` is where the classes and functions themselves are read from.
    """
    search = _Search()
    # A model that tells its own compile config keeps what it was given in attributes.
    arguments = {**attributes(model), **(internals.compile_arguments(model) or {})}
    for place in chain(walk(config, model), walk(compile_config, arguments, at=("compile",))):
        search.look_at(place)
    for _, node in internals.walk(model):
        if isinstance(node, keras.Layer):
            search.look_behind(node)
    return search.found()


@dataclass
class _Search:
    # By what the config calls them; implied ones by where they were defined.
    things: dict[str, object] = field(default_factory=dict)
    records: dict[str, CustomObject] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def look_at(self, place: Place) -> None:
        if isinstance(place.value, str):
            self._look_at_text(place, place.value)
        elif place.is_object and place.value["class_name"] not in (LAMBDA, *VALUES):
            if place.value["class_name"] == FUNCTION:
                self._look_at_function(place, place.value["config"])
            elif isinstance(place.value["config"], Mapping):
                self._look_at_class(place)
            else:
                self._fail(place, _ONLY_BY_NAME, place.value["config"], place.value["class_name"])

    def look_behind(self, layer: keras.Layer) -> None:
        """A layer made by the code of another custom object: not named in the config, yet its source matters."""
        cls, key = type(layer), _where(type(layer))
        if is_user_code(cls) and (key in self.records or all(thing is not cls for thing in self.things.values())):
            self.things[key] = cls
            self.records.setdefault(key, replace(_describe(cls, kind_of(cls), None), implied=True))
            self._used(key, layer.name)

    def found(self) -> Found:
        records: list[CustomObject] = []
        sources: dict[str, bytes] = {}
        for key, record in self.records.items():
            # Keras' own change with its version, which the environment tells.
            if is_user_code(self.things[key]):
                record = self._with_source(record, source_of(self.things[key]), sources)
            records.append(record)
        objects = {key: thing for key, thing in self.things.items() if not self.records[key].implied}
        return Found(tuple(records), sources, objects, tuple(self.findings))

    def _with_source(self, record: CustomObject, source: Source, sources: dict[str, bytes]) -> CustomObject:
        record = replace(record, file=source.file, line=source.line)
        if source.text is None:
            self.findings.append(_source_not_found(record))
            return record
        part = _part_name(record)
        sources[part] = source.text.encode()
        return replace(record, source=part, source_digest=source.digest)

    def _look_at_text(self, place: Place, text: str) -> None:
        function = place.live
        if isinstance(function, FunctionType) and is_user_code(function) and not is_user_code(type(place.owner)):
            # Keras' own layers write no more than the name of what they take for Keras' own function.
            self._fail(place, _TAKEN_FOR_KERAS, text)
        elif place.path[:1] == ("compile",) and text and (known := keras.saving.get_registered_object(text)):
            kind = kind_of(known) if isinstance(known, type) else _function_kind(place)
            self._record(place, text, known, kind)

    def _look_at_function(self, place: Place, name: str) -> None:
        own = own_function(place.value.get("module"), name)
        function = _live_function(place, name)
        if function is None and own is not None:
            return
        if function is None:
            self._fail(place, _NOT_FOUND, name)
        elif own is None:
            kind = "lambda" if name.startswith(LAMBDA_PREFIX) else _function_kind(place)
            self._record(place, name, function, kind)
        elif is_user_code(function):
            self._fail(place, _TAKEN_FOR_KERAS, name)
        elif function is not own and own.__module__.startswith("keras.src.losses"):
            # Keras' operations share names with losses that reduce; activations of one name are the same.
            self._fail(place, _TAKEN_FOR_KERAS, name)

    def _look_at_class(self, place: Place) -> None:
        module, name = place.value.get("module"), place.value["class_name"]
        if own_class(module, name) is not None:
            return
        registered = place.value.get("registered_name") or name
        cls = type(place.live) if type(place.live).__name__ == name else _loaded_class(module, name, registered)
        if cls is None:
            self._fail(place, _NOT_FOUND, name)
        elif name == "TorchModuleWrapper":
            self._fail(place, _PICKLED, name)
        else:
            self._record(place, registered, cls, kind_of(cls))

    def _record(self, place: Place, key: str, thing: object, kind: str) -> None:
        if self.things.setdefault(key, thing) is not thing:
            self._fail(place, _SAME_NAME, key, _where(self.things[key]), _where(thing))
            return
        if key not in self.records:
            self.records[key] = _describe(thing, kind, key)
        self._used(key, place.user)

    def _used(self, key: str, user: str) -> None:
        record = self.records[key]
        if user and user not in record.used_by:
            self.records[key] = replace(record, used_by=(*record.used_by, user))

    def _fail(self, place: Place, text: str, name: str, *more: str) -> None:
        message = text.format(name, *more)
        self.findings.append(
            Finding(
                "custom-object",
                Severity.FAILURE,
                message,
                subject=place.user,
                details={"name": name, "place": str(place)},
            )
        )


_REGISTER = "register it: @keras.saving.register_keras_serializable(package='…')"
_TAKEN_FOR_KERAS = (
    "the function {0} has the name of another of Keras' own, which would be loaded instead; rename it, or " + _REGISTER
)
_SAME_NAME = (
    "two custom objects are both called {0} ({1} and {2}), and one would be loaded for both; rename one, or "
    + _REGISTER
)
_ONLY_BY_NAME = (
    "{0} is a {1}, of which Keras records no more than the name; make it a plain function or a class with get_config"
)
_NOT_FOUND = "{0} is named in the config, but no such class or function was found in the model; " + _REGISTER
_PICKLED = (
    "{0} keeps its module as a pickle; write the module as a Keras layer, or keep the weights only (architecture=False)"
)


def _describe(thing: Any, kind: str, key: str | None) -> CustomObject:
    public = public_module(thing)
    name = getattr(thing, "__name__", type(thing).__name__)
    return CustomObject(
        name=key if kind == "lambda" and key else name,
        kind=kind,
        module=public or str(thing.__module__),
        qualname=str(getattr(thing, "__qualname__", name)),
        registered=key if key and key != name and kind != "lambda" else None,
    )


def _function_kind(place: Place) -> str:
    if place.path[:1] == ("compile",):
        role = {"loss": "loss", "metrics": "metric", "weighted_metrics": "metric"}.get(str(place.path[1]), "")
    else:
        roles = ("activation", "initializer", "regularizer", "constraint")
        role = next((role for role in roles if place.argument.endswith(role)), "")
    return f"{role} {FUNCTION}".lstrip()


def _live_function(place: Place, name: str) -> Any:
    if callable(place.live) and not isinstance(place.live, type):
        return place.live
    own = (value for value in attributes(place.owner).values() if isinstance(value, FunctionType))
    return next((value for value in own if _registered_name(value) == name), keras.saving.get_registered_object(name))


def _loaded_class(module: str | None, name: str, registered: str) -> Any:
    # Keras writes no module for classes of the script itself.
    loaded = sys.modules.get(module or "__main__")
    return keras.saving.get_registered_object(registered) or getattr(loaded, "__dict__", {}).get(name)


def _registered_name(function: FunctionType) -> str:
    return str(keras.saving.get_registered_name(function))


def _part_name(record: CustomObject) -> str:
    name = record.name if record.kind == "lambda" else f"{record.module}.{record.qualname}"
    return "source/" + re.sub(r"[^A-Za-z0-9._-]+", ".", name.replace("<locals>.", "")).strip(".") + ".py"


def _source_not_found(record: CustomObject) -> Finding:
    message = f"the source of {record.qualname} cannot be read here, so later edits to it will go unnoticed"
    return Finding("custom-object-source", Severity.NOTE, message, subject=record.name)


# --- at load


def resolve(
    recorded: Sequence[CustomObject], *, custom_objects: Given | None = None, trust: Sequence[str] = ()
) -> tuple[dict[str, object], tuple[Finding, ...]]:
    """Gather the objects that a version needs, by the name its config uses, and say which were edited since the save.

    ``custom_objects`` is a mapping of names or a list of classes and functions; ``trust`` names packages whose
    modules may be imported to find more. Objects registered with Keras need not be given.

    Raises MissingCustomObjects naming all that were not found, UsageError where what was given cannot be meant,
    CannotLoad when a trusted module fails on import.
    """
    given, packages = _Offered.of(custom_objects), _packages(trust)
    objects: dict[str, object] = {}
    missing: list[CustomObject] = []
    needed = [record for record in recorded if not record.implied]
    for record in needed:
        thing = _agreed(record, given.take(record), _registered(record)) or _imported(record, packages)
        if thing is None:
            missing.append(record)
        else:
            _check_kind(record, thing)
            objects[_key(record)] = thing
    if missing:
        raise _missing(missing, given.unused(needed))
    return objects, tuple(
        _edited(record, objects.get(_key(record)) or _loaded(record))
        for record in recorded
        if _is_edited(record, objects)
    )


@dataclass
class _Offered:
    """What the caller gave, with its name in the mapping or None from a list."""

    things: list[tuple[str | None, Any]]

    @classmethod
    def of(cls, custom_objects: Given | None) -> _Offered:
        if isinstance(custom_objects, Mapping):
            return cls(list(custom_objects.items()))
        if custom_objects is None:
            return cls([])
        if isinstance(custom_objects, str | type) or not isinstance(custom_objects, Iterable):
            raise UsageError(
                "custom_objects cannot be read",
                found=repr(custom_objects),
                expected="a list of classes and functions, or a mapping of names to them",
            )
        things: list[Any] = list(custom_objects)
        nameless = [thing for thing in things if not hasattr(thing, "__name__")]
        if nameless:
            raise UsageError(
                "custom_objects hold something that is neither a class nor a function",
                found=repr(nameless[0]),
                hint="give the class itself, not an instance; give other callables with their name, in a mapping",
            )
        return cls([(None, thing) for thing in things])

    def take(self, record: CustomObject) -> Any:
        named = [thing for name, thing in self.things if name in (record.name, record.registered) and name]
        if named:
            return _only(record, named)
        alike = [(name, thing) for name, thing in self.things if _is_called(thing, record)]
        listed = [thing for name, thing in alike if name is None]
        if alike and not listed:
            raise UsageError(
                f"{_key(record)} was given under another name",
                found=repr(alike[0][0]),
                expected=repr(_key(record)),
                hint=f"custom_objects={{{_key(record)!r}: {record.name}}}, or a list: custom_objects=[{record.name}]",
            )
        exact = [
            thing for thing in listed if (thing.__module__, thing.__qualname__) == (record.module, record.qualname)
        ]
        return _only(record, exact or listed)

    def unused(self, needed: Sequence[CustomObject]) -> list[str]:
        wanted = {name for record in needed for name in (record.name, record.registered)}
        names = (name or getattr(thing, "__name__", "") for name, thing in self.things)
        return [name for name in names if name not in wanted]


def _only(record: CustomObject, things: list[Any]) -> Any:
    if any(thing is not things[0] for thing in things):
        raise UsageError(
            f"two objects were given for {_key(record)}",
            found=" and ".join(_where(thing) for thing in things),
            expected="one",
        )
    return things[0] if things else None


def _is_called(thing: Any, record: CustomObject) -> bool:
    if not hasattr(thing, "__name__") or record.kind == "lambda":
        return False
    return bool(thing.__name__ == record.name or keras.saving.get_registered_name(thing) == record.registered)


def _registered(record: CustomObject) -> Any:
    return pure_function(record.module, record.qualname) or keras.saving.get_registered_object(_key(record))


def _agreed(record: CustomObject, given: Any, registered: Any) -> Any:
    # Keras prefers the registered one inside a config and the given one outside: the same model would hold both.
    if given is not None and registered is not None and given is not registered:
        raise UsageError(
            f"{_key(record)} was given, and another of that name is registered with Keras",
            found=f"{_where(given)} and {_where(registered)}",
            expected="one",
            hint="give none, or the registered one",
        )
    return given if given is not None else registered


def _packages(trust: Sequence[str]) -> frozenset[str]:
    if isinstance(trust, str):
        raise UsageError("trust names packages in a list", found=repr(trust), expected=repr([trust]))
    return frozenset(trust)


def _imported(record: CustomObject, trusted: frozenset[str]) -> Any:
    """What a module of a trusted package defines under the recorded name; None where it does not."""
    names = record.qualname.split(".")
    if record.module.partition(".")[0] not in trusted or not all(
        map(str.isidentifier, [*record.module.split("."), *names])
    ):
        return None
    try:
        thing: Any = importlib.import_module(record.module)
    except ModuleNotFoundError:
        return None
    except Exception as error:  # whatever the user's module raises is why this cannot be loaded
        raise CannotLoad(
            f"importing {record.module} for {_key(record)} failed: {error}",
            hint="mend the module, or give custom_objects=",
        ) from error
    for name in names:
        thing = vars(thing).get(name)
        # Only through classes: a module may hold other modules, with anything in them.
        if not isinstance(thing, type | FunctionType):
            return None
    return thing if thing.__module__.partition(".")[0] in trusted else None


def _check_kind(record: CustomObject, thing: Any) -> None:
    wants_function = record.kind == "lambda" or record.kind.endswith(FUNCTION)
    if wants_function:
        fits = callable(thing) and not isinstance(thing, type)
    else:
        fits = isinstance(thing, type) and issubclass(thing, KINDS.get(record.kind, (object,)))
    if not fits:
        raise UsageError(
            f"what was given for {_key(record)} is of another kind",
            found=f"a {kind_of(thing)} class" if isinstance(thing, type) else f"a {type(thing).__name__}",
            expected=f"a {record.kind}" if wants_function else f"a {record.kind} class",
        )


def _missing(records: list[CustomObject], unused: list[str]) -> MissingCustomObjects:
    lines = "".join(f"\n  - {_introduced(record)}" for record in records)
    also = f"\n  given, but not needed: {', '.join(unused)}" if unused else ""
    count = f"{len(records)} custom object{'s' if len(records) > 1 else ''}"
    return MissingCustomObjects(
        f"{count} needed to rebuild this model, and not given:{lines}{also}", hint=_lines_to_paste(records)
    )


def _introduced(record: CustomObject) -> str:
    line = f", line {record.line}" if record.line else ""
    used = f", used by {', '.join(record.used_by)}" if record.used_by else ""
    return f"{record.kind} {_key(record)}, defined in {record.file or record.module}{line}{used}"


def _lines_to_paste(records: list[CustomObject]) -> str:
    imports = dict.fromkeys(map(_import_line, records))
    simple = all(record.kind != "lambda" for record in records)
    names = [record.qualname.rpartition(".")[2] for record in records]
    if simple:
        objects = f"[{', '.join(names)}]"
    else:
        values = ["…" if record.kind == "lambda" else name for record, name in zip(records, names, strict=True)]
        pairs = (f"{_key(record)!r}: {value}" for record, value in zip(records, values, strict=True))
        objects = f"{{{', '.join(pairs)}}}"
    return "\n    ".join([*imports, f"custom_objects={objects}"])


def _import_line(record: CustomObject) -> str:
    if record.kind == "lambda":
        return f"# {record.name} was a lambda: give its function again"
    if "<locals>" in record.qualname:
        return (
            f"# {record.name} is defined inside {record.qualname.partition('.')[0]}() in {record.file or record.module}"
        )
    module = record.module
    if module == "__main__" and record.file:
        module = record.file.removesuffix(".py")
    return f"from {module} import {record.qualname.partition('.')[0]}"


def _is_edited(record: CustomObject, objects: Mapping[str, object]) -> bool:
    if record.kind == "lambda":
        return False  # given anew under its name, as whatever function the caller likes
    thing = objects.get(_key(record)) or _loaded(record)
    now = source_of(thing).digest if thing is not None else None
    return None not in (now, record.source_digest) and now != record.source_digest


def _edited(record: CustomObject, thing: Any) -> Finding:
    now = source_of(thing).digest
    return Finding(
        "custom-object-source",
        Severity.WARNING,
        f"the source of {record.qualname} is not what it was at the save "
        f"({short_digest(record.source_digest or 'unknown')}, now {short_digest(now or 'unknown')}); "
        f"the part {record.source} holds the old text",
        subject=record.name,
        details={"saved": record.source_digest, "now": now},
    )


# --- both


def _key(record: CustomObject) -> str:
    """The name that the config uses, and Keras asks for."""
    return record.registered or record.name


def _loaded(record: CustomObject) -> Any:
    """The object where it was defined, if its module is loaded already; nothing is imported."""
    thing: Any = sys.modules.get(record.module)
    for name in record.qualname.split("."):
        thing = getattr(thing, "__dict__", {}).get(name)
    return thing


def _where(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', repr(thing))}"
