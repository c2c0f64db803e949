"""Nested inputs and outputs as numpy arrays, whatever backend they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import keras
import ml_dtypes
import numpy as np

from modelkeep.errors import UsageError

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def is_array(value: Any) -> bool:
    """Whether a value is an array or a tensor of the backend; lone numpy numbers and variables are not."""
    return isinstance(value, np.ndarray) or (bool(keras.ops.is_tensor(value)) and not isinstance(value, keras.Variable))


def holds_arrays(structure: Any) -> bool:
    """Whether any leaf of a nested structure is an array."""
    return any(map(is_array, leaves(structure)))


def to_array(value: Any) -> Array:
    """A tensor of any backend, or nested numbers, as an array of its own dtype; text as an array of ``str``.

    Raises UsageError for anything else.
    """
    if keras.ops.is_tensor(value):
        dtype = keras.backend.standardize_dtype(value.dtype)
        array = np.asarray(keras.ops.convert_to_numpy(value))
        # torch's bfloat16 arrives as float32, the same values.
        return array.astype(ml_dtypes.bfloat16) if dtype == "bfloat16" else _with_text(array)
    try:
        return _with_text(np.asarray(value))
    except ValueError as error:
        raise _no_array(value) from error


def to_arrays(inputs: Any) -> Any:
    """Nested inputs with arrays for leaves; a list that holds no array and no mapping is one array itself."""
    if isinstance(inputs, Mapping):
        return {key: to_arrays(value) for key, value in inputs.items()}
    if isinstance(inputs, list | tuple) and (holds_arrays(inputs) or any(isinstance(one, Mapping) for one in inputs)):
        return [to_arrays(value) for value in inputs]
    return to_array(inputs)


def _with_text(array: Array) -> Array:
    """Text, which comes as bytes from TensorFlow and as objects from numpy, as ``str``."""
    if array.dtype.kind != "S" and not array.dtype.hasobject:
        return array
    kinds = {type(one) for one in array.flat}
    if not kinds <= {bytes, str, np.bytes_, np.str_}:
        raise _no_array(array.tolist())
    text = [one if isinstance(one, str) else one.decode(errors="backslashreplace") for one in array.flat]
    return np.array(text, dtype=str).reshape(array.shape)


def _no_array(value: object) -> UsageError:
    return UsageError("not an array", found=f"{type(value).__name__} {str(value)[:80]}", expected="numbers or text")


def mapped(function: Callable[[Any], Any], structure: Any) -> Any:
    """The same nesting with ``function`` applied to each leaf; tuples become lists."""
    if isinstance(structure, Mapping):
        return {key: mapped(function, value) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return [mapped(function, value) for value in structure]
    return function(structure)


def leaves(structure: Any) -> Iterator[Any]:
    """The leaves of nested mappings, lists and tuples, in order."""
    if isinstance(structure, Mapping):
        structure = list(structure.values())
    if isinstance(structure, list | tuple):
        for value in structure:
            yield from leaves(value)
    else:
        yield structure


def is_float(array: Array) -> bool:
    """Whether it holds floats, real or complex; bfloat16 and float8 among them, which numpy counts as void."""
    return array.dtype.kind in "fc" or "float" in array.dtype.name
