"""ONNX models run by onnxruntime, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep.engines.engine import cannot_load, check, runtime, text
from modelkeep.errors import CannotLoad
from modelkeep.manifest import Signature, TensorSpec

if TYPE_CHECKING:
    from modelkeep.engines.engine import Array

# onnxruntime's words for the types that NumPy has, too: https://onnxruntime.ai/docs/api/python
_DTYPES = {
    **{f"tensor({word})": word for word in ("bool", "float16", "string")},
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
_ERRORS_ONLY = 3  # of onnxruntime's log


class OnnxEngine:
    """A session of onnxruntime."""

    def __init__(self, path: Path) -> None:
        onnxruntime = runtime("onnxruntime", "onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise cannot_load(path, "onnxruntime", error) from error
        self.signature = Signature(
            inputs=tuple(map(_spec, self._session.get_inputs())), outputs=tuple(map(_spec, self._session.get_outputs()))
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one batch. Raises UsageError for inputs that do not fit the signature."""
        check(self.signature, inputs)
        names = [spec.name for spec in self.signature.outputs]
        return dict(zip(names, map(text, self._session.run(names, dict(inputs))), strict=True))

    def close(self) -> None:
        """Let the session go."""
        del self._session


def load(path: Path) -> OnnxEngine:
    """Load an ``.onnx`` file. Raises MissingExtra, CannotLoad."""
    return OnnxEngine(path)


def _spec(value: Any) -> TensorSpec:
    if value.type not in _DTYPES:
        raise CannotLoad(f"{value.name} is of a type that arrays do not have", found=value.type)
    # Lengths without a number are names, or None. Of values of any rank onnxruntime tells no lengths either.
    shape = tuple(length if isinstance(length, int) else None for length in value.shape)
    return TensorSpec(name=value.name, shape=shape, dtype=_DTYPES[value.type])
