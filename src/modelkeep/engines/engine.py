"""What every engine can do, and which one runs a form."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelkeep.errors import UsageError
from modelkeep.manifest import Signature

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
