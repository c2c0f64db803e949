"""From a config of any Keras to a model: made new, looked up, checked, and only then built.

What is missing is told all at once: every class and function that is not Keras' own, every lambda, and all that
Keras 3 has nothing for, with the layers that use them. Code that a config holds is never looked into.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import keras

from modelkeep.errors import CannotLoad, MissingCustomObjects, ModelkeepError, UnsafeContent
from modelkeep.legacy.layers import WITHOUT_EQUIVALENT
from modelkeep.legacy.operations import CLASSES
from modelkeep.legacy.upgrading import Upgraded, upgrade, upgrade_compile
from modelkeep.live import internals, lambdas
from modelkeep.live.allowlist import check_config, own_class, own_function
from modelkeep.live.configs import FUNCTION, VALUES, Place, walk
from modelkeep.live.custom_objects import Given, resolve
from modelkeep.live.portable import known_arguments
from modelkeep.manifest import CustomObject
from modelkeep.report import Finding, Report, Severity


@dataclass(frozen=True)
class Built:
    """A model with its first weights and without optimizer; what was done on the way; the custom objects it needed.

    ``objects`` are by the name that configs use, and are what :func:`compile_model` takes. ``renamed`` tells the
    names that layers have in the file, by the names they have now, where Keras 3 does not allow the old ones.
    """

    model: keras.Model
    findings: tuple[Finding, ...]
    config: Any  # what it was built from
    objects: dict[str, object] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)


def build(
    config: Any,
    *,
    keras_version: str | None,
    compile_config: Any = None,
    objects: Mapping[str, object] | None = None,
    custom_objects: Given | None = None,
    trust: Sequence[str] = (),
    file: str = "…",
) -> Built:
    """The model of a config, neither weighted nor compiled.

    ``keras_version`` is what the file says wrote it, None where it does not say. ``compile_config`` is only looked
    at, so that one report names all that is missing. ``objects`` are known already, by the name the config uses;
    ``custom_objects`` and ``trust`` are as for :func:`modelkeep.live.custom_objects.resolve`; ``file`` is what the
    line that would open it names.

    Raises MissingCustomObjects, UnsafeContent where a lambda's function is missing, and CannotLoad where Keras 3
    has nothing for a part or fails to build it; each holds a report with every reason.
    """
    needs = _Needs(keras_version, file, dict(objects or {}), custom_objects, tuple(trust))
    upgraded = upgrade(_with_operations(config), keras_version, custom=needs.names)
    new = needs.settle(upgraded, ())
    findings = tuple(needs.findings)
    if compile_config is not None:  # what is done to it is told when it is used
        needs.settle(upgrade_compile(compile_config, keras_version, custom=needs.names), ("compile",))
    needs.raise_if_missing()
    check_config(new, needs.objects)
    model = _built(new, needs)
    return Built(model, findings, new, needs.objects, upgraded.renamed)


def compile_model(
    model: keras.Model, compile_config: Any, *, keras_version: str | None, objects: Mapping[str, object] | None = None
) -> tuple[Finding, ...]:
    """Compile a model as the arguments in a file say; ``objects`` are what :func:`build` found.

    Raises as :func:`build`.
    """
    needs = _Needs(keras_version, "…", dict(objects or {}), None, ())
    new = needs.settle(upgrade_compile(compile_config, keras_version, custom=needs.names), ("compile",))
    needs.raise_if_missing()
    check_config(new, needs.objects)
    with keras.saving.custom_object_scope(needs.objects):
        try:
            arguments = keras.saving.deserialize_keras_object(deepcopy(new), safe_mode=True)
            model.compile(**arguments)
        except Exception as error:
            raise needs.failed(error) from error
    return tuple(needs.findings)


_OPERATIONS = [f"keras.src.ops.{place}" for place in ("numpy", "nn", "math", "core", "linalg", "image")]


def _with_operations(config: Any) -> Any:
    """A config with the modules of Keras 3's operations, which its ``.h5`` files leave out.

    Some are called as layers are. Only a layer's config says what it computes in.
    """
    if isinstance(config, list):
        return [_with_operations(value) for value in config]
    if not isinstance(config, dict):
        return config
    copy = {key: _with_operations(value) for key, value in config.items()}
    inner = copy.get("config")
    if "inbound_nodes" in copy and "module" not in copy and isinstance(inner, dict) and "trainable" not in inner:
        name = copy.get("class_name")
        module = next((place for place in _OPERATIONS if own_class(place, str(name)) is not None), None)
        if module is not None:
            copy |= {"module": module, "registered_name": name}
    return copy


def _built(config: Any, needs: _Needs) -> keras.Model:
    with (
        internals.unchanged_after_error(),
        keras.saving.custom_object_scope(needs.objects),
        internals.sharing(),
    ):
        internals.take_names(place.layers[-1] for place in walk(config) if place.layers)
        try:
            model = keras.saving.deserialize_keras_object(deepcopy(config), safe_mode=True)
        except Exception as error:
            raise needs.failed(error) from error
        if not isinstance(model, keras.Model):
            raise CannotLoad(
                "the config is not that of a model",
                found=type(model).__name__,
                expected="a Sequential or functional model",
            )
        return model


@dataclass
class _Needs:
    """What a config names, gathered from what was given; all that is missing is kept until everything was asked."""

    version: str | None
    file: str
    objects: dict[str, object]
    given: Given | None
    trust: tuple[str, ...]
    findings: list[Finding] = field(default_factory=list)
    missing: list[CustomObject] = field(default_factory=list)
    impossible: list[Finding] = field(default_factory=list)
    unknown: list[Finding] = field(default_factory=list)  # arguments; they matter where the build fails

    @property
    def names(self) -> frozenset[str]:
        """Of what was given: it goes before Keras' own of that name, as it did in Keras 2."""
        if isinstance(self.given, Mapping):
            return frozenset(map(str, self.given)) | self.objects.keys()
        return frozenset(getattr(thing, "__name__", "") for thing in self.given or ()) | self.objects.keys()

    def settle(self, upgraded: Upgraded, at: tuple[str, ...]) -> Any:
        """The config with lambdas as names and without arguments that mean nothing; what it names is gathered."""
        self.findings += [_finding("upgraded", Severity.NOTE, note) for note in upgraded.notes]
        self.impossible += [_finding("no-equivalent", Severity.FAILURE, note) for note in upgraded.refusals]
        config, _ = lambdas.check_or_replace(upgraded.config, allow_lambda=True, at=at)
        for record in _named(config, at, self.names):
            self._resolve(record)
        return self._without_unknown(config)

    def _resolve(self, record: CustomObject) -> None:
        if (record.registered or record.name) in self.objects:
            return
        try:
            found, findings = resolve([record], custom_objects=self.given, trust=self.trust)
        except MissingCustomObjects:
            self.missing.append(record)
        else:
            self.objects |= found
            self.findings += findings

    def _without_unknown(self, config: Any) -> Any:
        """Without arguments that this Keras' classes do not know and that switch nothing on: null and false."""
        if isinstance(config, list):
            return [self._without_unknown(value) for value in config]
        if not isinstance(config, dict):
            return config
        new = {key: self._without_unknown(value) for key, value in config.items()}
        if isinstance(new.get("class_name"), str) and isinstance(new.get("config"), dict):
            cls = own_class(new.get("module"), new["class_name"])
            if cls is not None and not issubclass(cls, keras.Model):
                new["config"] = self._known(cls, new["config"])
        return new

    def _known(self, cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
        known = known_arguments(cls)
        # Operations take no name in older releases of Keras 3; in a functional model it stands beside them, too.
        is_operation = issubclass(cls, keras.Operation) and not issubclass(cls, keras.Layer)
        odd = {key: value for key, value in arguments.items() if key not in known}
        left_out = {key for key, value in odd.items() if value in (None, False) or (key == "name" and is_operation)}
        for key in odd.keys() - left_out:
            text = f"{cls.__name__} knows no argument {key} in Keras {keras.version()}, found {odd[key]!r}"
            subject = str(arguments.get("name", ""))
            self.unknown.append(Finding("unknown-argument", Severity.FAILURE, text, subject=subject))
        return {key: value for key, value in arguments.items() if key not in left_out}

    # --- what could not be

    def raise_if_missing(self) -> None:
        findings = [*self.impossible, *map(_missing, self.missing)]
        if not findings:
            return
        has_lambda = any(record.kind == "lambda" for record in self.missing)
        kind = CannotLoad if self.impossible else UnsafeContent if has_lambda else MissingCustomObjects
        self._raise(kind, findings)

    def _raise(self, kind: type[ModelkeepError], findings: Sequence[Finding]) -> None:
        report = Report(f"{self._what} cannot be opened", tuple(findings), kind)
        lines = "".join(f"\n  - {f.subject + ': ' if f.subject else ''}{f.message}" for f in findings)
        error = kind(
            f"{self._what} cannot be opened: {len(findings)} reason{'s' if len(findings) > 1 else ''}{lines}",
            hint=self._line(),
        )
        error.report = report
        raise error

    def failed(self, error: Exception) -> ModelkeepError:
        """Why Keras could not build what was looked at and let pass."""
        if isinstance(error, ModelkeepError):
            return error
        reason = Finding("keras", Severity.FAILURE, f"{type(error).__name__}: {error}")
        report = Report(f"{self._what} cannot be built", (*self.unknown, reason), CannotLoad)
        lines = "".join(f"\n  - {finding.message}" for finding in report)
        failure = CannotLoad(f"{self._what} cannot be built{lines}")
        failure.report = report
        return failure

    @property
    def _what(self) -> str:
        return f"a model of Keras {self.version}" if self.version else "a model of Keras 1"

    def _line(self) -> str | None:
        if not self.missing:
            return None
        keys = dict.fromkeys(record.registered or record.name for record in self.missing)
        pairs = ", ".join(f"{key!r}: {_value(key)}" for key in keys)
        line = f"mk.load({self.file!r}, custom_objects={{{pairs}}})"
        only_to_train = all(user.startswith("compile") for record in self.missing for user in record.used_by)
        return f"{line}, or without its optimizer and losses: compile=False" if only_to_train else line


def _named(config: Any, at: tuple[str, ...], given: frozenset[str]) -> Iterator[CustomObject]:
    """What a config names that is not Keras' own, or that was given instead of it: once each, with all who use it."""
    users: dict[tuple[str, str, str], list[str]] = {}
    for place in walk(config, at=at):
        if (
            place.is_object
            and place.value["class_name"] not in VALUES
            and (place.value["class_name"] not in _TOLD or place.value["class_name"] in given)
            and (key := _custom(place, given))
        ):
            users.setdefault(key, []).append(place.user)
    for (name, module, kind), used_by in users.items():
        bare = name if kind == "lambda" else name.rpartition(">")[2]
        yield CustomObject(
            name=bare,
            kind=kind,
            module=module,
            qualname=bare,
            registered=name if name != bare else None,
            used_by=tuple(dict.fromkeys(filter(None, used_by))),
        )


# They are refused with what they stand for.
_TOLD = CLASSES | WITHOUT_EQUIVALENT.keys()


def _custom(place: Place, given: frozenset[str]) -> tuple[str, str, str] | None:
    node = place.value
    name, module = node["class_name"], node.get("module")
    if name == FUNCTION:
        function = str(node["config"])
        # Keras finds its own operations by their module only where it is told to: they are handed to it by name.
        if function not in given and module != "keras.ops" and own_function(module, function) is not None:
            return None
        kind = "lambda" if function.startswith(lambdas.PREFIX) else FUNCTION
        return function, str(module), kind
    registered = str(node.get("registered_name") or name)
    # What modelkeep keeps of older Keras has names of its own.
    if registered not in given and own_class(module, name) is not None:
        return None
    return registered, str(module), "object"


def _missing(record: CustomObject) -> Finding:
    name = record.registered or record.name
    users = f", used by {', '.join(record.used_by)}" if record.used_by else ""
    if record.kind == "lambda":
        message = f"a lambda, of which the file holds bytecode only{users}"
    else:
        word = "function" if record.kind == FUNCTION else "class"
        message = f"a {word} that is not Keras' own{users}"
    return Finding("custom-object", Severity.FAILURE, message, subject=name, details={"used_by": record.used_by})


def _value(key: str) -> str:
    bare = key.rpartition(">")[2]
    return bare if bare.isidentifier() else "…"


def _finding(check: str, severity: Severity, note: Any) -> Finding:
    return Finding(check, severity, note.message, subject=note.place, details={"rule": note.rule})
