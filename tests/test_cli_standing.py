"""Where a run stands, told by what it said and what it kept."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from modelkeep.checkpoint import Checkpoint
from modelkeep.cli.standing import Sign, standing
from modelkeep.cli.wording import span
from modelkeep.curves import Curves
from modelkeep.runs import Progress, Run

DAY = "2026-05-01T12:00:%02d.000000Z"
NOW = datetime(2026, 5, 1, 12, 0, 59, tzinfo=UTC)


def kept(step: int, second: int, *, finished: bool = False) -> Checkpoint:
    """A checkpoint of twenty steps an epoch."""
    epoch, rest = divmod(step, 20)
    return Checkpoint(
        run="r",
        number=step,
        step=step,
        epoch=epoch,
        step_in_epoch=rest,
        created=DAY % second,
        reason="interval",
        manifest="blake3:" + "0" * 64,
        size=1,
        new_bytes=1,
        finished=finished,
    )


def told(step: int, second: int, *, of: int | None = None) -> Progress:
    return Progress(step=step, epoch=step // 20, of=of, time=DAY % second)


def run(*checkpoints: Checkpoint, progress: Progress | None = None, epochs: int = 0) -> Run:
    curves = Curves()
    for epoch in range(1, epochs + 1):
        curves.add_epoch(epoch, 20 * epoch, {})
    return Run("r", checkpoints, {}, progress, lambda _: curves)


def test_the_newest_of_what_it_told_and_what_it_kept_counts() -> None:
    assert standing(run(kept(40, 30), progress=told(50, 35)), now=NOW).step == 50
    assert standing(run(kept(40, 30), progress=told(20, 15)), now=NOW).step == 40


def test_a_run_that_told_nothing_for_half_a_minute_is_silent() -> None:
    assert standing(run(kept(40, 30)), now=NOW).state == "training"
    assert standing(run(kept(40, 28)), now=NOW).state == "silent"


def test_a_finished_run_stays_finished_until_it_is_taken_further() -> None:
    done = kept(40, 1, finished=True)
    assert (standing(run(done), now=NOW).state, standing(run(done), now=NOW).share) == ("finished", 1.0)
    assert standing(run(done, progress=told(45, 50)), now=NOW).state == "training"


def test_how_much_is_done_follows_from_the_epochs_that_are() -> None:
    half_way = standing(run(kept(40, 40), progress=told(50, 50, of=5), epochs=2), now=NOW)
    assert (half_way.share, half_way.rate, half_way.left) == (0.5, 1.0, 50.0)
    assert standing(run(progress=told(5, 50, of=5)), now=NOW).share is None


def test_the_time_that_a_killed_run_stood_still_does_not_slow_it_down() -> None:
    stopped = run(kept(10, 1), kept(40, 4), progress=told(50, 50))
    assert standing(stopped, now=NOW).rate == 10.0


def test_what_was_watched_tells_the_speed_best() -> None:
    seen = [Sign(100.0, 30), Sign(102.0, 40), Sign(110.0, 50)]
    assert standing(run(kept(10, 1), kept(40, 4), progress=told(50, 50)), seen, now=NOW).rate == 2.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.4, "4 s"), (89, "89 s"), (720, "12 min"), (5_400, "1 h 30 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_a_span_is_no_more_exact_than_one_can_wait(seconds: float, text: str) -> None:
    assert span(seconds) == text
