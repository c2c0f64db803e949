"""Protocol buffers read as they lie, without their schema: numbered fields of numbers and bytes.

The wire format is https://protobuf.dev/programming-guides/encoding/. Nothing is copied: what has a length is
a view of the given bytes. One level is read at a time, so how deep messages nest costs nothing until somebody
looks, and whoever looks decides how deep. Groups, which no format that is read here has, are refused.

A field is an unsigned integer (of a varint or a fixed width) or a ``memoryview``. :func:`fields` gives them one
by one, for messages with very many; :class:`Message` keeps those of one message by number.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterator
from typing import Literal

from modelkeep.errors import IntegrityError, LimitExceeded

MAX_FIELDS = 1_000_000  # of one Message, each of which costs about 200 bytes; `fields` has no such limit

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK = 2**64 - 1

Value = int | memoryview


def fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """The number and value of every field of a message, in their order.

    Raises IntegrityError where the bytes are no message: cut short, a varint too long, another wire type.
    """
    at, end = 0, len(data)
    while at < end:
        # Nearly all tags and lengths take one byte.
        tag = data[at]
        at += 1
        if tag > 127:
            tag, at = _varint(data, at - 1)
        number, wire = tag >> 3, tag & 7
        value: Value
        if wire == _BYTES:
            if at >= end:
                raise _cut_short(at)
            length = data[at]
            at += 1
            if length > 127:
                length, at = _varint(data, at - 1)
            if length > end - at:
                raise _cut_short(at)
            value = data[at : at + length]
            at += length
        elif wire == _VARINT:
            value, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            width = 4 if wire == _FIXED32 else 8
            if width > end - at:
                raise _cut_short(at)
            value = int.from_bytes(data[at : at + width], "little")
            at += width
        else:
            raise IntegrityError(f"no protobuf message: a field of wire type {wire} at byte {at - 1:,}")
        if not number:
            raise IntegrityError(f"no protobuf message: a field without a number at byte {at - 1:,}")
        yield number, value


def varints(data: memoryview) -> list[int]:
    """Unsigned integers that lie one after the other, as a packed field has them. Raises IntegrityError."""
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


def signed(value: int) -> int:
    """The ``int32`` or ``int64`` that an unsigned varint stands for."""
    return value - 2**64 if value >= 2**63 else value


class Message:
    """The fields of one message, by number. A field that is not there has protobuf's default: 0, "", no message.

    The last of several values counts where one is asked for. Every method raises IntegrityError where the
    field is there but of another wire type, or is no UTF-8; making one also LimitExceeded beyond
    ``MAX_FIELDS``. ``numbers`` are those of the fields to keep, where a message may have very many others.
    """

    __slots__ = ("_fields", "data")

    def __init__(self, data: memoryview | bytes, numbers: Container[int] | None = None) -> None:
        self.data = memoryview(data)
        self._fields: dict[int, list[Value]] = {}
        wanted = fields(self.data) if numbers is None else only(self.data, numbers)
        for count, (number, value) in enumerate(wanted):
            if count == MAX_FIELDS:
                raise LimitExceeded("a protobuf message has too many fields", expected=f"at most {MAX_FIELDS:,}")
            self._fields.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of all fields that are there."""
        return frozenset(self._fields)

    def unsigned(self, number: int) -> int:
        """A ``uint32``, ``uint64``, ``bool``, ``enum`` or ``fixed`` field."""
        values = self._fields.get(number)
        return _integer(number, values[-1]) if values else 0

    def integer(self, number: int) -> int:
        """An ``int32`` or ``int64`` field, which may be negative."""
        return signed(self.unsigned(number))

    def integers(self, number: int) -> list[int]:
        """A repeated ``int32``, ``int64``, ``bool`` or ``enum``, packed or not."""
        found: list[int] = []
        for value in self._fields.get(number, ()):
            found.extend(varints(value) if isinstance(value, memoryview) else (value,))
        return [signed(value) for value in found]

    def fixed(self, number: int, code: Literal["f", "d"]) -> array[float]:
        """A ``float`` (code "f") or ``double`` ("d"), repeated or not, packed or not, as an array."""
        found: array[float] = array(code)
        width = found.itemsize
        for value in self._fields.get(number, ()):
            packed = value if isinstance(value, memoryview) else (value & _MASK).to_bytes(8, "little")[:width]
            if len(packed) % width:
                raise IntegrityError(f"protobuf field {number} is no row of numbers of {width} bytes")
            found.frombytes(packed)
        return found

    def view(self, number: int) -> memoryview:
        """A ``bytes`` field, not copied."""
        values = self._fields.get(number)
        return _viewed(number, values[-1]) if values else memoryview(b"")

    def views(self, number: int) -> list[memoryview]:
        """A repeated ``bytes`` field."""
        return [_viewed(number, value) for value in self._fields.get(number, ())]

    def text(self, number: int) -> str:
        """A ``string`` field."""
        return text(self.view(number))

    def texts(self, number: int) -> list[str]:
        """A repeated ``string`` field."""
        return [text(value) for value in self.views(number)]

    def message(self, number: int) -> Message:
        """An embedded message; one without fields where it is not there."""
        return Message(self.view(number))

    def messages(self, number: int) -> Iterator[Message]:
        """Repeated embedded messages, each read when it is reached."""
        return map(Message, self.views(number))

    def map(self, number: int) -> dict[str, Message]:
        """A ``map<string, message>`` field; of equal keys the last counts."""
        return {entry.text(1): entry.message(2) for entry in self.messages(number)}


def text(data: memoryview | bytes) -> str:
    """The text of a ``string`` field. Raises IntegrityError where it is no UTF-8."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError("a protobuf text is not UTF-8", found=repr(bytes(data[:40]))) from error


def only(data: memoryview, numbers: Container[int]) -> Iterator[tuple[int, Value]]:
    """Those fields of a message that have one of the numbers, in their order. Raises IntegrityError."""
    return ((number, value) for number, value in fields(data) if number in numbers)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The varint at a place, and where it ends."""
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & _MASK, at
            shift += 7
            if shift > 63:
                raise IntegrityError(f"no protobuf message: a number of more than 10 bytes before byte {at:,}")
    except IndexError:
        raise _cut_short(at) from None


def _integer(number: int, value: Value) -> int:
    if isinstance(value, memoryview):
        raise IntegrityError(f"protobuf field {number} is bytes", expected="a number")
    return value


def _viewed(number: int, value: Value) -> memoryview:
    if isinstance(value, int):
        raise IntegrityError(f"protobuf field {number} is a number", expected="bytes")
    return value


def _cut_short(at: int) -> IntegrityError:
    return IntegrityError(f"no protobuf message: it ends within a field, after byte {at:,}")
