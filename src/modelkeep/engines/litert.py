"""LiteRT (TensorFlow Lite) models run by the interpreter of ``ai-edge-litert``, or by TensorFlow's own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep.engines.engine import cannot_load, check, runtime, text
from modelkeep.errors import MissingExtra
from modelkeep.manifest import Signature, TensorSpec

if TYPE_CHECKING:
    from modelkeep.engines.engine import Array


class LitertEngine:
    """An interpreter; one batch at a time, because its tensors are its own memory."""

    def __init__(self, path: Path) -> None:
        try:
            self._interpreter = _interpreter(path)
            self._interpreter.allocate_tensors()
        except MissingExtra:
            raise
        except Exception as error:
            raise cannot_load(path, "LiteRT", error) from error
        self._lock = threading.Lock()
        self._inputs = _by_name(self._interpreter, "input")
        self._outputs = _by_name(self._interpreter, "output")
        self.signature = Signature(
            inputs=tuple(_spec(name, details) for name, details in self._inputs.items()),
            outputs=tuple(_spec(name, details) for name, details in self._outputs.items()),
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one batch. Raises UsageError for inputs that do not fit the signature."""
        check(self.signature, inputs)
        with self._lock:
            for name, array in inputs.items():
                self._interpreter.resize_tensor_input(self._inputs[name]["index"], array.shape)
            self._interpreter.allocate_tensors()
            for name, array in inputs.items():
                self._interpreter.set_tensor(self._inputs[name]["index"], _encoded(array))
            self._interpreter.invoke()
            return {
                name: text(self._interpreter.get_tensor(details["index"])) for name, details in self._outputs.items()
            }

    def close(self) -> None:
        """Let the interpreter go."""
        del self._interpreter


def load(path: Path) -> LitertEngine:
    """Load a ``.tflite`` file. Raises MissingExtra, CannotLoad."""
    return LitertEngine(path)


def _interpreter(path: Path) -> Any:
    try:
        interpreter = runtime("ai_edge_litert.interpreter", "litert").Interpreter
    except MissingExtra as missing:
        try:
            interpreter = runtime("tensorflow.lite", "litert").Interpreter
        except MissingExtra:
            raise missing from None
    return interpreter(model_path=str(path))


def _by_name(interpreter: Any, which: str) -> dict[str, Any]:
    """What the interpreter tells of its inputs or outputs, by the names of the first signature if there is one."""
    details = getattr(interpreter, f"get_{which}_details")()
    signatures = interpreter.get_signature_list()
    if not signatures:
        return {one["name"]: one for one in details}
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    return dict(getattr(runner, f"get_{which}_details")())


def _spec(name: str, details: Mapping[str, Any]) -> TensorSpec:
    import numpy as np

    dtype = np.dtype(details["dtype"])
    # -1 stands for any length.
    shape = tuple(None if length < 0 else int(length) for length in details["shape_signature"])
    return TensorSpec(name=name, shape=shape, dtype="string" if dtype.kind in "SUO" else dtype.name)


def _encoded(array: Array) -> Array:
    import numpy as np

    return np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
