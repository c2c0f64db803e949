"""The front door for single files: opened, written and converted, without a store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep.errors import MissingExtra, ModelkeepError, UsageError
from modelkeep.formats.limits import DEFAULT, Limits

if TYPE_CHECKING:
    import keras

    from modelkeep.live.opening import Opened
    from modelkeep.report import Report

AnyPath = str | os.PathLike[str]

# How the name of a file to be written ends → its form; the longer endings first.
ENDINGS = {
    ".weights.h5": "weights_h5",
    ".keras": "keras",
    ".h5": "h5",
    ".hdf5": "h5",
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".json": "json",
    ".onnx": "onnx",
    ".tflite": "litert",
    ".zip": "zip",
    ".tar.gz": "tar.gz",
    ".tar.zst": "tar.zst",
}


@contextmanager
def keras_at_hand() -> Iterator[None]:
    """Turn a missing Keras or backend into what to install."""
    try:
        yield
    except ImportError as error:
        if isinstance(error, ModelkeepError) or (error.name or "").partition(".")[0] == "modelkeep":
            raise
        raise MissingExtra(
            f"a model needs Keras and a backend ({error})",
            hint="pip install 'modelkeep[tensorflow]', or [jax] or [torch]; KERAS_BACKEND=jax, or torch, chooses it",
        ) from error


def load(
    path: AnyPath,
    *,
    into: keras.Model | None = None,
    architecture: AnyPath | keras.Model | None = None,
    custom_objects: Any = None,
    trust: Sequence[str] = (),
    compile: bool = True,
    skip: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    allow: Sequence[str] = (),
    limits: Limits = DEFAULT,
) -> Opened:
    """Open any model file or folder: ``mk.load("old.h5").model``.

    The form is found by content. The file is scanned first and refused where it could do harm; ``allow`` names
    rules that it may break. Files of weights alone need a model: ``into`` (it takes them) or ``architecture`` (a
    file or model whose network is made anew). Every tensor finds its variable or the load is refused with an
    account of all of them; ``skip`` names those that may stay out, and ``names`` tells what the model calls the
    tensors of a TensorFlow checkpoint. A form that holds no Keras model (ONNX,
    LiteRT, a SavedModel that only serves) answers through ``.predict``.

    Raises NotFound, UsageError, UnsafeContent, LimitExceeded, IntegrityError, MissingCustomObjects, NotFaithful,
    CannotLoad, MissingExtra.
    """
    with keras_at_hand():
        from modelkeep.live import opening

    return opening.open_file(
        path,
        into=into,
        architecture=architecture,
        custom_objects=custom_objects,
        trust=trust,
        compile=compile,
        skip=skip,
        names=names,
        allow=allow,
        limits=limits,
    )


def save(
    model: keras.Model,
    path: AnyPath,
    *,
    format: str | None = None,
    golden: Any = None,
    overwrite: bool = False,
    **options: Any,
) -> Report:
    """Write a model as one file or folder, opened again and replayed before it gets its name.

    ``format`` is the form (``keras``, ``h5``, ``weights_h5``, ``safetensors``, ``npz``, ``json``, ``saved_model``,
    ``onnx``, …); without it the ending of ``path`` tells. ``golden`` are example inputs; made up from the model's
    signature where there are none. The report tells the largest difference of each output, and what the form
    cannot hold. Raises NotFaithful where the written form does not answer as the model does (nothing is left
    then), AlreadyExists unless ``overwrite``, UsageError, MissingExtra, StorageError.
    """
    with keras_at_hand():
        from modelkeep.live import exporting

    path = Path(path)
    return exporting.export(model, format or form_of(path), path, examples=golden, overwrite=overwrite, **options)


def convert(
    source: AnyPath,
    target: AnyPath,
    *,
    format: str | None = None,
    golden: Any = None,
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
    **opening: Any,
) -> Report:
    """Open a model file of any form and write it in another; ``opening`` is what :func:`load` takes.

    The report has what became of every tensor on the way in, and the replay on the way out. Raises what
    :func:`load` and :func:`save` raise.
    """
    form = format or form_of(Path(target))
    opened = load(source, **opening)
    report = save(opened.model, target, format=form, golden=golden, overwrite=overwrite, **(options or {}))
    return report.extended(opened.findings)


def form_of(path: Path) -> str:
    """The form that a name asks for. Raises UsageError where it does not tell."""
    name = path.name.lower()
    for ending, form in ENDINGS.items():
        if name.endswith(ending):
            return form
    raise UsageError(
        f"{path.name} does not say which form to write",
        expected="a name that ends in " + ", ".join(ENDINGS),
        hint="or give the form: format='saved_model'",
    )
