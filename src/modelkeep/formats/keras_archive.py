"""The ``.keras`` file of Keras 3, and the folder that it becomes when it is unpacked.

Members (keras.src.saving.saving_lib): ``config.json``, the model with its compile arguments under
``compile_config``; ``metadata.json``, the version that wrote it and when; ``model.weights.h5``, or shards of it that
``model.weights.json`` maps, or ``model.weights.npz``; and what layers keep beside weights in ``assets/``.
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from modelkeep.errors import IntegrityError, ModelkeepError, UnsafeContent
from modelkeep.formats import h5, npz, strict_json
from modelkeep.formats.contents import Contents, Member, Problem
from modelkeep.formats.folders import Files, open_folder
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import Limits
from modelkeep.formats.zip_reading import open_zip

CONFIG, METADATA, ASSETS = "config.json", "metadata.json", "assets/"
WEIGHTS = ("model.weights.h5", "model.weights.json", "model.weights.npz")
_WRITER = {"keras_version": "keras", "date_saved": "date"}
_SHARD = ("model_", ".weights.h5")
_RUNNABLE = (".bat", ".cmd", ".dll", ".dylib", ".exe", ".jar", ".ps1", ".py", ".pyc", ".pyd", ".pyo", ".sh", ".so")
_PICKLES = (".joblib", ".pickle", ".pkl", ".pt", ".pth")
_ARCHIVES = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf",
    b"BZh",
    b"\xfd7zXZ",
    b"Rar!\x1a",
)
_PROGRAMS = (b"\x7fELF", b"MZ\x90\x00", b"#!/", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_LEFT_BY_SYSTEMS = ("__MACOSX/", "._", ".DS_Store", "Thumbs.db", "desktop.ini")


def recognise(place: Place) -> bool:
    """Whether a zip or folder holds a model as Keras 3 saves it; of a zip cut short, its first member tells."""
    if not place.is_folder and place.members in ({METADATA}, {CONFIG}):
        return True
    names = place.names if place.is_folder else place.members
    return CONFIG in names and not names.isdisjoint({METADATA, *WEIGHTS})


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a file or folder; see :class:`modelkeep.formats.forms.Form`."""
    opened: AbstractContextManager[Files] = (open_folder if place.is_folder else open_zip)(place.path, limits)
    with opened as files:
        config, problems = _json(files, CONFIG, "config", limits)
        metadata, more = _json(files, METADATA, "metadata", limits) if METADATA in files.sizes else ({}, ())
        problems = (*_odd_members(files), *problems, *more)
        writer = metadata if isinstance(metadata, dict) else {}
        if thorough:
            _read_all(files)
        with _weights(files, limits, thorough) as weights:
            yield Contents(
                form="keras",
                path=place.path,
                size=place.size or sum(files.sizes.values()),
                writer={word: writer[key] for key, word in _WRITER.items() if isinstance(writer.get(key), str)},
                config=config,
                compile=config.get("compile_config"),
                tensors=weights.tensors,
                optimizer=weights.optimizer,
                members=tuple(
                    Member(name, size, partial(_asset, files, name, limits))
                    for name, size in files.sizes.items()
                    if name not in (CONFIG, METADATA, *WEIGHTS) and not _is_shard(name)
                ),
                pickles=weights.pickles if isinstance(weights, npz.Arrays) else (),
                details=weights.details,
                problems=(*files.problems, *problems, *weights.problems),
            )


def _json(files: Files, name: str, limit: str, limits: Limits) -> tuple[Any, tuple[Problem, ...]]:
    if name not in files.sizes:
        raise _missing(files, [name], f"{name} is missing")
    limits.check(limit, files.sizes[name], f"{name} is too large")
    value, problems = strict_json.read(files.read(name), what=name, limits=limits, most=limit)
    if not isinstance(value, dict):
        raise IntegrityError(f"{name} is no JSON object", found=repr(value)[:80])
    return value, problems


def _weights(files: Files, limits: Limits, thorough: bool) -> AbstractContextManager[h5.Weights | npz.Arrays]:
    name = next((name for name in WEIGHTS if name in files.sizes), None)
    if name is None:
        raise _missing(files, WEIGHTS, "it holds no weights")
    if name.endswith(".json"):
        limits.check("config", files.sizes[name], f"{name} is too large")
        return h5.open_shards(files.read(name), partial(_shard, files), limits, name, thorough=thorough)
    if name.endswith(".npz"):
        return _arrays(files, name, limits, thorough)
    return h5.open_weights(files.seekable(name), limits, name, thorough=thorough)


def _missing(files: Files, names: Sequence[str], what: str) -> ModelkeepError:
    """Why none of these files can be read: there is none, or what has its name is no file."""
    hint = "if links stand for files, copy what they lead to: cp -rL"
    for problem in files.problems:
        if problem.place in names:
            return UnsafeContent(problem.message, found=problem.rule, hint=hint)
    return IntegrityError(what, expected=" or ".join(names))


@contextmanager
def _arrays(files: Files, name: str, limits: Limits, thorough: bool) -> Iterator[npz.Arrays]:
    with tempfile.TemporaryFile() as copy:
        for chunk in files.chunks(name):
            copy.write(chunk)
        copy.flush()
        with npz.open_arrays(copy.fileno(), limits, name, thorough=thorough) as arrays:
            yield arrays


def _shard(files: Files, name: str) -> Any:
    if name not in files.sizes:
        raise IntegrityError(f"the weights in {name} are missing", expected="every shard beside model.weights.json")
    return files.seekable(name)


def _asset(files: Files, name: str, limits: Limits) -> bytes:
    limits.check("asset", files.sizes[name], f"{name} is too large")
    return files.read(name)


def _read_all(files: Files) -> None:
    """Every byte of every file: a zip has a checksum of each."""
    for name in files.sizes:
        for _ in files.chunks(name):
            pass


# --- what else is in there


def _is_shard(name: str) -> bool:
    return name.startswith(_SHARD[0]) and name.endswith(_SHARD[1])


def _odd_members(files: Files) -> list[Problem]:
    weights = [name for name in WEIGHTS if name in files.sizes]
    problems = []
    if len(weights) > 1:
        problems.append(
            Problem("keras-archive-two-weights", f"it holds weights twice: {', '.join(weights)}", weights[1])
        )
    return problems + [Problem(*odd, name) for name in files.sizes if (odd := _odd(files, name))]


def _odd(files: Files, name: str) -> tuple[str, str] | None:
    """The rule that a member breaks, and how."""
    known = name in (CONFIG, METADATA, *WEIGHTS) or _is_shard(name)
    head = files.head(name, 8)
    if not known and (name.lower().endswith(_RUNNABLE + _PICKLES) or head.startswith(_PROGRAMS)):
        return "keras-archive-program", f"{name!r} is something to run, which no model needs"
    if not known and head.startswith(_ARCHIVES):
        return "keras-archive-nested", f"{name!r} is an archive in an archive"
    if not known and not name.startswith(ASSETS):
        left = name.startswith(_LEFT_BY_SYSTEMS[0]) or posixpath.basename(name).startswith(_LEFT_BY_SYSTEMS[1:])
        rule = "keras-archive-left-over" if left else "keras-archive-member"
        return rule, f"{name!r} is nothing that Keras writes"
    if files.mode(name) & 0o111:
        return "keras-archive-executable", f"{name!r} is marked as a program"
    return None


FORM = Form(
    names=("keras",),
    title="Keras 3 file (.keras)",
    endings=(".keras",),
    holds=frozenset({"architecture", "weights", "optimizer"}),
    recognise=recognise,
    read=read,
)
