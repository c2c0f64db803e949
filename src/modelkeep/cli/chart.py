"""Curves in characters: a chart of braille dots with an axis, and a row of bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from modelkeep.cli.wording import short

Series = Sequence[tuple[float, float]]

MARK = "●"
_BARS = "▁▂▃▄▅▆▇█"
# The dots of one character, 2 wide and 4 high, from U+2800 on (https://www.unicode.org/charts/PDF/U2800.pdf).
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_EMPTY = 0x2800


def bars(values: Iterable[float], width: int) -> str:
    """Values as at most ``width`` bars, each the mean of its stretch; what is not finite is left out."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    columns = _columns(list(enumerate(finite)), (0, len(finite) - 1), min(width, len(finite))).values()
    low, high = _range(columns)
    return "".join(_BARS[_level(value, low, high, len(_BARS))] for value in columns)


def draw(line: Series, marks: Series, *, width: int, height: int) -> list[str]:
    """A line of dots and single marks over the same axes, at most ``width`` wide; the rows from above.

    Empty where there is no finite value.
    """
    line, marks = _finite(line), _finite(marks)
    points = [*line, *marks]
    if not points:
        return []
    (left, right), (low, high) = (_range(values) for values in zip(*points, strict=True))
    labels = {0: short(high), height - 1: short(low)} if high > low else {height - 1: short(low)}
    margin = max(map(len, labels.values()))
    across = width - margin - 2
    levels = _columns(line, (left, right), 2 * across) if line else {}
    rows = _dotted({column: _level(y, low, high, 4 * height) for column, y in levels.items()}, across, height)
    for x, y in marks:
        rows[height - 1 - _level(y, low, high, height)][_level(x, left, right, across)] = MARK
    drawn = [f"{labels.get(number, ''):>{margin}} ┤{''.join(row).rstrip()}" for number, row in enumerate(rows)]
    return [*drawn, f"{'':{margin + 2}}{_axis(short(left), short(right), across)}"]


def _axis(begin: str, end: str, across: int) -> str:
    """The ends of an axis, as far as there is room and they differ."""
    between = across - len(begin) - len(end)
    return begin if begin == end or between < 1 else f"{begin}{'':{between}}{end}"


def _dotted(levels: Mapping[int, int], across: int, height: int) -> list[list[str]]:
    """The characters of a line by its level in each column of dots, drawn from the level of the one before."""
    cells = [[_EMPTY] * across for _ in range(height)]
    before = next(iter(levels.values()), 0)
    for column, level in levels.items():
        for dot in _between(before, level):
            row = 4 * height - 1 - dot
            cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
        before = level
    return [[" " if cell == _EMPTY else chr(cell) for cell in row] for row in cells]


def _between(before: int, level: int) -> Iterator[int]:
    """The levels from ``before``, itself left out unless it is the only one, to ``level``."""
    step = 1 if level > before else -1
    yield from range(before + step, level + step, step) if level != before else (level,)


def _columns(line: Series, across: tuple[float, float], count: int) -> dict[int, float]:
    """The line in so many columns, from that of its first point to that of its last.

    In each the mean of the points there; between two that have points, as if straight.
    """
    found: dict[int, list[float]] = {}
    for x, y in line:
        found.setdefault(_level(x, *across, count), []).append(y)
    means = [(column, sum(y / len(values) for y in values)) for column, values in sorted(found.items())]
    columns = dict(means[:1])
    for (begin, first), (end, last) in pairwise(means):
        for column in range(begin + 1, end + 1):
            share = (column - begin) / (end - begin)
            columns[column] = first * (1 - share) + last * share
    return columns


def _level(value: float, low: float, high: float, count: int) -> int:
    """Which of ``count`` equal stretches from ``low`` to ``high`` a value lies in, from 0."""
    return (
        0 if high == low else min(count - 1, int((value / 2 - low / 2) / (high / 2 - low / 2) * count))
    )  # halves: no overflow


def _range(values: Iterable[float]) -> tuple[float, float]:
    values = list(values)
    return min(values), max(values)


def _finite(points: Series) -> Series:
    return [(x, y) for x, y in points if math.isfinite(y)]
