"""Protobuf messages written by hand, for tests that must not need TensorFlow: ``message((1, 5), (2, "a"))``."""

from __future__ import annotations

import struct

Field = tuple[int, "int | float | str | bytes"]


def message(*fields: Field) -> bytes:
    """The bytes of a message: an int becomes a varint, a float 4 bytes, text and bytes get their length."""
    return b"".join(_field(number, value) for number, value in fields)


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def fixed32(number: int, value: int) -> bytes:
    """A field of four bytes, to be put behind a message."""
    return varint(number << 3 | 5) + struct.pack("<I", value)


def _field(number: int, value: int | float | str | bytes) -> bytes:
    match value:
        case int():
            return varint(number << 3) + varint(value)
        case float():
            return varint(number << 3 | 5) + struct.pack("<f", value)
        case str():
            return _field(number, value.encode())
    return varint(number << 3 | 2) + varint(len(value)) + value
