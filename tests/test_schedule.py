"""A checkpoint is due every so many steps, epochs or seconds, counted from the beginning of the run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import UsageError
from modelkeep.live.training.schedule import Schedule


@given(every=st.integers(1, 50), at_once=st.integers(1, 7), steps=st.integers(1, 300))
def test_every_so_many_steps_one_is_due_however_many_come_at_once(every: int, at_once: int, steps: int) -> None:
    schedule = Schedule(steps=every)
    due = [now for now in range(at_once, steps + 1, at_once) if schedule.after_step(now - at_once, now, busy=False)]
    assert len(due) == len({step // every for step in range(0, steps + 1, at_once)} - {0})


def test_where_nothing_is_said_one_is_due_after_each_epoch_and_inside_none() -> None:
    schedule = Schedule()
    assert [schedule.after_epoch(epoch) for epoch in (1, 2, 3)] == [True, True, True]
    assert not schedule.after_step(0, 1000, busy=False)


def test_every_so_many_epochs_are_counted_from_the_beginning_of_the_run() -> None:
    schedule = Schedule(epochs=3)
    assert [epoch for epoch in range(1, 10) if schedule.after_epoch(epoch)] == [3, 6, 9]


def test_one_by_the_clock_is_due_when_the_time_is_over_and_waits_for_the_one_before() -> None:
    now = 0.0
    schedule = Schedule(seconds=10, clock=lambda: now)
    now = 9.9
    assert not schedule.after_step(1, 2, busy=False)
    now = 10.0
    assert not schedule.after_step(2, 3, busy=True)
    assert schedule.after_step(3, 4, busy=False)
    schedule.kept()
    assert not schedule.after_step(4, 5, busy=False)
    assert not schedule.after_epoch(1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": 0},
        {"steps": 1.5},
        {"epochs": True},
        {"epochs": -1},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"steps": 1, "epochs": 1},
    ],
)
def test_a_rhythm_that_makes_no_sense_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="every_"):
        Schedule(**arguments)  # type: ignore[arg-type]
