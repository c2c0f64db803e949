"""A model in memory written in a foreign form, opened again and replayed before it gets its name.

Routes
------
SavedModel, ONNX, LiteRT and OpenVINO come from TensorFlow's graph. Models on JAX and PyTorch are rebuilt under it
in a process of their own, with the same weights. Where that fails, or what comes of it does not answer as the model
does, the backend's own exporter is tried, then PyTorch's: each form's ``ROUTES`` tells which there are. TensorFlow
comes first because of what was measured: ten models of the kinds that Keras' own exporters get wrong, or cannot write,
under one backend or another all came right that way, from each backend; by PyTorch's exporter, called as it
should be, three of them failed. Rebuilding costs four to six seconds.

Replay
------
What was written answers the examples at batch sizes 1, 3 and theirs, repeated or cut, and once more with every
unknown axis twice as long: exporters turn unknown lengths into constants without a word. What differs by more than
:mod:`modelkeep.live.comparison` allows gets no name.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
from msgspec import convert, to_builtins

from modelkeep.engines.engine import MODULES as ENGINES
from modelkeep.engines.engine import Engine, open_engine
from modelkeep.errors import (
    CannotLoad,
    MissingExtra,
    ModelkeepError,
    NotFaithful,
    StorageError,
    UnsafeContent,
    UsageError,
)
from modelkeep.formats.durable import new_file, new_folder
from modelkeep.formats.saved_model import OWN
from modelkeep.live import rebuilding
from modelkeep.live.arrays import to_arrays
from modelkeep.live.golden import Predict
from modelkeep.live.interface import interface
from modelkeep.live.probes import probes
from modelkeep.live.replaying import Examples, changes, compare, examples_of
from modelkeep.live.signature import signature as signature_of
from modelkeep.live.tensors import numpy_dtype
from modelkeep.live.writing import keras_archive, saved_model
from modelkeep.live.writing.tracing import by_name, nested
from modelkeep.manifest import Signature
from modelkeep.report import Finding, Report, Severity


@dataclass(frozen=True)
class Writer:
    """What writes a form: a module of :mod:`modelkeep.live.writing`, and the modules it needs under any backend."""

    module: str
    ending: str  # of the file; empty for a form that is a folder
    needs: tuple[str, ...] = ()
    has: str = ""  # the file that tells a folder of this form from others, so that it may be overwritten


# Form → what writes it.
WRITERS = {
    "keras": Writer("keras_archive", ".keras"),
    "h5": Writer("h5", ".h5"),
    "weights_h5": Writer("weights", ".weights.h5"),
    "legacy_weights_h5": Writer("weights", ".h5"),
    "safetensors": Writer("weights", ".safetensors"),
    "npz": Writer("weights", ".npz"),
    "json": Writer("architecture", ".json"),
    "zip": Writer("archives", ".zip"),
    "tar.gz": Writer("archives", ".tar.gz"),
    "tar.zst": Writer("archives", ".tar.zst", ("zstandard",)),
    "saved_model": Writer("saved_model", "", has="saved_model.pb"),
    "onnx": Writer("onnx", ".onnx", ("onnx", "onnxruntime")),
    "litert": Writer("litert", ".tflite", ("ai_edge_litert",)),
    "openvino": Writer("openvino", "", ("openvino",), has="model.xml"),
}

# Module → the extra that brings it.
_EXTRAS = {
    "ai_edge_litert": "litert",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "openvino": "openvino",
    "tensorflow": "tensorflow",
    "tf2onnx": "onnx",
    "zstandard": "archives",
}
_NO_SPACE = os.strerror(errno.ENOSPC)
_FIRST, _LAST = "tensorflow", "torch"  # where forms that engines run are written, before and after the model's own


def forms() -> dict[str, MissingExtra | None]:
    """Every form that can be written, with what is missing for it here, or None."""
    return {form: _missing(form, writer) for form, writer in WRITERS.items()}


def export(
    model: keras.Model,
    form: str,
    to: Path,
    *,
    signature: Signature | None = None,
    examples: Any = None,
    overwrite: bool = False,
    **options: Any,
) -> Report:
    """Write ``model`` as ``form`` at ``to``, once what was written has answered as the model does.

    ``signature`` names inputs and outputs; the model's own by default. ``examples`` are inputs as the model takes
    them; made up from the signature where there are none. The report has the largest difference of each output.

    Raises NotFaithful, with the report, where the form answers otherwise, and UsageError for a form that cannot hold
    the model; nothing is left at ``to`` then. AlreadyExists unless ``overwrite``; MissingExtra, StorageError.
    """
    if not isinstance(model, keras.Model):
        raise UsageError("not a Keras model", found=type(model).__name__)
    writer = _writer(form)
    if options and writer.module != "archives":
        raise UsageError(f"{form} is written without options", found=", ".join(options), hint="of= is for an archive")
    job = _Job(model, form, writer, _examples(model, form, signature or signature_of(model), examples), options)
    failures: list[ModelkeepError] = []
    with _published(to, writer, overwrite=overwrite) as path:
        for route in _open_routes(form, writer):
            try:
                return job.written(path, route).extended(_tried(failures))
            except (NotFaithful, UsageError, CannotLoad, UnsafeContent) as error:
                failures.append(error)
        raise failures[0] from (failures[-1] if len(failures) > 1 else None)


def _examples(model: keras.Model, form: str, signature: Signature | None, given: Any) -> Examples | None:
    """What is replayed; None for a form that is no more than the model's own parts, where nothing can be made up."""
    try:
        inputs = to_arrays(given) if given is not None else probes(model, signature)
        if signature is None or inputs is None:
            raise UsageError("this model does not tell what it takes", hint="call it once on a batch, then write it")
        return examples_of(model, interface(model, signature, inputs), inputs)
    except UsageError:
        if form in ENGINES or given is not None:
            raise
        return None


