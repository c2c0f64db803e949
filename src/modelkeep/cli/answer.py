"""What a command answers: a value for programs, and the same for people as lines and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings. Columns in ``right`` hold numbers and are set to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lines:
    """Text whose lines stay as they are."""

    text: str


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes for a file or another program, with nothing added."""

    data: bytes


Block = Lines | Table | Raw


@dataclass(frozen=True, slots=True)
class Answer:
    """``value`` is what ``--json`` prints, ``blocks`` what it is to people.

    ``exit_code`` is not 0 where the answer is a report that failed.
    """

    value: Any
    blocks: Sequence[Block]
    exit_code: int = 0
