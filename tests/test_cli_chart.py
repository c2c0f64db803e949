"""Curves in characters: every value in its place, whatever the values are."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.cli.chart import MARK, bars, draw

numbers = st.floats(allow_nan=True, allow_infinity=True)
points = st.lists(st.tuples(st.integers(0, 10**6), numbers)).map(sorted)


def test_bars_rise_with_the_values() -> None:
    assert bars([1, 2, 3, 4, 5, 6, 7, 8], 20) == "▁▂▃▄▅▆▇█"


def test_many_values_share_the_bars() -> None:
    assert bars(range(1000), 8) == "▁▂▃▄▅▆▇█"


def test_values_that_are_all_the_same_lie_at_the_bottom() -> None:
    assert bars([0.5, 0.5], 9) == "▁▁"


def test_what_is_not_finite_has_no_bar() -> None:
    assert bars([math.nan, 1, math.inf, 2], 9) == "▁█"
    assert bars([math.nan], 9) == bars([], 9) == ""


def test_a_falling_line_goes_from_the_top_left_to_the_bottom_right() -> None:
    top, *_, bottom, axis = draw([(1, 0.75), (100, 0.25)], [], width=30, height=5)
    assert top.startswith("0.75 ┤⠉")
    assert bottom.startswith("0.25 ┤ ")
    assert bottom.endswith("⣀")
    assert axis.split() == ["1", "100"]


def test_marks_share_the_axes_of_the_line() -> None:
    rows = draw([(0, 0.0), (50, 0.5)], [(100, 1.0)], width=20, height=4)
    assert rows[0].endswith(MARK)
    assert len(rows[0]) == 20


def test_a_single_point_is_drawn() -> None:
    *_, row, _ = draw([(7, 0.5)], [], width=20, height=3)
    assert row == "0.5 ┤⡀"


@given(points, points, st.integers(24, 120), st.integers(2, 20))
def test_any_points_fit_into_the_width_and_height(
    line: list[tuple[float, float]], marks: list[tuple[float, float]], width: int, height: int
) -> None:
    rows = draw(line, marks, width=width, height=height)
    assert len(rows) in (0, height + 1)
    assert all(len(row) <= width for row in rows)