def _writer(form: str) -> Writer:
    if form not in WRITERS:
        raise UsageError("no such form can be written", found=form, expected=f"one of {', '.join(WRITERS)}")
    missing = _missing(form, WRITERS[form])
    if missing is not None:
        raise missing
    return WRITERS[form]


def _missing(form: str, writer: Writer) -> MissingExtra | None:
    ways = [writer.needs + needs for needs in _routes(form, writer).values()]
    absent = [[name for name in needs if find_spec(name) is None] for needs in ways]
    fewest = min(absent, key=len, default=[])
    if not fewest:
        return None
    extras = ",".join(sorted({_EXTRAS[name] for name in fewest}))
    return MissingExtra(f"writing {form} needs {' and '.join(fewest)}", hint=f"pip install 'modelkeep[{extras}]'")


def _routes(form: str, writer: Writer) -> dict[str, tuple[str, ...]]:
    """The backends under which a form is written, the best first, with the modules that each needs."""
    here: str = keras.backend.backend()
    if form not in ENGINES:
        return {here: ()}
    own: dict[str, tuple[str, ...]] = import_module(f"modelkeep.live.writing.{writer.module}").ROUTES
    return {backend: own[backend] for backend in dict.fromkeys((_FIRST, here, _LAST)) if backend in own}


def _open_routes(form: str, writer: Writer) -> list[str]:
    return [way for way, needs in _routes(form, writer).items() if not any(find_spec(name) is None for name in needs)]


def _tried(failures: Iterable[ModelkeepError]) -> Iterator[Finding]:
    for failure in failures:
        yield Finding("export-route", Severity.NOTE, f"another way failed: {failure.what}")


# --- written and proved

_ONLY_ANSWERS = Finding("not-held", Severity.NOTE, "layers, optimizer and training state: it only answers")


