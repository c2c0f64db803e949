"""What a network takes and gives: names, shapes and dtypes, under names that stay the same from save to save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from modelkeep.live import internals
from modelkeep.manifest import Signature, TensorSpec


def signature(model: keras.Model) -> Signature | None:
    """The model's signature, or None where a subclassed model does not tell its inputs.

    Names are keys where inputs or outputs are a mapping, else the names of the layers they come from. A
    subclassed model knows the shape it was built with but no dtype: Keras' default for inputs is taken.
    """
    inputs, outputs = _declared(model) or _inferred(model) or (None, None)
    if inputs is None:
        return None
    input_structure, input_specs = _named(inputs, "input")
    output_structure, output_specs = _named(outputs, "output")
    return Signature(
        inputs=input_specs, outputs=output_specs, input_structure=input_structure, output_structure=output_structure
    )


def tensors(structure: Any, specs: tuple[TensorSpec, ...]) -> Any:
    """The KerasTensors that a signature describes, nested as it says."""
    by_name = {spec.name: keras.KerasTensor(spec.shape or (), dtype=spec.dtype) for spec in specs}
    return _mapped(by_name.__getitem__, structure)


def _declared(model: keras.Model) -> tuple[Any, Any] | None:
    if isinstance(model, keras.Sequential):
        return (model.inputs[0], model.outputs[0]) if getattr(model, "inputs", None) else None
    try:
        return model.input, model.output  # nested as they were given, unlike `inputs` and `outputs`
    except (AttributeError, ValueError):
        return None


def _inferred(model: keras.Model) -> tuple[Any, Any] | None:
    shape = (model.get_build_config() or {}).get("input_shape")
    if not shape:
        return None
    inputs = _mapped(lambda one: keras.KerasTensor((None, *one[1:]), dtype=model.input_dtype), shape, leaf=_is_shape)
    try:
        with internals.unchanged_randomness():
            return inputs, model.compute_output_spec(inputs)
    except Exception:  # noqa: BLE001 - it runs the user's own `call`, which may want anything else
        return None


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(length, int | None) for length in value)


def _named(structure: Any, default: str) -> tuple[Any, tuple[TensorSpec, ...]]:
    specs: dict[str, TensorSpec] = {}

    def name(key: str | None, tensor: Any) -> str:
        wanted = key or internals.made_by(tensor) or default
        free = next(candidate for candidate in _numbered(wanted) if candidate not in specs)
        shape = None if tensor.shape is None else tuple(tensor.shape)
        specs[free] = TensorSpec(name=free, shape=shape, dtype=str(keras.backend.standardize_dtype(tensor.dtype)))
        return free

    def visit(value: Any, key: str | None) -> Any:
        if isinstance(value, Mapping):
            return {str(inner): visit(value[inner], str(inner)) for inner in value}
        if isinstance(value, list | tuple):
            return [visit(inner, None) for inner in value]
        return name(key, value)

    return visit(structure, None), tuple(specs.values())


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 1
    while True:
        yield f"{name}_{number}"
        number += 1


def _mapped(function: Callable[[Any], Any], structure: Any, leaf: Callable[[Any], bool] = lambda value: False) -> Any:
    if isinstance(structure, Mapping):
        return {key: _mapped(function, value, leaf) for key, value in structure.items()}
    if isinstance(structure, list | tuple) and not leaf(structure):
        return [_mapped(function, value, leaf) for value in structure]
    return function(structure)
