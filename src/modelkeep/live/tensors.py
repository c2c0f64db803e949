"""Stored tensors as numpy arrays over their bytes; numpy alone is needed for that, no backend."""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from modelkeep.manifest import Tensor

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

# Dtypes that numpy knows from ml_dtypes only, and that cross no buffer protocol.
EXOTIC = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2"})


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of Keras' word for one."""
    return np.dtype(getattr(ml_dtypes, name)) if name in EXOTIC else np.dtype(name)


def array(tensor: Tensor, data: memoryview) -> Array:
    """A stored tensor as an array over the mapped memory."""
    dtype = numpy_dtype(tensor.dtype)
    if not data.nbytes:
        return np.empty(tensor.shape, dtype)
    values = np.frombuffer(data, dtype).reshape(tensor.shape)
    return values.byteswap() if sys.byteorder == "big" else values
