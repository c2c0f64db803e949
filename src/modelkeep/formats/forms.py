"""Every foreign form, found by what is in a file and never by its name."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Literal

from modelkeep.errors import NotFound, StorageError, UsageError
from modelkeep.formats.contents import Contents
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.formats.zip_reading import names_in

Holds = Literal["architecture", "weights", "optimizer", "servable"]
_HEAD = 4096  # bytes; every form shows itself in fewer

# The special before the general: a .keras file and an .npz are zip files, too.
MODULES = (
    "bundle_form",
    "keras_archive",
    "npz",
    "torch_archive",
    "h5",
    "saved_model",
    "checkpoint",
    "safetensors",
    "npy",
    "onnx",
    "litert",
    "openvino",
    "architecture",
    "pickles",
    "archives",
)


@dataclass(frozen=True)
class Place:
    """A path that is looked at: what kind of thing is there, and how it begins."""

    path: Path
    is_folder: bool
    size: int  # bytes of a file; 0 for a folder
    head: bytes  # the first 4 KiB of a file; empty for a folder

    @cached_property
    def names(self) -> frozenset[str]:
        """What a folder holds, one level deep."""
        return frozenset(entry.name for entry in self.path.iterdir()) if self.is_folder else frozenset()

    @cached_property
    def members(self) -> frozenset[str]:
        """What a zip file holds, by its directory; of one that is cut short, the first; nothing of other files.

        A zip is one by its end: what stands before it may begin as something else.
        """
        if self.is_folder:
            return frozenset()
        return names_in(self.path) or frozenset(_first_member(self.head))


@dataclass(frozen=True)
class Form:
    """One foreign form: how it is recognised, what it can hold each way, and what reads it.

    ``names`` are all that ``Contents.form`` may be for it; the reader tells which. ``read(place, limits,
    thorough)`` opens the file; ``thorough`` also reads every byte and checks what checksums there are. It
    raises UnsafeContent, LimitExceeded or IntegrityError where it cannot go on, and puts all else that is
    odd among the ``problems``.
    """

    names: tuple[str, ...]
    title: str  # for people: "Keras 3 file (.keras)"
    endings: tuple[str, ...]  # that its files usually have, with the dot; empty for a folder
    holds: frozenset[Holds]
    recognise: Callable[[Place], bool]
    read: Callable[[Place, Limits, bool], AbstractContextManager[Contents]]


def _first_member(head: bytes) -> Iterator[str]:
    """The name in the local header that a zip begins with (APPNOTE 4.3.7)."""
    if head.startswith(b"PK\x03\x04") and len(head) >= 30:
        length = int.from_bytes(head[26:28], "little")
        yield head[30 : 30 + length].decode(errors="replace")


def look(path: Path) -> Place:
    """What is at a path. Raises NotFound, StorageError, and UsageError for what is no file or folder."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return Place(path, True, 0, b"")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is neither a file nor a folder")
        with path.open("rb") as file:
            return Place(path, False, status.st_size, file.read(_HEAD))
    except FileNotFoundError:
        # A checkpoint of TensorFlow is named by what its files begin with.
        if path.name and (index := path.with_name(f"{path.name}.index")).is_file():
            return look(index)
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def all_forms() -> list[Form]:
    """Every form, in the order in which they are tried."""
    return [import_module(f"modelkeep.formats.{name}").FORM for name in MODULES]


def recognise(place: Place) -> Form:
    """The form of what is at a place. Raises UsageError, with what it begins with, where nothing fits."""
    for form in all_forms():
        if form.recognise(place):
            return form
    raise UsageError(
        f"{place.path.name} is no kind of model file that is known",
        found=_appearance(place),
        expected="one of " + ", ".join(form.title for form in all_forms()),
    )


def _appearance(place: Place) -> str:
    if place.is_folder:
        return "a folder of other files"
    return f"a file that begins with {place.head[:8]!r}" if place.head else "an empty file"


def open_contents(path: Path, limits: Limits = DEFAULT, *, thorough: bool = False) -> AbstractContextManager[Contents]:
    """Read what a file or folder holds, whatever its form; its tensors can be read while it is open.

    Raises NotFound, UsageError, UnsafeContent, LimitExceeded, IntegrityError, StorageError.
    """
    place = look(path)
    limits.check("file", place.size, f"{path.name} is too large")
    return recognise(place).read(place, limits, thorough)


TITLES = {
    "bundle": "a bundle of modelkeep",
    "keras": "a .keras file of Keras 3",
    "h5": "an HDF5 file of a whole Keras model",
    "weights_h5": "a .weights.h5 file of Keras 3",
    "legacy_weights_h5": "an HDF5 file of weights, of Keras 1 or 2",
    "safetensors": "a safetensors file",
    "npz": "an .npz file of NumPy",
    "npy": "an .npy file of NumPy",
    "json": "an architecture as JSON",
    "yaml": "an architecture as YAML",
    "saved_model": "a SavedModel of TensorFlow",
    "tf_checkpoint": "a checkpoint of TensorFlow",
    "onnx": "an ONNX model",
    "litert": "a LiteRT model (.tflite)",
    "openvino": "an OpenVINO model",
    "torch": "a file of PyTorch",
    "pickle": "a pickle of Python",
}


def title_of(name: str) -> str:
    """What people call a form: ``Contents.form`` in words."""
    return TITLES.get(name, name)
