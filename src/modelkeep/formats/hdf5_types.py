"""The types of HDF5 that a model's writer uses, in NumPy's words; all others, in HDF5's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# H5T_class_t
_CLASSES = {
    0: "odd integer",
    1: "odd float",
    2: "time",
    3: "string",
    4: "bitfield",
    5: "opaque",
    6: "compound",
    7: "reference",
    8: "enum",
    9: "vlen",
    10: "array",
}
# Bits of sign, exponent and mantissa: place of the sign, place and size of the others.
_FLOATS = {
    (15, 10, 5, 0, 10): "float16",
    (15, 7, 8, 0, 7): "bfloat16",
    (31, 23, 8, 0, 23): "float32",
    (63, 52, 11, 0, 52): "float64",
}


def word_for(stored: Any, attributes: Mapping[str, Any]) -> tuple[str, Any]:
    """The word for an ``h5py.h5t.TypeID``, and the type to read it as; None where it is not to be read.

    What NumPy has no word for, h5py keeps as bytes: ``V1`` or ``V2``. Such a dataset of two bytes is bfloat16
    where its attribute ``dtype`` says so.
    """
    from h5py import h5t

    kind, size = stored.get_class(), stored.get_size()
    plain = None
    if kind == h5t.INTEGER and size in (1, 2, 4, 8) and stored.get_precision() == size * 8:
        plain = f"{'' if stored.get_sign() else 'u'}int{size * 8}"
    elif kind == h5t.FLOAT:
        plain = _FLOATS.get(stored.get_fields())
    elif kind == h5t.COMPOUND and size in (8, 16) and _is_complex(stored):
        plain = f"complex{size * 8}"
    elif kind == h5t.ENUM and _members(stored) == {b"FALSE": 0, b"TRUE": 1}:
        return "bool", h5t.py_create("bool", logical=True)
    elif kind == h5t.OPAQUE and size <= 2:
        return ("bfloat16" if size == 2 and attributes.get("dtype") == "bfloat16" else f"V{size}"), stored
    if plain == "bfloat16":
        return plain, stored
    return (plain, h5t.py_create(plain)) if plain else (_CLASSES.get(kind, "unknown"), None)


def is_number(word: str) -> bool:
    """Whether a word is of one of the types that a Python number or truth value can be."""
    return word == "bool" or word.startswith(("int", "uint", "float"))


def rule_of(word: str) -> str | None:
    """The rule that a dataset of this type breaks."""
    if is_number(word) or word.startswith(("complex", "bfloat")):
        return None
    return {"string": "hdf5-string-dataset", "V1": "hdf5-opaque", "V2": "hdf5-opaque"}.get(word, "hdf5-type")


def _members(stored: Any) -> dict[bytes, int]:
    if stored.get_nmembers() != 2:
        return {}
    return {stored.get_member_name(index): stored.get_member_value(index) for index in range(2)}


def _is_complex(stored: Any) -> bool:
    from h5py import h5t

    if stored.get_nmembers() != 2 or [stored.get_member_name(index) for index in range(2)] != [b"r", b"i"]:
        return False
    parts = [stored.get_member_type(index) for index in range(2)]
    return all(part.get_class() == h5t.FLOAT and part.get_size() == stored.get_size() // 2 for part in parts)
