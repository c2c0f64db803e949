"""NumPy arrays, kept as tensors beside the network's own."""

from __future__ import annotations

import math
import sys
from typing import Any

from modelkeep.assets.codec import Packed, Stored
from modelkeep.errors import UsageError
from modelkeep.manifest import Asset

_WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = frozenset(("bool", *_WHOLE, "float16", "float32", "float64", "complex64", "complex128"))


class Array:
    """Raw little-endian bytes in C order; comes back over private memory that may be written to."""

    kind = "array"

    def accepts(self, value: Any) -> bool:
        """A NumPy array; one with a mask is not, for it would lose it."""
        numpy = sys.modules.get("numpy")
        return numpy is not None and isinstance(value, numpy.ndarray) and not isinstance(value, numpy.ma.MaskedArray)

    def pack(self, name: str, value: Any) -> Packed:
        """Raises UsageError for arrays of anything but numbers and booleans."""
        import numpy as np

        if value.dtype.name not in DTYPES:
            raise UsageError(
                f"an array of {value.dtype} cannot be kept",
                expected="numbers or booleans",
                hint="text: give array.tolist(); bfloat16: give array.astype('float32')",
            )
        array = np.asarray(value, dtype=value.dtype.newbyteorder("<"), order="C")
        tensor = f"assets/{name}"
        info = {"dtype": value.dtype.name, "shape": list(array.shape)}
        return Packed(Asset(name=name, kind=self.kind, tensors=(tensor,), info=info), tensors={tensor: array})

    def unpack(self, stored: Stored) -> Any:
        """An array of the same dtype and shape."""
        import numpy as np

        if len(stored.asset.tensors) != 1:
            raise stored.damaged(f"{len(stored.asset.tensors)} tensors instead of one")
        tensor, data = stored.read_tensor(stored.asset.tensors[0])
        if tensor.dtype not in DTYPES:
            raise stored.damaged(f"its dtype is {tensor.dtype[:80]!r}")
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        if math.prod(tensor.shape) * dtype.itemsize != len(data):
            raise stored.damaged(f"{len(data)} bytes for shape {tensor.shape} of {tensor.dtype}")
        return np.ndarray(tensor.shape, dtype, buffer=data)
