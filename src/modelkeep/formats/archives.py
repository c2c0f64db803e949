"""Folders, ``.zip``, ``.tar``, ``.tar.gz`` and ``.tar.zst`` that hold one model of another form, read and written."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from modelkeep.errors import LimitExceeded, UnsafeContent, UsageError
from modelkeep.formats import forms
from modelkeep.formats.contents import Contents, Member, Problem
from modelkeep.formats.durable import new_file
from modelkeep.formats.folders import open_folder
from modelkeep.formats.forms import Form, Place, look
from modelkeep.formats.limits import DEFAULT, MIB, Limits
from modelkeep.formats.streams import Chunks
from modelkeep.formats.unpacking import TAR_GZ, TAR_ZST, ZIP, kind_of, unpack, zstandard_library

FOLDER = "folder"
_MANY = 1_000  # entries of a folder, beyond which nobody looks for one model in it
# Left by macOS and Windows wherever they pack or show a folder.
_LEFT_OVER = re.compile(r"__MACOSX|\._.*|\.DS_Store|Thumbs\.db|desktop\.ini")
_SHARD = re.compile(r".+_\d{5}\.weights\.h5")


def recognise(place: Place) -> bool:
    """Whether it is an archive, or a folder that holds a model of any other form."""
    if place.is_folder:
        return bool(_models_in(place.path))
    return _kind(place) is not None


def _kind(place: Place) -> str | None:
    if place.is_folder:
        return FOLDER
    return ZIP if place.members else kind_of(place.head)


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open the one model in it; see :class:`modelkeep.formats.forms.Form`.

    ``details["archive"]`` has the ``form`` of what is outside and the ``member`` that is the model, ``members``
    the files beside it. Raises UsageError where there is no model or more than one.
    """
    kind = _kind(place) or FOLDER
    if kind == FOLDER:
        with _model_of(place.path, place, kind, (), limits, thorough) as contents:
            yield contents
        return
    if limits.nested < 1:
        raise LimitExceeded(f"{place.path.name} lies in too many archives", hint="unpack the outer ones first")
    with tempfile.TemporaryDirectory(prefix="modelkeep-", ignore_cleanup_errors=True) as folder:
        problems = unpack(place.path, kind, Path(folder), limits)
        inner = replace(limits, nested=limits.nested - 1)
        with ExitStack() as stack:
            with _told_first(problems, place):
                contents = stack.enter_context(_model_of(Path(folder), place, kind, problems, inner, thorough))
            yield contents


@contextmanager
def _told_first(problems: tuple[Problem, ...], place: Place) -> Iterator[None]:
    """What is odd about an archive comes before that it holds no model."""
    try:
        yield
    except UsageError as error:
        if not problems:
            raise
        message = f"{place.path.name} holds no model: {problems[0].message}"
        raise UnsafeContent(message, found=problems[0].rule) from error


# --- the model in a folder


@contextmanager
def _model_of(
    folder: Path, outer: Place, kind: str, problems: tuple[Problem, ...], limits: Limits, thorough: bool
) -> Iterator[Contents]:
    model, form = _one_model(folder, outer.path.name)
    with open_folder(folder, limits) as files, form.read(model, limits, thorough) as contents:
        limits.check("file", model.size, f"{model.path.name} is too large")
        where = "" if model.path == folder else model.path.relative_to(folder).as_posix()
        beside = [name for name in files.sizes if name != where and not name.startswith(f"{where}/") and where]
        archive = {"form": kind, "member": where}
        if "archive" in contents.details:
            archive["archive"] = contents.details["archive"]
        yield replace(
            contents,
            size=outer.size or sum(files.sizes.values()),
            members=(
                *contents.members,
                *(Member(name, files.sizes[name], partial(files.read, name)) for name in beside),
            ),
            pickles=(*contents.pickles, *_pickles(folder, beside)),
            details={**contents.details, "archive": archive},
            problems=(*problems, *files.problems, *contents.problems),
        )


def _one_model(folder: Path, name: str) -> tuple[Place, Form]:
    found = _models_in(folder)
    if len(found) == 1:
        return found[0]
    names = ", ".join(place.path.name for place, _ in found[:10])
    raise UsageError(
        f"{name} holds {'no model file that is known' if not found else 'more than one model'}",
        found=names or None,
        hint="name the one that is meant" if found else None,
    )


