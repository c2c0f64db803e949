"""Versions that answer and hold no Keras model: an ONNX, LiteRT or OpenVINO model, a SavedModel that only serves.

Their files are kept as parts, byte by byte, under ``servable/<form>/``. What they answer comes from an engine.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from modelkeep.engines.engine import Engine, open_engine
from modelkeep.errors import IntegrityError, ModelkeepError, UsageError
from modelkeep.formats.contents import Contents
from modelkeep.formats.durable import new_file, new_folder
from modelkeep.live import golden
from modelkeep.live.arrays import Array, to_arrays
from modelkeep.live.tensors import numpy_dtype
from modelkeep.manifest import Manifest, Signature, TensorSpec
from modelkeep.report import Finding, Severity
from modelkeep.storage.blobs import Blobs

PREFIX = "servable/"
_ENTRIES = {"onnx": "model.onnx", "litert": "model.tflite"}  # what the file of a form is called that is no folder
_ROWS, _LENGTH = 2, 16  # of made-up examples, where the signature leaves them open
_TEXTS = ("a quick brown fox", "jumps over it")


# --- into a version


@dataclass(frozen=True)
class Gathered:
    """A servable file as it is kept: its files by the names of their parts, and what it answered."""

    parts: dict[str, Path]
    signature: Signature
    recorded: golden.Recorded


def gather(contents: Contents, engine: Engine, examples: Any = None) -> Gathered:
    """All that a version needs of a file that ``engine`` runs.

    ``examples`` are golden inputs, arrays by input name, or one array where there is one input; made up from the
    signature where there are none. Raises UsageError for examples that do not fit the signature.
    """
    parts = {f"{PREFIX}{contents.form}/{name}": file for name, file in _files(contents)}
    return Gathered(parts, _by_names(engine.signature), _recorded(engine, examples))


def _by_names(signature: Signature) -> Signature:
    """The same, saying that inputs and outputs are mappings, as the examples are."""
    return msgspec.structs.replace(
        signature,
        input_structure={spec.name: spec.name for spec in signature.inputs},
        output_structure={spec.name: spec.name for spec in signature.outputs},
    )


def _files(contents: Contents) -> Iterator[tuple[str, Path]]:
    """The files that make up the form, by the path each has to the others; no links among them."""
    path = contents.path
    if not path.is_dir():
        yield _ENTRIES.get(contents.form, path.name), path
        for member in contents.members:  # weights beside, by their path from the model
            yield member.name, path.parent / member.name
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.is_symlink():
            yield file.relative_to(path).as_posix(), file


def _recorded(engine: Engine, examples: Any) -> golden.Recorded:
    if examples is not None:
        return golden.record(engine.run, by_name(engine.signature, examples))
    try:
        made = golden.record(engine.run, {spec.name: _made_up(spec) for spec in engine.signature.inputs})
    except ModelkeepError as error:
        message = f"it does not run on made-up inputs ({error.what}). Give some: golden={{'input': x_test[:10]}}"
        return golden.Recorded(None, findings=(Finding("golden-probe", Severity.NOTE, message),))
    assert made.golden is not None
    return replace(made, golden=msgspec.structs.replace(made.golden, probe=True), findings=())


def by_name(signature: Signature, examples: Any) -> dict[str, Array]:
    """Inputs by name, as an engine takes them. Raises UsageError where a lone array could be any of several."""
    arrays = to_arrays(examples)
    if not isinstance(arrays, Mapping):
        if len(signature.inputs) != 1 or isinstance(arrays, list):
            names = ", ".join(spec.name for spec in signature.inputs)
            raise UsageError("the examples do not say which input each is", expected=f"a mapping with {names}")
        arrays = {signature.inputs[0].name: arrays}
    return dict(arrays)


def _made_up(spec: TensorSpec) -> Array:
    """Two rows that look like the input: floats around 0, numbers 0 and 1, text."""
    lengths = (_ROWS, *(_LENGTH for _ in spec.shape or ()))
    shape = tuple(length if known is None else known for known, length in zip(spec.shape or (), lengths, strict=False))
    if spec.dtype == "string":
        return np.resize(np.array(_TEXTS), shape)
    random = np.random.default_rng(20)
    if "int" in spec.dtype or spec.dtype == "bool":
        return random.integers(0, 2, shape).astype(spec.dtype)
    return random.standard_normal(shape).astype(numpy_dtype(spec.dtype))


# --- out of a version


def open_parts(manifest: Manifest, blobs: Blobs) -> Engine:
    """The engine of a servable version, over private copies of its files that go when it does.

    Raises IntegrityError for damaged blobs, MissingExtra, CannotLoad.
    """
    folder = tempfile.TemporaryDirectory(prefix="modelkeep-")
    try:
        form, path = _unpack(manifest, blobs, Path(folder.name))
        engine = open_engine(form, path)
    except BaseException:
        folder.cleanup()
        raise
    # Runtimes map weights, and read them when they are needed first.
    weakref.finalize(engine, folder.cleanup)
    return engine


def _unpack(manifest: Manifest, blobs: Blobs, folder: Path) -> tuple[str, Path]:
    """Write the files below a folder; the form, and the path that its engine loads."""
    files = {part.name.removeprefix(PREFIX): part for part in manifest.parts if part.name.startswith(PREFIX)}
    for name, part in files.items():
        place = PurePosixPath(name)
        if len(place.parts) < 2 or place.is_absolute() or ".." in place.parts:
            raise IntegrityError("a part of a servable version has no honest name", found=repr(part.name))
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        blobs.check(part.digest)
        file.write_bytes(blobs.map_blob(part.digest))
    forms = {name.partition("/")[0] for name in files}
    if len(forms) != 1:
        raise IntegrityError("a servable version holds no form that answers", found=", ".join(sorted(forms)) or None)
    form = forms.pop()
    return form, folder / form / _ENTRIES.get(form, "")


def write(manifest: Manifest, blobs: Blobs, form: str, to: Path, *, overwrite: bool = False) -> None:
    """Write the files of a servable version as they were taken in.

    Raises UsageError for another form than its own, AlreadyExists unless ``overwrite``, IntegrityError, StorageError.
    """
    with tempfile.TemporaryDirectory(prefix="modelkeep-") as scratch:
        own, path = _unpack(manifest, blobs, Path(scratch))
        if own != form:
            raise UsageError(
                f"{manifest.model}:{manifest.version} holds no Keras model, so it can only be written as it is",
                found=form,
                expected=f"{own}, or bundle",
            )
        if path.parent == Path(scratch, own) and len(list(path.parent.iterdir())) == 1 and path.is_file():
            with new_file(to, overwrite=overwrite) as file, path.open("rb") as source:
                while piece := source.read(2**24):
                    os.write(file, piece)
            return
        with new_folder(to, overwrite=overwrite) as folder:
            shutil.copytree(Path(scratch, own), folder, dirs_exist_ok=True)
