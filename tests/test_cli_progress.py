"""Bars for long work: on a terminal only, after a second only."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from modelkeep.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def shown(clock: Clock, seconds: float, stream: io.StringIO, *, total: int = 10**9) -> str:
    """What stands on ``stream`` as stderr after so long a piece of work."""
    with contextlib.redirect_stderr(stream), progress.Bars() as bars:
        for done in range(11):
            bars("writing", done * total // 10, total)
            clock.now += seconds / 10
    return stream.getvalue()


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def test_work_within_a_second_shows_nothing(clock: Clock) -> None:
    assert shown(clock, 0.9, Terminal()) == ""


@pytest.mark.parametrize(
    ("total", "amount"),
    [(10**9, r"1\.0 GB of 1\.0 GB  200\.0 MB/s"), (10, r"10 of 10  2\.0/s")],
    ids=["bytes", "steps"],
)
def test_longer_work_shows_what_how_much_how_fast_and_how_long_yet(clock: Clock, total: int, amount: str) -> None:
    progress = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(clock, 5, Terminal(), total=total))
    assert re.search(rf"writing .* \d+% +{amount} ", progress)


def test_a_bar_leaves_no_trace(clock: Clock) -> None:
    assert shown(clock, 5, Terminal()).endswith("\x1b[1A\x1b[2K")


def test_nothing_is_shown_in_a_pipe(clock: Clock) -> None:
    assert shown(clock, 5, io.StringIO()) == ""
