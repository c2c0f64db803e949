"""Tensors under names in one file: ``.safetensors`` (https://huggingface.co/docs/safetensors).

Eight bytes with the length of a JSON header, little-endian; the header, which gives each name its dtype, shape
and place; then the bytes of all tensors, one behind the other without a hole. An honest file holds nothing else.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from modelkeep.errors import IntegrityError, MissingExtra, StorageError
from modelkeep.formats import strict_json
from modelkeep.formats.contents import Contents, ForeignTensor, Problem
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import Limits
from modelkeep.formats.streams import fill, open_regular, some

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

METADATA = "__metadata__"
# The format's word, then NumPy's or ml_dtypes', and bits of one number.
_DTYPES = {
    "BOOL": ("bool", 8), "U8": ("uint8", 8), "I8": ("int8", 8), "U16": ("uint16", 16), "I16": ("int16", 16),
    "U32": ("uint32", 32), "I32": ("int32", 32), "U64": ("uint64", 64), "I64": ("int64", 64), "F16": ("float16", 16),
    "BF16": ("bfloat16", 16), "F32": ("float32", 32), "F64": ("float64", 64), "C64": ("complex64", 64),
    "F8_E4M3": ("float8_e4m3fn", 8), "F8_E5M2": ("float8_e5m2", 8), "F8_E8M0": ("float8_e8m0fnu", 8),
    "F4": ("float4_e2m1fn", 4), "F6_E2M3": ("float6_e2m3fn", 6), "F6_E3M2": ("float6_e3m2fn", 6),
}  # fmt: skip
_START = 8  # bytes, of the header's length


def recognise(place: Place) -> bool:
    """Whether a file begins with a length that fits in it, and a JSON object of that length."""
    length = int.from_bytes(place.head[:_START], "little")
    return place.head[_START : _START + 1] == b"{" and 2 <= length <= place.size - _START


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a file; see :class:`modelkeep.formats.forms.Form`. Its arrays are views of the file, read-only.

    The format has no checksums: ``thorough`` finds nothing more.
    """
    file = open_regular(place.path)
    try:
        size = os.fstat(file).st_size
        header, problems = _header(file, size, place.path.name, limits)
        metadata = header.pop(METADATA, {})
        limits.check("tensors", len(header), f"{place.path.name} holds too many tensors")
        problems += _problems_of_metadata(metadata)
        start = _START + _length(file)
        data = _mapped(file, size)
        entries = {name: _Entry.of(name, value) for name, value in header.items()}
        problems += _problems_of_places(entries, size - start)
        yield Contents(
            form="safetensors",
            path=place.path,
            size=size,
            tensors=tuple(entry.tensor(data, start, size) for entry in entries.values()),
            details={"metadata": metadata},
            problems=problems,
        )
    finally:
        os.close(file)


def _length(file: int) -> int:
    return int.from_bytes(some(file, _START, 0), "little")


def _header(file: int, size: int, name: str, limits: Limits) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    length = _length(file)
    limits.check("config", length, f"the header of {name} is too large")
    if length > size - _START:
        raise IntegrityError(
            f"{name} is cut short within its header", found=f"{size:,} bytes", expected=f"over {length:,}"
        )
    data = bytearray(length)
    fill(file, data, _START)
    value, problems = strict_json.read(bytes(data), what=f"the header of {name}", limits=limits)
    if not isinstance(value, dict):
        raise IntegrityError(f"the header of {name} is no JSON object")
    return value, problems


def _mapped(file: int, size: int) -> memoryview:
    try:
        return memoryview(mmap.mmap(file, size, access=mmap.ACCESS_READ))  # lives on while an array needs it
    except OSError as error:
        raise StorageError(f"cannot map the file: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the header says of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int  # that its shape needs
    begin: int
    end: int

    @classmethod
    def of(cls, name: str, value: Any) -> _Entry:
        """Raises IntegrityError unless it is a dtype, a shape and a place."""
        try:
            (dtype, bits), shape, (begin, end) = _DTYPES[value["dtype"]], value["shape"], value["data_offsets"]
            numbers = [*shape, begin, end]
            if len(value) != 3 or not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
                raise ValueError
            return cls(name, dtype, tuple(shape), math.prod(shape) * bits // 8, begin, end)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"the header does not say what {name[:80]!r} is", found=repr(value)[:120]) from error

    def tensor(self, data: memoryview, start: int, size: int) -> ForeignTensor:
        """Its array, as a view of the mapped file."""
        read = partial(self._array, data, start, size)
        return ForeignTensor(self.name, self.dtype, self.shape, self.nbytes, read)

    def _array(self, data: memoryview, start: int, size: int) -> Array:
        import numpy as np

        if self.end - self.begin != self.nbytes or start + self.end > size:
            raise IntegrityError(f"{self.name} does not lie in the file", found=f"bytes {self.begin:,} to {self.end:,}")
        dtype = _numpy(self.dtype)
        if dtype.itemsize * math.prod(self.shape) != self.nbytes:
            raise IntegrityError(f"no array holds {self.dtype} as {self.name} does: several numbers to a byte")
        return np.frombuffer(data[start + self.begin : start + self.end], dtype).reshape(self.shape)


def _numpy(dtype: str) -> Any:
    import numpy as np

    try:
        return np.dtype(dtype).newbyteorder("<") if hasattr(np, dtype) else np.dtype(getattr(_ml_dtypes(), dtype))
    except AttributeError as error:
        raise IntegrityError(f"no array holds {dtype}") from error


def _ml_dtypes() -> Any:
    try:
        import ml_dtypes
    except ImportError as error:
        raise MissingExtra("bfloat16 and float8 need ml_dtypes", hint="pip install ml_dtypes") from error
    return ml_dtypes


def _problems_of_metadata(metadata: Any) -> tuple[Problem, ...]:
    if isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()):
        return ()
    return (Problem("safetensors-metadata", "its metadata are no texts under names", METADATA),)


def _problems_of_places(entries: Mapping[str, _Entry], size: int) -> tuple[Problem, ...]:
    """One tensor behind the other, from the first byte to the last."""
    problems, at = [], 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.end - entry.begin != entry.nbytes:
            said = f"{entry.end - entry.begin:,} bytes for a shape that needs {entry.nbytes:,}"
            problems.append(Problem("safetensors-size", said, entry.name))
        if entry.begin < at:
            problems.append(Problem("safetensors-overlap", "it shares bytes with another tensor", entry.name))
        elif entry.begin > at:
            problems.append(
                Problem("safetensors-gap", f"{entry.begin - at:,} bytes before it belong to no tensor", entry.name)
            )
        at = max(at, entry.end)
    if at < size:
        problems.append(Problem("safetensors-gap", f"{size - at:,} bytes behind the last tensor"))
    elif at > size:
        raise IntegrityError("the file is cut short", found=f"{size:,} bytes of tensors", expected=f"{at:,}")
    return tuple(problems)


FORM = Form(
    names=("safetensors",),
    title="safetensors file (.safetensors)",
    endings=(".safetensors",),
    holds=frozenset({"weights"}),
    recognise=recognise,
    read=read,
)
