"""Where a training run stands: how far, how fast, and whether it still goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from modelkeep.runs import Run

SILENCE = 30.0  # seconds; a training tells how far it is every two, and never during a step
_APART = 1.0  # seconds that two signs must lie apart to tell how fast it is


class Sign(msgspec.Struct, frozen=True):
    """A run was at a step at that time, in seconds."""

    time: float
    step: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is, by its newest sign of life: what it told, or a checkpoint.

    ``of`` is the number of epochs it is to have, ``share`` how much of its steps is done, from 0 to 1; ``rate`` are
    steps a second, ``left`` seconds. None where that is not known.
    """

    step: int
    epoch: int
    of: int | None
    share: float | None
    logs: Mapping[str, Any]
    heard: str  # RFC 3339, UTC
    rate: float | None
    left: float | None
    state: str  # "finished", "training" or "silent"


def signs(run: Run) -> list[Sign]:
    """The newest signs of life that the store has, in the order of their times."""
    found = [Sign(seconds(checkpoint.created), checkpoint.step) for checkpoint in run.checkpoints[-3:]]
    if run.progress is not None:
        found.append(Sign(seconds(run.progress.time), run.progress.step))
    return sorted(found, key=lambda sign: sign.time)


def standing(run: Run, seen: Sequence[Sign] = (), *, now: datetime | None = None) -> Standing:
    """Where a run stands; ``seen`` are signs that were watched come, which tell best how fast it is."""
    newest, told = run.newest, run.progress
    if told is not None and (newest is None or told.time > newest.created):
        step, epoch, logs, heard, finished = told.step, told.epoch, told.logs, told.time, False
    elif newest is not None:
        step, epoch, logs, heard = newest.step, newest.epoch, newest.metrics, newest.created
        finished = newest.finished
    else:  # every checkpoint is damaged
        step, epoch, logs, heard, finished = 0, 0, {}, "1970-01-01T00:00:00Z", False
    silence = (now or datetime.now(UTC)).timestamp() - seconds(heard)
    state = "finished" if finished else "silent" if silence > SILENCE else "training"
    steps = _all_steps(run)
    rate = _rate(seen) or _rate(signs(run)) if state == "training" else None
    return Standing(
        step=step,
        epoch=epoch,
        of=told.of if told else None,
        share=1.0 if finished else None if steps is None else min(1.0, step / steps),
        logs=logs,
        heard=heard,
        rate=rate,
        left=None if rate is None or steps is None else max(0.0, steps - step) / rate,
        state=state,
    )


def seconds(time: str) -> float:
    """Seconds since the epoch of a time in RFC 3339."""
    return datetime.fromisoformat(time).timestamp()


def _all_steps(run: Run) -> float | None:
    """How many steps all epochs will have, by those that are done."""
    if run.progress is None or run.progress.of is None or not run.curves.epochs:
        return None
    last = run.curves.epochs[-1]
    return run.progress.of * last.step / last.epoch


def _rate(signs: Sequence[Sign]) -> float | None:
    """Steps a second where it was fastest: a run that was killed stood still for a while."""
    return max(
        (
            (b.step - a.step) / (b.time - a.time)
            for a, b in pairwise(signs)
            if b.step > a.step and b.time - a.time > _APART
        ),
        default=None,
    )
