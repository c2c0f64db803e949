"""``modelkeep watch``: a training, while it goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import msgspec

from modelkeep.cli import chart, completing, shapes
from modelkeep.cli.answer import Answer, Chart, Frame, Frames, Lines, Table
from modelkeep.cli.command import command
from modelkeep.cli.standing import Sign, Standing, signs, standing
from modelkeep.cli.wording import epochs, marks, moment, numbers, short, span, state
from modelkeep.errors import BlobMissing

if TYPE_CHECKING:
    from modelkeep.curves import Curves, Point
    from modelkeep.keep import Keep
    from modelkeep.runs import Run

_NEWEST = 5  # checkpoints that are shown
_WATCHED = 30  # signs over which its speed is taken
_CURVE = 30  # characters
_BAR = 30
_TRIES = 3
_MAIN = ("val_loss", "loss")  # the first that there is tells most of a checkpoint
_VALIDATION = "val_"


@command("watch", example="modelkeep watch sentiment-run", shape="Watched")
@click.argument("name", metavar="RUN", shell_complete=completing.runs)
@click.option("--once", is_flag=True, help="Show how it stands, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    help="How often to look.",
)
def run(keep: Keep, name: str, once: bool, interval: float) -> Answer:
    """A training run, while it goes on.

    How far it is, its curves and its checkpoints. On a terminal it is drawn anew each
    time; in a pipe a line is printed for every change, and --json prints how it stands
    now. Ends when the run is finished, or with Ctrl-C.
    """
    found = _read(keep, name)
    value = shapes.Watched(run=shapes.Run.of(found), curves=msgspec.json.decode(found.curves.to_json()))
    return Answer(value, [Frames(_frames(keep, found, once=once, interval=interval))])


def _frames(keep: Keep, found: Run, *, once: bool, interval: float) -> Iterator[Frame]:
    seen: list[Sign] = []
    while True:
        newest = signs(found)[-1:]
        if seen and newest and newest[0].step < seen[-1].step:
            seen = []  # it was killed and goes on from a checkpoint
        seen = [*seen, *(sign for sign in newest if sign not in seen)][-_WATCHED:]
        stands = standing(found, seen)
        words = "  ".join(_words(stands))
        yield Frame(f"{found.name}  {words}  {numbers(stands.logs)}".rstrip(), list(_view(found, stands)))
        if once or stands.state == "finished":
            return
        time.sleep(interval)
        found = _read(keep, found.name)


def _read(keep: Keep, name: str) -> Run:
    """A run with its curves; read again where the training let go of what had been its newest checkpoint meanwhile."""
    for _ in range(_TRIES):
        found = keep.run(name)
        with suppress(BlobMissing):
            found.curves  # noqa: B018 - read now, and kept
            return found
    return found


def _words(stands: Standing) -> Iterator[str]:
    yield state(stands)
    yield f"epoch {epochs(stands)}"
    yield f"step {stands.step}"
    if stands.share is not None:
        yield f"{stands.share * 100:.0f} %"
    if stands.rate is not None:
        yield f"{stands.rate:.3g} steps/s"
    if stands.left is not None:
        yield f"{span(stands.left)} left"


def _view(found: Run, stands: Standing) -> Iterator[Lines | Table | Chart]:
    head = (f"{found.name}  {'  '.join(_words(stands))}", _bar(stands.share), numbers(stands.logs))
    yield Lines("\n".join(filter(None, head)))
    names = found.curves.names()
    if names:
        first = "loss" if "loss" in names else names[0]
        yield from _chart(found.curves, first)
        rows = [(name, *_row(found.curves, name)) for name in names if name not in (first, f"{_VALIDATION}{first}")]
        if rows:
            yield Table(
                ("METRIC", "NEWEST", "LEAST", "MOST", "CURVE"), rows, right=frozenset({"NEWEST", "LEAST", "MOST"})
            )
    if found.checkpoints:
        yield _newest(found)
    if len(found.checkpoints) > _NEWEST:
        yield Lines(f"and {len(found.checkpoints) - _NEWEST} older: modelkeep checkpoints {found.name}")


def _newest(found: Run) -> Table:
    """The newest checkpoints, in so few words that they fit beside each other."""
    rows = [
        (
            checkpoint.ref,
            str(checkpoint.epoch),
            numbers(dict([(name, checkpoint.metrics[name]) for name in _MAIN if name in checkpoint.metrics][:1])),
            moment(checkpoint.created),
            " ".join(marks(found, checkpoint)),
        )
        for checkpoint in found.checkpoints[: -_NEWEST - 1 : -1]
    ]
    return Table(("CHECKPOINT", "EPOCH", "METRIC", "CREATED (UTC)", ""), rows)


def _bar(share: float | None) -> str:
    return "" if share is None else "█" * int(share * _BAR) + "░" * (_BAR - int(share * _BAR))


def _chart(curves: Curves, name: str) -> Iterator[Lines | Chart]:
    """A name by step, and as marks what validation gave for it."""
    line = _points(curves.steps, name) or _points(curves.epochs, name)
    validation = _points(curves.epochs, f"{_VALIDATION}{name}")
    title = f"{name}, {chart.MARK} {_VALIDATION}{name}" if validation else name
    yield Lines(f"{title}, by step")
    yield Chart(line, validation)


def _row(curves: Curves, name: str) -> tuple[str, str, str, str]:
    values = [value for _, value in _points(curves.steps, name) or _points(curves.epochs, name)]
    finite = [value for value in values if math.isfinite(value)] or values
    return short(values[-1]), short(min(finite)), short(max(finite)), chart.bars(finite, _CURVE)


def _points(points: Iterable[Point], name: str) -> list[tuple[float, float]]:
    return [(point.step, point.logs[name]) for point in points if name in point.logs]
