"""Plain values to bytes and arrays, and back: what a checkpoint holds of a training besides its variables.

The document is MessagePack. None, bools, floats, texts, bytes, lists and integers of 64 bits are its own; everything
else is a map of one item, ``{kind: content}``, which nothing else is, because a dict is written as its pairs::

    {"dict": [[key, value], …]}   {"tuple": […]}   {"set": […]}   {"frozenset": […]}
    {"int": "12345678901234567890"}                {"text": bytes}            lone surrogates, as UTF-8 would have them
    {"number": [dtype, bytes]}    {"words": text or bytes}                    NumPy's scalars
    {"array": [dtype, shape, order, bytes]}        {"apart": [dtype, shape, order, name]}

Bytes of arrays are in C order, or in Fortran's where the array was: sums over it depend on that to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import ml_dtypes
import msgspec
import numpy as np

from modelkeep.errors import IntegrityError, UsageError
from modelkeep.live.tensors import EXOTIC, Array
from modelkeep.refs import Digest
from modelkeep.storage.hashing import digest_of

APART = 64 * 1024
"""Bytes from which on an array is a tensor of its own, beside the document."""

_DEEPEST = 64  # values within values, written and read
_LARGEST = 256 * 2**20  # bytes of a document that is read
_NATIVE = frozenset({type(None), bool, float, bytes})  # what MessagePack has as it is
_DTYPE = re.compile(r"[<>|=](b1|[iufc]\d{1,2}|[SU]\d{1,9}|[mM]8(\[\d*[a-zA-Zμ]{1,7}\])?)")
_ML_DTYPES = {
    np.dtype(kind).name: np.dtype(kind)
    for kind in vars(ml_dtypes).values()
    if isinstance(kind, type) and issubclass(kind, np.generic)
}


@dataclass(frozen=True, slots=True)
class Packed:
    """A value as it is stored: its document, and the arrays that the document names."""

    document: bytes
    arrays: dict[str, Array]


@dataclass(frozen=True, slots=True)
class Constant:
    """Whoever packs this promises that nobody ever changes the array in place, so that it need not be copied."""

    array: Array


def pack(value: Any) -> Packed:
    """``value`` as bytes and arrays that stay as they are, whatever becomes of it.

    It is made of None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, and NumPy scalars and arrays
    (numbers of all kinds, ml_dtypes' among them, text, times), nested at most 64 deep. Types are exact, since a
    subclass would come back as something else. Arrays of 64 KiB and more are handed out under the path where they
    lie (``callbacks/0/best_weights/3``): C-contiguous copies, except :class:`Constant` ones, of their own dtype, or
    as uint8 where the store's tensors have none such; with the axes reversed where the array was in Fortran's order.
    An object that lies in two places becomes two; a set has no order.

    Raises UsageError for anything else, with its path.
    """
    packing = _Packing()
    document = packing.plain(value, ())
    return Packed(msgspec.msgpack.encode(document), packing.arrays)


def unpack(document: bytes, arrays: Mapping[str, Array]) -> Any:
    """The value that :func:`pack` made ``document`` and ``arrays`` of, to the bit.

    Small arrays are new; those of ``arrays`` are used as they are, not copied. Raises IntegrityError for bytes that
    :func:`pack` cannot have made.
    """
    if len(document) > _LARGEST:
        raise IntegrityError(
            "the state of the training is too large", found=f"{len(document):,} bytes", expected=f"at most {_LARGEST:,}"
        )
    try:
        return _unpacked(msgspec.msgpack.decode(document), arrays, 0)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise IntegrityError(f"the state of the training cannot be read: {error}") from error


def is_plain(value: Any) -> bool:
    """Whether :func:`pack` takes ``value``."""
    try:
        _Packing(at_once=True).plain(value, ())
    except UsageError:
        return False
    return True


def digest(value: Any) -> Digest:
    """A digest that differs where :func:`pack` would tell another value, of what :func:`is_plain` is true of."""
    packing = _Packing(at_once=True)
    document = msgspec.msgpack.encode(packing.plain(value, ()))
    return digest_of(document, *(array.reshape(-1).view(np.uint8).data for array in packing.arrays.values()))


_Path: TypeAlias = "tuple[str, ...]"


@dataclass(slots=True)
class _Packing:
    at_once: bool = False  # nothing changes before all of it is used: no copies
    arrays: dict[str, Array] = field(default_factory=dict)
    copied: dict[int, tuple[Array, Array]] = field(default_factory=dict)  # by id of the array, which is held with it

    def plain(self, value: Any, path: _Path) -> Any:
        if len(path) > _DEEPEST:
            raise UsageError(
                f"{_shown(path[:4])}… is nested too deeply to be kept", expected=f"at most {_DEEPEST} deep"
            )
        kind = type(value)
        if kind in _NATIVE:
            return value
        writer = _WRITERS.get(kind)
        if writer is not None:
            return writer(self, value, path)
        if isinstance(value, np.generic):
            return self.number(value, path)
        raise _refused(value, path)

    def integer(self, value: int, path: _Path) -> Any:
        return value if -(2**63) <= value < 2**63 else {"int": f"{value:x}"}

    def text(self, value: str, path: _Path) -> Any:
        try:
            value.encode()
        except UnicodeEncodeError:
            return {"text": value.encode(errors="surrogatepass")}
        return value

    def list_(self, value: list[Any], path: _Path) -> Any:
        if _NATIVE.issuperset(map(type, value)):
            return list(value)  # long ones are numbers, and quick
        return self.items(value, path)

    def tuple_(self, value: tuple[Any, ...], path: _Path) -> Any:
        return {"tuple": self.items(value, path)}

    def items(self, values: Iterable[Any], path: _Path) -> list[Any]:
        return [self.plain(one, (*path, str(index))) for index, one in enumerate(values)]

    def dict_(self, value: dict[Any, Any], path: _Path) -> Any:
        return {"dict": [self.pair(position, item, path) for position, item in enumerate(value.items())]}

    def pair(self, position: int, item: tuple[Any, Any], path: _Path) -> Any:
        key, value = item
        # A key that would not do as part of a tensor's name is told by its position.
        name = key if type(key) is str and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", key) else f"~{position}"
        return [self.plain(key, (*path, f"~{position}")), self.plain(value, (*path, name))]

    def set_(self, value: set[Any] | frozenset[Any], path: _Path) -> Any:
        # In an order that does not depend on hashes: the same state is the same document.
        return {type(value).__name__: sorted(self.items(value, path), key=msgspec.msgpack.encode)}

    def number(self, value: np.generic, path: _Path) -> Any:
        if isinstance(value, np.str_ | np.bytes_):
            return {"words": self.plain(value[:], path)}  # arrays, and `item`, lose what ends in zeros
        return {"number": [_dtype_name(value, path), value.tobytes()]}

    def array(self, value: Array, path: _Path, constant: bool = False) -> Any:
        dtype = _dtype_name(value, path)
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        shape = list(value.shape)
        if value.nbytes < APART:
            return {"array": [dtype, shape, order, value.tobytes(order)]}  # type: ignore[arg-type]
        name = "/".join(path) or "value"
        self.arrays[name] = self.apart(value, constant or self.at_once)
        return {"apart": [dtype, shape, order, name]}

    def apart(self, value: Array, constant: bool) -> Array:
        if id(value) not in self.copied:
            laid = value.T if value.flags.f_contiguous else value
            kept = np.ascontiguousarray(laid) if constant else np.array(laid, order="C")
            self.copied[id(value)] = value, kept if _is_tensor(value.dtype) else kept.reshape(-1).view(np.uint8)
        return self.copied[id(value)][1]

    def constant_(self, value: Constant, path: _Path) -> Any:
        return self.array(value.array, path, constant=True)


_WRITERS: dict[type, Callable[[_Packing, Any, _Path], Any]] = {
    int: _Packing.integer,
    str: _Packing.text,
    list: _Packing.list_,
    tuple: _Packing.tuple_,
    dict: _Packing.dict_,
    set: _Packing.set_,
    frozenset: _Packing.set_,
    np.ndarray: _Packing.array,
    Constant: _Packing.constant_,
}


def _shown(path: _Path) -> str:
    return "/".join(path) or "the value itself"


def _refused(value: object, path: _Path) -> UsageError:
    cls = type(value)
    return UsageError(
        f"{_shown(path)} cannot be kept in a checkpoint",
        found=f"{cls.__module__}.{cls.__qualname__}",
        expected="None, bool, int, float, str, bytes, list, tuple, dict, set, or a NumPy scalar or array",
        hint="make it of these where the state is told, and back where it is set",
    )


def _is_tensor(dtype: np.dtype[Any]) -> bool:
    """Whether the store's tensors have such a dtype; long doubles differ between machines."""
    return dtype.name in EXOTIC or (dtype.kind in "biufc" and dtype.isnative and dtype.char not in "gG")


def _dtype_name(value: Array | np.generic, path: _Path) -> str:
    """The dtype with its byte order; ml_dtypes' by their name, since NumPy has none for them."""
    dtype = value.dtype
    if dtype.name in _ML_DTYPES:
        return dtype.name
    if dtype.names is None and _DTYPE.fullmatch(dtype.str):
        return dtype.str
    raise UsageError(
        f"{_shown(path)} cannot be kept in a checkpoint",
        found=f"an array of {dtype}",
        expected="numbers, text or times",
    )


def _unpacked(value: Any, arrays: Mapping[str, Array], depth: int) -> Any:
    if not isinstance(value, list | dict):
        return value
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} deep")
    if isinstance(value, list):
        return [_unpacked(one, arrays, depth + 1) for one in value]
    ((kind, content),) = value.items()
    return _READERS[kind](content, arrays, depth)


