"""SavedModels of TensorFlow 1 and 2 run by TensorFlow, without any Keras: one of their signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep.engines.engine import cannot_load, check, runtime, text
from modelkeep.errors import CannotLoad, UsageError
from modelkeep.manifest import Signature, TensorSpec

if TYPE_CHECKING:
    from modelkeep.engines.engine import Array, Engine

DEFAULT = "serving_default"


class SavedModelEngine:
    """One signature of a SavedModel."""

    def __init__(self, path: Path, signature: str) -> None:
        self._tensorflow = runtime("tensorflow", "tensorflow")
        try:
            # The variables live as long as this object does; the functions alone do not hold them.
            self._loaded = self._tensorflow.saved_model.load(str(path))
        except Exception as error:
            raise cannot_load(path, "TensorFlow", error) from error
        self._function = _chosen(self._loaded.signatures, signature, path)
        self.signature = Signature(
            inputs=_specs(self._function.structured_input_signature[1]),
            outputs=_specs(self._function.structured_outputs),
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one batch. Raises UsageError for inputs that do not fit the signature."""
        check(self.signature, inputs)
        tensors = {name: self._tensorflow.constant(array) for name, array in inputs.items()}
        return {name: text(tensor.numpy()) for name, tensor in self._function(**tensors).items()}

    def close(self) -> None:
        """Let the functions and variables go."""
        del self._function, self._loaded


class GraphEngine:
    """One signature of a SavedModel by its graph alone, as TensorFlow Serving runs it.

    TensorFlow makes the objects that lie beside the graph, too, and cannot without their classes: an optimizer of
    Keras 2 stops it where no Keras 2 is installed.
    """

    def __init__(self, path: Path, signature: str) -> None:
        tensorflow = runtime("tensorflow", "tensorflow")
        self._session = tensorflow.compat.v1.Session(graph=tensorflow.Graph())
        logger = tensorflow.get_logger()
        level = logger.level
        logger.setLevel("ERROR")  # that there is a newer way, which is the one that failed
        try:
            loaded = tensorflow.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        except Exception as error:
            raise cannot_load(path, "TensorFlow", error) from error
        finally:
            logger.setLevel(level)
        found = _chosen(loaded.signature_def, signature, path)
        self._inputs = {name: info.name for name, info in found.inputs.items()}
        self._outputs = {name: info.name for name, info in found.outputs.items()}
        self.signature = Signature(
            inputs=_infos(found.inputs, tensorflow.dtypes.as_dtype),
            outputs=_infos(found.outputs, tensorflow.dtypes.as_dtype),
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one batch. Raises UsageError for inputs that do not fit the signature."""
        check(self.signature, inputs)
        found = self._session.run(self._outputs, {self._inputs[name]: array for name, array in inputs.items()})
        return {name: text(array) for name, array in found.items()}

    def close(self) -> None:
        """Let the graph and its variables go."""
        self._session.close()


def load(path: Path, signature: str = DEFAULT) -> Engine:
    """Load a SavedModel folder. Raises MissingExtra, CannotLoad, and UsageError for a signature it does not have."""
    try:
        return SavedModelEngine(path, signature)
    except CannotLoad as error:
        if not isinstance(error.__cause__, AttributeError):
            raise
        return GraphEngine(path, signature)


def _chosen(signatures: Mapping[str, Any], name: str, path: Path) -> Any:
    if name not in signatures:
        raise UsageError(f"{path.name} has no such signature", found=name, expected=" or ".join(signatures) or "any")
    return signatures[name]


def _infos(by_name: Mapping[str, Any], dtype_of: Callable[[int], Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=name, shape=_lengths(info.tensor_shape), dtype=dtype_of(info.dtype).name)
        for name, info in sorted(by_name.items())
    )


def _lengths(shape: Any) -> tuple[int | None, ...] | None:
    return None if shape.unknown_rank else tuple(None if axis.size < 0 else axis.size for axis in shape.dim)


def _specs(by_name: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """In the order of the alphabet: TensorFlow's own changes from load to load."""
    return tuple(_spec(name, spec) for name, spec in sorted(by_name.items()))


def _spec(name: str, spec: Any) -> TensorSpec:
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return TensorSpec(name=name, shape=shape, dtype=spec.dtype.name)
