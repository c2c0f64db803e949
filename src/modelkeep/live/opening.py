"""A foreign file brought to life: scanned first, then read, then built, with an account of all of it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import keras

from modelkeep.engines.engine import MODULES as ENGINES
from modelkeep.engines.engine import Engine, open_engine
from modelkeep.errors import CannotLoad, Conflict, ModelkeepError, UnsafeContent, UsageError
from modelkeep.formats.architecture import WAY_OUT_OF_YAML
from modelkeep.formats.contents import Contents
from modelkeep.formats.forms import look, open_contents, title_of
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.live import internals
from modelkeep.live.golden import outputs_of
from modelkeep.live.reading import Read
from modelkeep.report import Finding, Report, Severity
from modelkeep.safety.configs import DECLARED_SIZE, most_numbers
from modelkeep.safety.scanning import Scan, scan

# The checks of findings that tell what was made new in a config, and why a form that serves gave no model.
UPGRADED = "upgraded"
NOT_REBUILT = "not-rebuilt"

# Form → the module of `reading` that makes a model of it.
READERS = {
    "keras": "keras_archive",
    "h5": "h5",
    "weights_h5": "weights",
    "legacy_weights_h5": "weights",
    "safetensors": "weights",
    "npz": "weights",
    "json": "architecture",
    "saved_model": "saved_model",
    "tf_checkpoint": "checkpoint",
}


@dataclass(frozen=True)
class Opened:
    """What a foreign file gave: a Keras model where it holds one, else an engine that answers in its place.

    ``contents`` is what the file tells of itself (its tensors are no longer readable), ``findings`` what became
    of every part of it, ``scan`` what the safety check said.
    """

    path: Path
    form: str
    contents: Contents
    network: keras.Model | None
    engine: Engine | None
    findings: tuple[Finding, ...]
    scan: Scan

    @property
    def model(self) -> keras.Model:
        """The Keras model, compiled if the file says how. Raises CannotLoad where the file holds none."""
        if self.network is None:
            why = next((f.message for f in self.findings if f.check == NOT_REBUILT), "it holds no Keras model")
            raise CannotLoad(
                f"{self.path.name} is {title_of(self.form)}: {why}",
                hint="it answers all the same: use .predict, or .engine",
            )
        return self.network

    def predict(self, inputs: Any) -> Any:
        """Answer one batch: arrays, nested as the model takes them; by input name where an engine answers.

        Raises UsageError where they do not fit.
        """
        if self.network is not None:
            return outputs_of(self.network, inputs)
        assert self.engine is not None
        return self.engine.run(_by_name(inputs, self.engine))

    @property
    def name(self) -> str:
        """What a lineage calls it: the file, its form, what wrote it, and its digest."""
        return described(self.contents, self.scan)

    @property
    def upgrades(self) -> tuple[str, ...]:
        """What was made new in the config of an old file."""
        return tuple(str(finding.message) for finding in self.findings if finding.check == UPGRADED)

    @property
    def allowed(self) -> tuple[str, ...]:
        """The rules of the scan that the file broke, and was let break."""
        return tuple(dict.fromkeys(finding.rule for finding in self.scan.findings if finding.allowed))

    @cached_property
    def report(self) -> Report:
        """The findings as a report."""
        return Report(f"{self.path.name}: {title_of(self.form)}", self.findings, CannotLoad)


def open_file(
    path: str | os.PathLike[str],
    *,
    into: keras.Model | None = None,
    architecture: str | os.PathLike[str] | keras.Model | None = None,
    custom_objects: Any = None,
    trust: Sequence[str] = (),
    compile: bool = True,
    skip: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    allow: Sequence[str] = (),
    limits: Limits = DEFAULT,
) -> Opened:
    """Open a model file or folder of any form, after a scan that refuses what could do harm.

    ``into`` is a model that takes the weights; ``architecture`` a file or model whose network is made anew to take
    them. ``skip`` names tensors or variables that may stay without a partner; ``names`` tells, by the names of a
    TensorFlow checkpoint's tensors, what the model calls them. ``allow`` names rules of the scan that may be broken;
    ``custom_objects`` and ``trust`` are as for :meth:`modelkeep.Keep.load`.

    Raises NotFound, UsageError, UnsafeContent, LimitExceeded, IntegrityError, MissingCustomObjects, NotFaithful
    (tensors without a partner), CannotLoad, MissingExtra.
    """
    path = look(Path(path)).path  # a checkpoint is named by what its files begin with
    trust, skip, allow = (((one,) if isinstance(one, str) else one) for one in (trust, skip, allow))
    if into is not None and not isinstance(into, keras.Model):
        raise UsageError("weights go into a Keras model", found=f"into={into!r}")
    given = {"custom_objects": custom_objects, "trust": trust}
    scanned = _scanned(path, allow, limits)
    if architecture is not None:
        if into is not None:
            raise UsageError("into and architecture both say where the weights go", hint="give one of them")
        into = _network(architecture, allow=allow, limits=limits, **given)
    with ExitStack() as stack:
        contents = stack.enter_context(_unchanged(path, limits))
        with _bounded(contents, into, allow):
            read, why_not = _read(contents, names, into=into, compile=compile, skip=skip, **given)
        if read is not None:
            return Opened(path, contents.form, contents, read.model, None, _findings(scanned, read.findings), scanned)
        engine = open_engine(contents.form, contents.path)
        opened = Opened(path, contents.form, contents, None, engine, _findings(scanned, why_not), scanned)
        # An archive's folder is there as long as the engine that may still read from it.
        weakref.finalize(engine, stack.pop_all().close)
        return opened


@contextmanager
def open_as_data(
    path: str | os.PathLike[str], *, allow: Sequence[str] = (), limits: Limits = DEFAULT
) -> Iterator[tuple[Contents, Scan]]:
    """What a file of any form holds, after the scan and without building anything; readable until the block ends.

    Raises NotFound, UsageError, UnsafeContent, LimitExceeded, IntegrityError.
    """
    path = look(Path(path)).path
    scanned = _scanned(path, (allow,) if isinstance(allow, str) else allow, limits)
    with _unchanged(path, limits) as contents:
        yield contents, scanned


def described(contents: Contents, scanned: Scan) -> str:
    """What a lineage calls a file: its name, its form, what wrote it, and its digest."""
    writers = [f"{key} {value}" for key, value in contents.writer.items() if key in ("keras", "tensorflow")]
    written = f", written by {' and '.join(writers)}" if writers else ""
    return f"{contents.path.name}: {title_of(contents.form)}{written} ({scanned.digest})"


def _scanned(path: Path, allow: Sequence[str], limits: Limits) -> Scan:
    found = scan(path, limits=limits, allow=allow)
    found.raise_for_failures()
    return found


@contextmanager
def _unchanged(path: Path, limits: Limits) -> Iterator[Contents]:
    """The contents of what was scanned: not of what somebody put in its place meanwhile."""
    before = _identity(path)
    with open_contents(path, limits) as contents:
        yield contents
        if _identity(path) != before:
            raise Conflict(f"{path.name} was changed while it was read", hint="open it again when nobody writes to it")


def _identity(path: Path) -> tuple[tuple[int, ...], ...]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple(
        (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (os.lstat(file) for file in files)
    )


def _bounded(contents: Contents, into: keras.Model | None, allow: Sequence[str]) -> AbstractContextManager[None]:
    """Inside, no model grows beyond what its file has weights for: shapes tell sizes only once it is built."""
    if into is not None or DECLARED_SIZE in allow:
        return nullcontext()
    held = [*contents.tensors, *contents.optimizer]
    numbers = sum(prod(tensor.shape) for tensor in held) if held else None
    return internals.bounded(most_numbers(numbers), contents.path.name)


def _read(contents: Contents, names: Mapping[str, str] | None, **terms: Any) -> tuple[Read | None, tuple[Finding, ...]]:
    """The model; or none, and why, where the form holds none but can answer."""
    if names is not None:
        if contents.form != "tf_checkpoint":
            raise UsageError("names are for the tensors of a TensorFlow checkpoint", found=title_of(contents.form))
        terms["names"] = names
    serves = contents.form in ENGINES and terms["into"] is None
    if contents.form not in READERS or (serves and contents.config is None):
        if serves:
            return None, ()
        raise CannotLoad(
            f"{contents.path.name} is {title_of(contents.form)}",
            expected="a form that holds a model, weights or an architecture",
            hint=WAY_OUT_OF_YAML if contents.form == "yaml" else "see what is in it: modelkeep inspect",
        )
    try:
        return _model(contents, terms), ()
    except (CannotLoad, UnsafeContent) as error:
        if not serves:
            raise
        return None, (Finding(NOT_REBUILT, Severity.WARNING, str(error)),)


def _model(contents: Contents, terms: Mapping[str, Any]) -> Read:
    try:
        found: Read = import_module(f"modelkeep.live.reading.{READERS[contents.form]}").read(contents, **terms)
    except (ModelkeepError, ImportError):
        raise
    except Exception as error:  # whatever Keras makes of configs and files that it would not have written
        raise CannotLoad(
            f"{contents.path.name} cannot be opened", found=f"{type(error).__name__}: {str(error)[:500]}"
        ) from error
    return found


def _network(architecture: Any, **terms: Any) -> keras.Model:
    if not isinstance(architecture, keras.Model):
        return open_file(architecture, compile=True, **terms).model
    config = keras.saving.serialize_keras_object(architecture)
    return keras.saving.deserialize_keras_object(config, custom_objects=_objects(terms["custom_objects"]))


def _objects(custom_objects: Any) -> Mapping[str, Any] | None:
    if custom_objects is None or isinstance(custom_objects, Mapping):
        return custom_objects
    return {one.__name__: one for one in custom_objects}


def _findings(scanned: Scan, found: Sequence[Finding]) -> tuple[Finding, ...]:
    """What was let pass by name stands among what there is to know."""
    allowed = (
        Finding("allowed", Severity.WARNING, finding.message, subject=finding.rule)
        for finding in scanned.findings
        if finding.allowed
    )
    return (*allowed, *found)


def _by_name(inputs: Any, engine: Engine) -> Mapping[str, Any]:
    names = [spec.name for spec in engine.signature.inputs]
    if isinstance(inputs, Mapping):
        return inputs
    values = list(inputs) if isinstance(inputs, list | tuple) and len(names) > 1 else [inputs]
    if len(values) != len(names):
        raise UsageError("not as many inputs as it takes", found=len(values), expected=", ".join(names))
    return dict(zip(names, values, strict=True))
