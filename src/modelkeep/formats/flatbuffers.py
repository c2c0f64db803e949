"""FlatBuffers read as they lie, without their schema: tables of fields by number, with every offset checked.

The layout is https://flatbuffers.dev/internals: a table begins with the distance back to its vtable, which has two
sizes and then the place of each field within the table; strings, vectors and inner tables are distances forward. All
numbers are little-endian. Nothing is copied, and one level is read at a time: how deep tables nest costs nothing, and
a table that leads to itself is no harm to whoever does not follow it for ever.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from modelkeep.errors import IntegrityError

_SIZES = {code: struct.calcsize(f"<{code}") for code in "bBhHiIqQ?"}


@dataclass(frozen=True, slots=True)
class Table:
    """One table. A field that is not there has its default: 0, "", nothing.

    Every method raises IntegrityError where an offset leads out of the data.
    """

    data: memoryview
    at: int

    def number(self, field: int, code: str) -> int:
        """A number field; ``code`` is its struct code."""
        place = self._place(field)
        return _number(self.data, place, code) if place else 0

    def text(self, field: int) -> str:
        """A string field."""
        place, count = self._vector(field, 1)
        return _text(self.data[place : place + count])

    def numbers(self, field: int, code: str) -> tuple[int, ...]:
        """A vector of numbers."""
        place, count = self._vector(field, _SIZES[code])
        return struct.unpack_from(f"<{count}{code}", self.data, place)

    def bytes(self, field: int) -> memoryview:
        """A vector of bytes, not copied."""
        place, count = self._vector(field, 1)
        return self.data[place : place + count]

    def count(self, field: int) -> int:
        """How many members a vector of tables has."""
        return self._vector(field, 4)[1]

    def tables(self, field: int) -> Iterator[Table]:
        """A vector of tables, each found when it is reached."""
        place, count = self._vector(field, 4)
        for index in range(count):
            entry = place + 4 * index
            yield Table(self.data, entry + _number(self.data, entry, "I"))

    def _place(self, field: int) -> int:
        """Where a field lies; 0 where the table does not have it."""
        vtable = self.at - _number(self.data, self.at, "i")
        index = 4 + 2 * field
        if index + 2 > _number(self.data, vtable, "H"):
            return 0
        offset = _number(self.data, vtable + index, "H")
        return self.at + offset if offset else 0

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        """Where the members of a vector begin, and how many there are."""
        place = self._place(field)
        if not place:
            return 0, 0
        start = place + _number(self.data, place, "I")
        count = _number(self.data, start, "I")
        if count * width > len(self.data) - start - 4:
            raise IntegrityError("a vector is longer than the file", found=f"{count:,} members at byte {start:,}")
        return start + 4, count


def root(data: memoryview) -> Table:
    """The outermost table. Raises IntegrityError."""
    return Table(data, _number(data, 0, "I"))


def _number(data: memoryview, place: int, code: str) -> int:
    if not 0 <= place <= len(data) - _SIZES[code]:
        raise IntegrityError("an offset leads out of the file", found=f"byte {place:,} of {len(data):,}")
    number: int = struct.unpack_from(f"<{code}", data, place)[0]
    return number


def _text(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError("a text is not UTF-8", found=repr(bytes(data[:40]))) from error
