"""What a command answers: a value for programs, and the same for people as lines and tables."""

from __future__ import annotations

from collections.abc import Sequence
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


Block = Lines | Table | Raw


class Answer(msgspec.Struct, frozen=True):
    """``value`` is what ``--json`` prints, ``blocks`` what it is to people.

    ``exit_code`` is not 0 where the answer is a report that failed.
    """

    value: Any
    blocks: Sequence[Block]
    exit_code: int = 0