def _models_in(folder: Path) -> list[tuple[Place, Form]]:
    """The folder itself where it is a model, else those that it holds, one level deep.

    A folder that holds nothing but another one stands for that. Files that hold no model, such as a pickled
    tokenizer, count only where there is nothing else.
    """
    while True:
        if form := _form_of(look(folder)):
            return [(look(folder), form)]
        entries = _entries(folder)
        if len(entries) != 1 or not entries[0].is_dir():
            break
        folder = entries[0]
    found = [(place, form) for place in map(look, entries) if (form := _form_of(place))]
    if any(place.path.name.endswith(".weights.json") for place, _ in found):
        found = [(place, form) for place, form in found if not _SHARD.fullmatch(place.path.name)]
    return [(place, form) for place, form in found if form.holds] or found


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder but for links and left-overs; nothing where it is too much to be one model's."""
    entries = [entry for entry in os.scandir(folder) if not _LEFT_OVER.fullmatch(entry.name)]
    if len(entries) > _MANY:
        return []
    plain = [entry for entry in entries if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)]
    return sorted(Path(entry.path) for entry in plain)


def _form_of(place: Place) -> Form | None:
    """The form of what is at a place; of a folder only its own, not that of what it holds."""
    known = (form for form in forms.all_forms() if not (place.is_folder and form is FORM))
    return next((form for form in known if form.recognise(place)), None)


def _pickles(folder: Path, names: list[str]) -> tuple[Member, ...]:
    """Those among the files beside a model that Python would unpickle."""
    pickles = []
    for name in names:
        place = look(folder / name)
        form = _form_of(place)
        if form is not None and "pickle" in form.names:
            pickles.append(Member(name, place.size, place.path.read_bytes))
    return tuple(pickles)


# --- written


def pack(source: Path, path: Path, form: str, *, overwrite: bool = False) -> None:
    """Pack a file, or a folder under its own name, as ``zip`` (stored), ``tar.gz`` or ``tar.zst``.

    The same files give the same bytes: sorted, without times, owners and modes (gzip's and zstd's follow from the
    release of their libraries, too). The archive is there whole and durably or not at all. Raises UsageError
    for another form or a folder with links in it, AlreadyExists unless ``overwrite``, MissingExtra, StorageError.
    """
    if form not in (ZIP, TAR_GZ, TAR_ZST):
        raise UsageError("no archive is written in this form", found=form, expected=f"{ZIP}, {TAR_GZ} or {TAR_ZST}")
    with new_file(path, overwrite=overwrite) as file, open(file, "wb", closefd=False) as stream:
        if form == ZIP:
            _zip(source, stream)
        elif form == TAR_GZ:
            with gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed:
                _tar(source, packed)
        else:
            compressor = zstandard_library().ZstdCompressor(write_checksum=True)
            with compressor.stream_writer(stream, closefd=False) as packed:
                _tar(source, packed)


def _zip(source: Path, stream: IO[bytes]) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        for name, size, data in _files(source):
            entry = zipfile.ZipInfo(name)  # of 1980, the earliest there is
            entry.create_system, entry.external_attr, entry.file_size = 3, 0o100644 << 16, size
            with archive.open(entry, "w") as member:
                shutil.copyfileobj(data, member, MIB)


def _tar(source: Path, stream: IO[bytes] | gzip.GzipFile) -> None:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, size, data in _files(source):
            entry = tarfile.TarInfo(name)
            entry.size = size
            archive.addfile(entry, data)


def _files(source: Path) -> Iterator[tuple[str, int, Chunks]]:
    """The name in the archive, the size and the bytes of each file."""
    folder, prefix = (source, f"{source.name}/") if source.is_dir() else (source.parent, "")
    with open_folder(folder, DEFAULT) as files:
        if prefix and files.problems:
            raise UsageError(f"{source.name} cannot be packed: {files.problems[0].message}")
        for name in files.sizes if prefix else [source.name]:
            with closing(Chunks(files.chunks(name))) as data:
                yield prefix + name, files.sizes[name], data


FORM = Form(
    names=tuple(forms.TITLES),
    title="folder or archive of one of these (.zip, .tar, .tar.gz, .tar.zst)",
    endings=(".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst"),
    holds=frozenset({"architecture", "weights", "optimizer", "servable"}),
    recognise=recognise,
    read=read,
)
