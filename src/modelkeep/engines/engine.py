"""What every engine can do, and which one runs a form."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelkeep.errors import CannotLoad, MissingExtra, UsageError
from modelkeep.manifest import Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

# Form → the module of this package that runs it.
MODULES = {"onnx": "onnx", "saved_model": "saved_model", "litert": "litert", "openvino": "openvino"}


class Engine(Protocol):
    """A loaded form that answers. Safe to run from several threads at once."""

    signature: Signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one batch: arrays by input name to arrays by output name. Text is an array of ``str``.

        Raises UsageError for inputs that do not fit the signature.
        """

    def close(self) -> None:
        """Let the memory go."""


def open_engine(form: str, path: Path) -> Engine:
    """Load a file or folder of a servable form.

    Raises UsageError for another form, MissingExtra where its runtime is not installed, CannotLoad where the
    runtime refuses the file.
    """
    if form not in MODULES:
        raise UsageError("no engine runs this form", found=form, expected=f"one of {', '.join(MODULES)}")
    engine: Engine = import_module(f"modelkeep.engines.{MODULES[form]}").load(path)
    return engine


# --- what the engines share


def runtime(module: str, extra: str) -> Any:
    """The module of a runtime. Raises MissingExtra, with the extra that brings it, where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"running this form needs {module.partition('.')[0]}", hint=f"pip install 'modelkeep[{extra}]'"
        ) from error


def cannot_load(path: Path, runtime: str, error: Exception) -> CannotLoad:
    """The error for a file that its runtime refuses."""
    return CannotLoad(f"{runtime} cannot load {path.name} ({type(error).__name__}: {error})")


def check(signature: Signature, inputs: Mapping[str, Array]) -> None:
    """Raise UsageError where arrays do not fit a signature: a name, a dtype, a rank or a length."""
    names = [spec.name for spec in signature.inputs]
    if set(names) != set(inputs):
        raise UsageError("the inputs have other names", found=", ".join(inputs) or "none", expected=", ".join(names))
    for spec in signature.inputs:
        array = inputs[spec.name]
        dtype = "string" if array.dtype.kind == "U" else array.dtype.name
        if dtype != spec.dtype:
            raise UsageError(f"input {spec.name} has another dtype", found=dtype, expected=spec.dtype)
        if not _fits(array.shape, spec):
            raise UsageError(f"input {spec.name} has another shape", found=array.shape, expected=spec.shape)


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    if spec.shape is None:
        return True
    return len(shape) == len(spec.shape) and all(
        length in (None, found) for length, found in zip(spec.shape, shape, strict=True)
    )


def text(array: Array) -> Array:
    """Text as runtimes give it, bytes or objects, as an array of ``str``; other arrays as they are."""
    if array.dtype.kind not in "SO":
        return array
    import numpy as np

    words = [one if isinstance(one, str) else bytes(one).decode(errors="backslashreplace") for one in array.flat]
    return np.array(words, dtype=str).reshape(array.shape)
