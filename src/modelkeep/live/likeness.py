"""Whether two attribute values are alike: yes, no, or not to be told without running somebody's code."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import FunctionType, SimpleNamespace
from typing import Any

import keras
import numpy as np

from modelkeep.live.arrays import Array, is_array
from modelkeep.live.sources import is_user_code

_PLAIN = (bool, int, float, complex, str, bytes, range, slice, enum.Enum)
_DEPTH = 6


def same(a: Any, b: Any, depth: int = _DEPTH) -> bool | None:
    """Compare two values; None where it cannot be told.

    Lists and tuples of equal items are alike, since JSON makes one of the other. Layers and variables are not
    compared here.
    """
    if a is b:
        return True
    a, b = (value.item() if isinstance(value, np.generic) else value for value in (a, b))
    if depth == 0 or any(isinstance(value, keras.Layer | keras.Variable) for value in (a, b)):
        return None
    if is_array(a) or is_array(b):
        return _same_arrays(a, b)
    if isinstance(a, _PLAIN) or isinstance(b, _PLAIN) or a is None or b is None:
        return _same_plain(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return set(a) == set(b) and _all(same(a[key], b[key], depth - 1) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and _all(same(x, y, depth - 1) for x, y in zip(a, b, strict=True))
    if isinstance(a, set | frozenset) and isinstance(b, set | frozenset):
        return True if a == b else _all(None if _is_opaque(value) else False for value in a ^ b)
    if isinstance(a, FunctionType) and isinstance(b, FunctionType):
        return _same_functions(a, b)
    return _same_objects(a, b, depth)


def _same_arrays(a: Any, b: Any) -> bool | None:
    if not (is_array(a) and is_array(b)):
        return None if _is_opaque(b if is_array(a) else a) else False
    try:
        x, y = _as_array(a), _as_array(b)
    except Exception:  # noqa: BLE001 - a tensor that is only a symbol of a traced function has no value to show
        return None
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    return bool(np.array_equal(x, y, equal_nan="float" in x.dtype.name))


def _as_array(value: Any) -> Array:
    return value if isinstance(value, np.ndarray) else np.asarray(keras.ops.convert_to_numpy(value))


def _same_plain(a: Any, b: Any) -> bool | None:
    # An object beside None or a name may be what was made from it.
    if _is_opaque(a) or _is_opaque(b):
        return None
    return bool(a == b or (a != a and b != b))


def _same_functions(a: FunctionType, b: FunctionType) -> bool | None:
    if a.__qualname__ != b.__qualname__:
        return None
    # One name in two modules: Keras' own was taken for the user's.
    return a.__module__ == b.__module__


def _same_objects(a: Any, b: Any, depth: int) -> bool | None:
    if type(a).__qualname__ != type(b).__qualname__:
        return None
    if hasattr(a, "get_config"):
        return same(a.get_config(), b.get_config(), depth - 1)
    if is_user_code(type(a)) or isinstance(a, SimpleNamespace):
        return same(getattr(a, "__dict__", None), getattr(b, "__dict__", None), depth - 1)
    return None


def _is_opaque(value: Any) -> bool:
    return not (value is None or is_array(value) or isinstance(value, (*_PLAIN, Mapping, list, tuple, set, frozenset)))


def _all(verdicts: Any) -> bool | None:
    found = list(verdicts)
    return False if False in found else None if None in found else True
