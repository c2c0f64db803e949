"""SavedModels of TensorFlow 1 and 2 run by TensorFlow, without any Keras: one of their signatures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep.engines.engine import cannot_load, check, runtime, text
from modelkeep.errors import UsageError
from modelkeep.manifest import Signature, TensorSpec

if TYPE_CHECKING:
    from modelkeep.engines.engine import Array

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
        functions = self._loaded.signatures
        if signature not in functions:
            raise UsageError(
                f"{path.name} has no such signature", found=signature, expected=" or ".join(functions) or "any"
            )
        self._function = functions[signature]
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


def load(path: Path, signature: str = DEFAULT) -> SavedModelEngine:
    """Load a SavedModel folder. Raises MissingExtra, CannotLoad, and UsageError for a signature it does not have."""
    return SavedModelEngine(path, signature)


def _specs(by_name: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """In the order of the alphabet: TensorFlow's own changes from load to load."""
    return tuple(_spec(name, spec) for name, spec in sorted(by_name.items()))


def _spec(name: str, spec: Any) -> TensorSpec:
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return TensorSpec(name=name, shape=shape, dtype=spec.dtype.name)
