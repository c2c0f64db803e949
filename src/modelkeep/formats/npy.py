"""One array of NumPy: ``.npy`` (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

Behind a magic word and a length stands a Python dictionary with dtype, order and shape; then the numbers. An
array of objects has a pickle there instead, which is listed and never loaded.
"""

from __future__ import annotations

import ast
import math
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from modelkeep.errors import IntegrityError, LimitExceeded, UnsafeContent
from modelkeep.formats.contents import Contents, ForeignTensor, Member, Problem
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import Limits
from modelkeep.formats.streams import ByteRange, open_regular

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # bytes; NumPy's own limit
_PLAIN = re.compile(r"[\w\s'\"<>=|.,:()\[\]{}]*")  # no operators: a long chain of them would be deep
_PYTHON_2_LONG = re.compile(r"(?<=\d)L")
_DTYPE = re.compile(r"([<>=|]?)(?:([biufc?])(\d*)|([SUV])(\d+)|[mM]8(?:\[\w+\])?)")
_BFLOAT16 = "V2"  # NumPy has no word for it, and writes two bytes of no type


class Stream(Protocol):
    """What an array is read from."""

    def read(self, size: int = -1, /) -> bytes | None:
        """At most so many bytes."""

    def readinto(self, buffer: Any, /) -> int | None:
        """Fill a buffer."""


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the numbers. ``dtype`` is NumPy's text, or None for fields and objects."""

    dtype: str | None
    has_objects: bool
    is_fortran: bool
    shape: tuple[int, ...]
    length: int  # bytes before the numbers

    @property
    def nbytes(self) -> int:
        """Bytes of all numbers; 0 where they are not plain ones."""
        import numpy as np

        return math.prod(self.shape) * np.dtype(self.dtype).itemsize if self.dtype else 0


def read_header(stream: Stream, what: str) -> Header:
    """The header with which a stream begins. Raises IntegrityError, LimitExceeded."""
    start = stream.read(8) or b""
    if len(start) < 8 or not start.startswith(MAGIC) or start[6] not in (1, 2, 3):
        raise IntegrityError(f"{what} is no array of NumPy", found=repr(start))
    layout = "<H" if start[6] == 1 else "<I"
    size = struct.calcsize(layout)
    prefix = stream.read(size) or b""
    if len(prefix) < size:
        raise IntegrityError(f"{what} is cut short within its header")
    (length,) = struct.unpack(layout, prefix)
    if length > LONGEST_HEADER:
        raise LimitExceeded(
            f"the header of {what} is too long", found=f"{length:,}", expected=f"at most {LONGEST_HEADER:,}"
        )
    text = stream.read(length) or b""
    if len(text) < length:
        raise IntegrityError(f"{what} is cut short within its header")
    return _parsed(text.decode("utf-8" if start[6] == 3 else "latin-1", "replace"), what, 8 + size + length)


def _parsed(text: str, what: str, length: int) -> Header:
    try:
        if not _PLAIN.fullmatch(text):
            raise ValueError("more than plain values")
        value = ast.literal_eval(_PYTHON_2_LONG.sub("", text).strip())
        dtype, fortran, shape = value["descr"], value["fortran_order"], value["shape"]
        plain = isinstance(value, dict) and len(value) == 3 and isinstance(fortran, bool) and isinstance(shape, tuple)
        if not plain or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
            raise ValueError("not a dtype, an order and a shape")
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise IntegrityError(f"the header of {what} cannot be read", found=repr(text[:100])) from error
    is_plain = isinstance(dtype, str) and _DTYPE.fullmatch(dtype) is not None
    return Header(_known(dtype, what) if is_plain else None, "O" in str(dtype), fortran, shape, length)


def _known(dtype: str, what: str) -> str:
    import numpy as np

    try:
        return np.dtype(dtype).str
    except (TypeError, ValueError, OverflowError) as error:
        raise IntegrityError(f"{what} is of a dtype that NumPy does not know", found=dtype[:80]) from error


def read_numbers(stream: Stream, header: Header, what: str) -> Array:
    """The array whose header was just read. Raises IntegrityError where it is cut short, LimitExceeded."""
    import numpy as np

    try:
        array = np.empty(header.shape[::-1] if header.is_fortran else header.shape, header.dtype)
    except (MemoryError, ValueError) as error:
        raise LimitExceeded(
            f"{what} is too large for this machine's memory", found=f"{header.nbytes:,} bytes"
        ) from error
    rest = memoryview(array.reshape(-1).view(np.uint8).data) if array.nbytes else memoryview(b"")
    while len(rest):
        count = stream.readinto(rest)
        if not count:
            raise IntegrityError(f"{what} is cut short", found=f"{len(rest):,} bytes too few")
        rest = rest[count:]
    array = array.T if header.is_fortran else array
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return _as_bfloat16(array) if array.dtype.str.endswith(_BFLOAT16) else array


def dtype_name(header: Header) -> str:
    """NumPy's or ml_dtypes' word for what an array holds."""
    import numpy as np

    dtype = np.dtype(header.dtype)
    return "bfloat16" if dtype.str.endswith(_BFLOAT16) else dtype.name


def _as_bfloat16(array: Array) -> Array:
    try:
        import ml_dtypes
    except ImportError:
        return array
    return array.view(ml_dtypes.bfloat16)


def problems_of(header: Header, size: int, name: str) -> tuple[Problem, ...]:
    """What is odd about an array whose file, header and all, has ``size`` bytes."""
    if header.has_objects:
        return (Problem("npy-objects", "an array of objects, which is a pickle", name),)
    if header.dtype is None:
        return (Problem("npy-fields", "an array of records, which no weights are", name),)
    if header.nbytes != size - header.length:
        said = f"its header says {header.nbytes:,} bytes, and {size - header.length:,} follow"
        return (Problem("npy-size", said, name),)
    return ()


# --- a file of one array


def recognise(place: Place) -> bool:
    """Whether a file begins as NumPy's arrays do."""
    return place.head.startswith(MAGIC)


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a file; see :class:`modelkeep.formats.forms.Form`. Its tensor is called ``array``."""
    file = open_regular(place.path)
    try:
        name = place.path.name
        size = os.fstat(file).st_size
        header = read_header(ByteRange(file, 0, size), name)

        def array() -> Array:
            if found := problems_of(header, size, name):
                raise UnsafeContent(f"{name} is not read: {found[0].message}")
            return read_numbers(ByteRange(file, header.length, size - header.length), header, name)

        tensors = (
            [ForeignTensor("array", dtype_name(header), header.shape, header.nbytes, array)] if header.dtype else []
        )
        pickle = ByteRange(file, header.length, size - header.length)
        yield Contents(
            form="npy",
            path=place.path,
            size=size,
            tensors=tuple(tensors),
            pickles=(Member(name, pickle.size, pickle.readall),) if header.has_objects else (),
            problems=problems_of(header, size, name),
        )
    finally:
        os.close(file)


FORM = Form(
    names=("npy",),
    title="array of NumPy (.npy)",
    endings=(".npy",),
    holds=frozenset({"weights"}),
    recognise=recognise,
    read=read,
)
