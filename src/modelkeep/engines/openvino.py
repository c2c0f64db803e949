"""OpenVINO IR run by OpenVINO, on the CPU, in the precision it was written in."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep.engines.engine import cannot_load, check, runtime
from modelkeep.errors import CannotLoad
from modelkeep.manifest import Signature, TensorSpec

if TYPE_CHECKING:
    from modelkeep.engines.engine import Array

# Left to itself OpenVINO computes in bfloat16 where the processor has it: answers would differ by machine.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
_DTYPES = {
    "boolean": "bool",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    **{f"{sign}{bits}": f"{word}{bits}" for sign, word in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)},
}


class OpenvinoEngine:
    """A compiled model, with a request of its own for each thread."""

    def __init__(self, path: Path) -> None:
        openvino = runtime("openvino", "openvino")
        try:
            self._compiled = openvino.Core().compile_model(str(model_file(path)), "CPU", _EXACT)
        except Exception as error:
            raise cannot_load(path, "OpenVINO", error) from error
        self._requests = threading.local()
        self.signature = Signature(
            inputs=tuple(map(_spec, self._compiled.inputs)), outputs=tuple(map(_spec, self._compiled.outputs))
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one batch. Raises UsageError for inputs that do not fit the signature."""
        check(self.signature, inputs)
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        found = self._requests.own.infer(dict(inputs))
        return {spec.name: found[index].copy() for index, spec in enumerate(self.signature.outputs)}

    def close(self) -> None:
        """Let the compiled model and its requests go."""
        del self._compiled, self._requests


def load(path: Path) -> OpenvinoEngine:
    """Load an ``.xml`` file whose ``.bin`` lies beside it, or the folder of both. Raises MissingExtra, CannotLoad."""
    return OpenvinoEngine(path)


def model_file(path: Path) -> Path:
    """The ``.xml`` file at a path or in the folder there. Raises CannotLoad where there is not just one."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.xml"))
    if len(found) != 1:
        raise CannotLoad(f"{path.name} is no OpenVINO model", found=f"{len(found)} .xml files", expected="one")
    return found[0]


def _spec(port: Any) -> TensorSpec:
    # A port may have several names; the same one is taken every time.
    name = min(port.get_names(), default=port.get_node().get_friendly_name())
    dtype = port.get_element_type().get_type_name()
    if dtype not in _DTYPES:
        raise CannotLoad(f"{name} is of a type that arrays do not have", found=dtype)
    dimensions = port.get_partial_shape()
    shape = None if dimensions.rank.is_dynamic else tuple(None if d.is_dynamic else d.get_length() for d in dimensions)
    return TensorSpec(name=name, shape=shape, dtype=_DTYPES[dtype])
