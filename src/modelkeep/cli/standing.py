"""Where a training run stands: how far, how fast, and whether it still goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from modelkeep.errors import FormatTooNew, IntegrityError
from modelkeep.runs import Progress

if TYPE_CHECKING:
    from modelkeep.runs import Run

SILENCE = 30.0  # seconds; a training tells how far it is every two, and never during a step
_NEVER = "1970-01-01T00:00:00Z"
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
    word, newest = _word(run), run.newest
    finished = newest is not None and newest.finished and newest.created >= word.time
    silence = (now or datetime.now(UTC)).timestamp() - seconds(word.time)
    state = "finished" if finished else "silent" if silence > SILENCE else "training"
    steps = _all_steps(run)
    rate = _speed(seen, signs(run)) if state == "training" else None
    return Standing(
        step=word.step,
        epoch=word.epoch,
        of=run.progress.of if run.progress else None,
        share=1.0 if finished else None if steps is None else min(1.0, word.step / steps),
        logs=word.logs,
        heard=word.time,
        rate=rate,
        left=None if rate is None or steps is None else max(0.0, steps - word.step) / rate,
        state=state,
    )


def _word(run: Run) -> Progress:
    """The newest of what it told and its newest checkpoint."""
    newest, told = run.newest, run.progress
    if newest is None:
        return told or Progress(step=0, epoch=0, time=_NEVER)  # every checkpoint is damaged
    if told is not None and told.time > newest.created:
        return told
    return Progress(step=newest.step, epoch=newest.epoch, logs=dict(newest.metrics), time=newest.created)


def seconds(time: str) -> float:
    """Seconds since the epoch of a time in RFC 3339."""
    return datetime.fromisoformat(time).timestamp()


def _all_steps(run: Run) -> float | None:
    """How many steps all epochs will have, by those that are done."""
    of = run.progress and run.progress.of
    if run.progress and of and run.progress.steps_per_epoch:
        return of * run.progress.steps_per_epoch
    with suppress(IntegrityError, FormatTooNew):  # runs are listed, whatever is damaged
        if of and run.curves.epochs:
            last = run.curves.epochs[-1]
            return of * last.step / last.epoch
    return None


def _speed(seen: Sequence[Sign], known: Sequence[Sign]) -> float | None:
    """Steps a second over all signs that were seen come; else the most between two known ones.

    The most, since a run that was killed stood still for a while.
    """
    whole = _rate(seen[0], seen[-1]) if seen else None
    return whole or max(filter(None, (_rate(a, b) for a, b in pairwise(known))), default=None)


def _rate(a: Sign, b: Sign) -> float | None:
    steps, seconds = b.step - a.step, b.time - a.time
    return steps / seconds if steps > 0 and seconds > _APART else None