def _items(content: Any, arrays: Mapping[str, Array], depth: int) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError(f"{type(content).__name__} where a list should be")
    return [_unpacked(one, arrays, depth + 1) for one in content]


def _dict(content: Any, arrays: Mapping[str, Array], depth: int) -> dict[Any, Any]:
    return {_unpacked(key, arrays, depth + 1): _unpacked(value, arrays, depth + 1) for key, value in content}


def _integer(content: Any, *_: Any) -> int:
    return int(content, 16)


def _text(content: Any, *_: Any) -> str:
    return str(content, "utf-8", "surrogatepass")


def _words(content: Any, arrays: Mapping[str, Array], depth: int) -> np.generic:
    value = _unpacked(content, arrays, depth)
    return np.bytes_(value) if isinstance(value, bytes) else np.str_(value)


def _number(content: Any, *_: Any) -> Any:
    dtype, data = content
    return _array([dtype, [], "C", data])[()]


def _array(content: Any, *_: Any) -> Array:
    dtype, shape, order, data = content
    if not isinstance(data, bytes):
        raise TypeError(f"{type(data).__name__} where bytes should be")
    return _laid(np.frombuffer(bytearray(data), np.uint8), dtype, shape, order)


def _apart(content: Any, arrays: Mapping[str, Array], depth: int) -> Array:
    dtype, shape, order, name = content
    if name not in arrays:
        raise ValueError(f"the array {name!r} is missing")
    return _laid(arrays[name].reshape(-1).view(np.uint8), dtype, shape, order)


def _laid(data: Array, dtype_name: str, shape: list[int], order: str) -> Array:
    """Bytes as an array of the dtype and shape, whose axes lie in the order in which they were."""
    if dtype_name not in _ML_DTYPES and not _DTYPE.fullmatch(dtype_name):
        raise ValueError(f"no dtype {dtype_name!r}")
    dtype = _ML_DTYPES.get(dtype_name) or np.dtype(dtype_name)
    if data.nbytes != prod(shape) * dtype.itemsize:
        raise ValueError(f"{data.nbytes} bytes for {tuple(shape)} of {dtype}")
    return np.ndarray(tuple(shape), dtype, data, order="F" if order == "F" else "C")


_READERS: dict[str, Callable[[Any, Mapping[str, Array], int], Any]] = {
    "int": _integer,
    "text": _text,
    "tuple": lambda *of: tuple(_items(*of)),
    "set": lambda *of: set(_items(*of)),
    "frozenset": lambda *of: frozenset(_items(*of)),
    "dict": _dict,
    "words": _words,
    "number": _number,
    "array": _array,
    "apart": _apart,
}
