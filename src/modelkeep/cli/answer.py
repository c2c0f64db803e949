"""What a command answers: a value for programs, and the same for people as lines and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec


class Table(msgspec.Struct, frozen=True):
    """Rows of text under headings. Columns in ``right`` hold numbers and are set to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[str] = frozenset()


class Lines(msgspec.Struct, frozen=True):
    """Text whose lines stay as they are."""

    text: str


class Raw(msgspec.Struct, frozen=True):
    """Bytes for a file or another program, with nothing added."""

    data: bytes


class Chart(msgspec.Struct, frozen=True):
    """A line, and single marks over the same axes; points from left to right."""

    line: Sequence[tuple[float, float]]
    marks: Sequence[tuple[float, float]] = ()


class Frame(msgspec.Struct, frozen=True):
    """How something stands at one moment: ``line`` in a pipe, ``blocks`` on a terminal."""

    line: str
    blocks: Sequence[Lines | Table | Chart]


class Frames(msgspec.Struct, frozen=True):
    """What changes while somebody looks on: on a terminal each frame takes the place of the one before it.

    In a pipe each line is printed that is another than the one before.
    """

    frames: Iterator[Frame]


Block = Lines | Table | Raw | Chart | Frames


class Answer(msgspec.Struct, frozen=True):
    """``value`` is what ``--json`` prints, ``blocks`` what it is to people.

    ``exit_code`` is not 0 where the answer is a report that failed.
    """

    value: Any
    blocks: Sequence[Block]
    exit_code: int = 0