@dataclass(frozen=True)
class _Job:
    model: keras.Model
    form: str
    writer: Writer
    examples: Examples | None
    options: Mapping[str, Any]

    @property
    def runs(self) -> bool:
        """Whether an engine runs the form."""
        return self.form in ENGINES

    @property
    def signature(self) -> Signature | None:
        """What the form is to take and give."""
        return None if self.examples is None else self.examples.signature

    def written(self, path: Path, route: str) -> Report:
        """Write at a private path, open it again and compare. Raises NotFaithful."""
        _clear(path)
        findings = self._write(path, route)
        with self._reopened(path) as predict:
            findings = (*self._compared(predict), *findings)
        report = Report(f"{self.form} replayed", (*findings, *self._beside(path)), NotFaithful)
        report.raise_for_failures()
        return report

    def _write(self, path: Path, route: str) -> tuple[Finding, ...]:
        arguments = {"form": self.form, "path": str(path), "signature": to_builtins(self.signature), **self.options}
        if route == keras.backend.backend():
            return write_here(self.model, **arguments)
        found = rebuilding.under(route, self.model, f"{__name__}:write_here", arguments)
        return (*found, Finding("export-route", Severity.NOTE, f"written from the model rebuilt under {route}"))

    def _compared(self, predict: Predict) -> list[Finding]:
        if self.examples is None:
            return [Finding("export-replay", Severity.NOTE, "no examples: weights alone were compared")]
        changing = changes(self.model, self.examples) if self.runs else []
        return [*compare(predict, self.model, self.examples, same_backend=not self.runs), *changing]

    def _beside(self, path: Path) -> tuple[Finding, ...]:
        """What a form that answers cannot hold. A SavedModel takes it along, with the optimizer that is here."""
        if self.form != "saved_model":
            return (_ONLY_ANSWERS,) if self.runs else ()
        assert self.examples is not None
        found = saved_model.ride_along(self.model, path)
        own = path / OWN
        if not own.exists():
            return found
        restored = compare(keras_archive.reopen(own, model=self.model), self.model, self.examples, same_backend=True)
        report = Report("the .keras file inside", tuple(restored), NotFaithful)
        if report.ok:
            return found
        own.unlink()
        return (*found, saved_model.restores_nothing(report.failures[0].message))

    @contextmanager
    def _reopened(self, path: Path) -> Iterator[Predict]:
        if not self.runs:
            module = import_module(f"modelkeep.live.writing.{self.writer.module}")
            yield module.reopen(path, form=self.form, model=self.model)
            return
        engine = open_engine(self.form, path)
        try:
            assert self.signature is not None
            _check_names(self.signature, engine.signature)
            yield partial(_answered, engine, self.signature)
        finally:
            engine.close()


def _check_names(asked: Signature, found: Signature) -> None:
    for were, are in ((asked.inputs, found.inputs), (asked.outputs, found.outputs)):
        expected, names = sorted(spec.name for spec in were), sorted(spec.name for spec in are)
        if names != expected:
            raise NotFaithful("inputs or outputs lost their names", found=names, expected=expected)


def _answered(engine: Engine, signature: Signature, inputs: Any) -> Any:
    """What an engine answers, nested as the model would; inputs are cast to the dtypes it takes, as Keras does."""
    given = by_name(signature.input_structure, inputs)
    cast = {
        spec.name: given[spec.name] if spec.dtype == "string" else given[spec.name].astype(numpy_dtype(spec.dtype))
        for spec in signature.inputs
    }
    return nested(signature.output_structure, engine.run(cast))


def write_here(model: keras.Model, *, form: str, path: str, signature: Any, **options: Any) -> tuple[Finding, ...]:
    """Write a form at a private path under this backend; ``signature`` as JSON values.

    Raises StorageError where the disk is full, UsageError for whatever else a converter raises.
    """
    module = import_module(f"modelkeep.live.writing.{WRITERS[form].module}")
    try:
        found: tuple[Finding, ...] = module.write(
            model, Path(path), form=form, signature=convert(signature, Signature | None), **options
        )
    except ModelkeepError:
        raise
    except Exception as error:
        if _NO_SPACE in str(error):  # TensorFlow and HDF5 have errors of their own for it
            raise StorageError(
                f"cannot write {form}: {_NO_SPACE}", hint="free some space, then run it again"
            ) from error
        raise UsageError(f"this model cannot be written as {form} ({type(error).__name__}: {_short(error)})") from error
    return found


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else f"{text[:250]} … {text[-250:]}"


@contextmanager
def _published(to: Path, writer: Writer, *, overwrite: bool) -> Iterator[Path]:
    """A private path, of a file or of an empty folder, that becomes ``to`` when the block ends without an error."""
    if not writer.ending:
        with new_folder(to, overwrite=overwrite, replaceable=lambda folder: (folder / writer.has).is_file()) as folder:
            yield folder
        return
    with new_file(to, overwrite=overwrite) as fd, tempfile.TemporaryDirectory(prefix=".", dir=to.parent) as private:
        path = Path(private, f"model{writer.ending}")
        yield path
        with path.open("rb") as written, open(fd, "wb", closefd=False) as published:
            shutil.copyfileobj(written, published)


def _clear(path: Path) -> None:
    """Take away what an earlier route left."""
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    else:
        path.unlink(missing_ok=True)
