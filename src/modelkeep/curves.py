"""Losses and metrics by step and by epoch: what a training logged, small enough to go with every checkpoint.

Every epoch is kept. Of the steps at most :data:`MOST` are, and the newest: every one at first, then, each time there
are too many, every second of those. Which ones follows from their number alone, so a training that was killed and
resumed has the very curves of one that never was.

``to_json`` is canonical: the same curves are the same bytes. It holds columns, as plotting wants them::

    {"format":1,"count":4000,"stride":2,"begin":0,
     "steps":{"step":[1,3,…,4000],"epoch":[0,0,…,7],"logs":{"loss":[0.7,0.69,…]}},
     "epochs":{"epoch":[1,…],"step":[500,…],"logs":{"loss":[0.6,…],"val_loss":[0.61,…]}}}

Numbers are the shortest that read back as the same float; ``"nan"``, ``"inf"`` and ``"-inf"`` are text, and null stands
where nothing was logged under that name.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, Any, Literal, NamedTuple, Self

import msgspec

from modelkeep.errors import FormatTooNew, IntegrityError

FORMAT = 1
MOST = 2_000  # steps kept: more than a screen has columns, and some 100 kB with two metrics

Logs = Mapping[str, float]
_step = attrgetter("step")


class Point(NamedTuple):
    """What was logged after ``step`` steps in all, when ``epoch`` epochs were done."""

    step: int
    epoch: int
    logs: Logs


class Difference(NamedTuple):
    """A number that a step gave when it was trained before, and another that it gave now; None where there was none."""

    step: int
    name: str
    before: float | None
    now: float | None

    def __str__(self) -> str:
        return f"at step {self.step} {self.name} was {_word(self.before)} before and is {_word(self.now)} now"


@dataclass(slots=True)
class Curves:
    """The curves of a run, or of its end: what :meth:`since` gives.

    ``count`` is how many steps were logged in all, ``stride`` how many of them each kept one stands for, ``begin`` the
    number of the first kept one, from 0; ``newest`` is the newest step, whether or not it is one of the kept.
    """

    count: int = 0
    stride: int = 1
    begin: int = 0
    kept: list[Point] = field(default_factory=list)
    newest: Point | None = None
    epochs: list[Point] = field(default_factory=list)

    # --- while training

    def add_step(self, step: int, epoch: int, logs: Mapping[str, Any]) -> None:
        """What the training logged after ``step``, with ``epoch`` epochs done; what is no single number is left out."""
        self.newest = Point(step, epoch, numbers(logs))
        if self.count == MOST * self.stride:
            self._thin()
        if self.count % self.stride == 0:
            self.kept.append(self.newest)
        self.count += 1

    def add_epoch(self, epoch: int, step: int, logs: Mapping[str, Any]) -> None:
        """What the training logged at the end of an epoch; ``epoch`` counts it, so the first one is 1."""
        self.epochs.append(Point(step, epoch, numbers(logs)))

    def _thin(self) -> None:
        odd = self.begin // self.stride % 2
        self.kept = self.kept[odd::2]
        self.begin += odd * self.stride
        self.stride *= 2

    def copy(self) -> Self:
        """The curves as they are now; what is logged later does not change it. Some microseconds."""
        return type(self)(self.count, self.stride, self.begin, self.kept[:], self.newest, self.epochs[:])

    def since(self, step: int) -> Self:
        """What was logged after ``step``, such as a checkpoint's; ``extended`` puts it back behind what was before."""
        gone = bisect_right(self.kept, step, key=_step)
        later = bisect_right(self.epochs, step, key=_step)
        newest = self.newest if self.newest and self.newest.step > step else None
        begin = self.begin + gone * self.stride
        return type(self)(self.count, self.stride, begin, self.kept[gone:], newest, self.epochs[later:])

    def extended(self, later: Curves) -> Self:
        """These curves and what came ``since``: the same as if all had been logged into one."""
        whole = self.copy()
        if later.count <= whole.count:
            return whole
        while whole.stride < later.stride:
            whole._thin()
        whole.kept = whole.kept[: max(0, (later.begin - whole.begin) // whole.stride)] + later.kept
        whole.count, whole.newest = later.count, later.newest
        whole.epochs += [point for point in later.epochs if not self.epochs or point.epoch > self.epochs[-1].epoch]
        return whole

    # --- asking

    @property
    def steps(self) -> list[Point]:
        """The steps that are kept, the newest one included."""
        last = self.newest
        return self.kept if last is None or (self.kept and self.kept[-1] is last) else [*self.kept, last]

    def at(self, step: int) -> Point | None:
        """What was logged after ``step``, if it is kept."""
        if self.newest and self.newest.step == step:
            return self.newest
        place = bisect_left(self.kept, step, key=_step)
        return self.kept[place] if place < len(self.kept) and self.kept[place].step == step else None

    def names(self) -> list[str]:
        """What was logged, in the order in which it first was."""
        return _names([*self.steps, *self.epochs])

    def differences(self, earlier: Curves) -> Iterator[Difference]:
        """Where a step or epoch of an ``earlier`` attempt at the same training logged something else, in their order.

        To the bit: a training that is deterministic gives none.
        """
        epochs = {point.epoch: point for point in self.epochs}
        pairs = [(was, self.at(was.step)) for was in earlier.steps]
        pairs += [(was, epochs.get(was.epoch)) for was in earlier.epochs]
        for was, now in sorted(pairs, key=lambda pair: pair[0].step):
            if now is not None:
                yield from differing(was.step, was.logs, now.logs)

    # --- bytes

    def to_json(self) -> bytes:
        """The canonical bytes, from which :meth:`from_json` reads the same curves."""
        document = _Document(
            format=FORMAT,
            count=self.count,
            stride=self.stride,
            begin=self.begin,
            steps=_Columns.of(self.steps),
            epochs=_Columns.of(self.epochs),
        )
        return _encoder.encode(document)

    @classmethod
    def from_json(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read curves. Raises FormatTooNew for a later format, IntegrityError for anything else that does not fit."""
        try:
            number = _format_decoder.decode(data).format
            if number != FORMAT:
                raise FormatTooNew.of("a run's curves", found=number, newest=FORMAT)
            document = _decoder.decode(data)
            steps, epochs = document.steps.points(), document.epochs.points()
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise IntegrityError(f"a run's curves cannot be read ({error})", hint="run: modelkeep fsck") from None
        # The newest step stands behind the kept ones; its own number says whether it is one of them.
        kept = len(range(document.begin, document.count, document.stride))
        if len(steps) - kept not in (0, 1):
            raise IntegrityError("a run's curves do not fit their count", found=len(steps), expected=kept)
        newest = steps[-1] if steps else None
        return cls(document.count, document.stride, document.begin, steps[:kept], newest, epochs)


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """What has a curve: every value that is one number, as a float."""
    return {name: float(value) for name, value in logs.items() if _is_number(value)}


def differing(step: int, before: Logs, now: Logs) -> Iterator[Difference]:
    """Each name under which ``now`` has another number than ``before``, to the bit; NaN is like NaN."""
    for name in dict.fromkeys((*before, *now)):
        was, value = before.get(name), now.get(name)
        if repr(was) != repr(value):  # unlike ==, it tells -0.0 from 0.0 and not NaN from NaN
            yield Difference(step, name, was, value)


def _is_number(value: Any) -> bool:
    # An array library's scalar has the shape (); a metric of each class, for one, has a longer one.
    return isinstance(value, int | float) or getattr(value, "shape", None) == ()


def _names(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(name for point in points for name in point.logs))


def _word(value: float | None) -> str:
    return "not logged" if value is None else repr(value)


# --- the document

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_Value = float | Literal["nan", "inf", "-inf"] | None


class _Columns(msgspec.Struct, forbid_unknown_fields=True):
    step: list[int]
    epoch: list[int]
    logs: dict[str, list[_Value]]

    @classmethod
    def of(cls, points: Sequence[Point]) -> _Columns:
        return cls(
            step=[point.step for point in points],
            epoch=[point.epoch for point in points],
            logs={name: [_written(point.logs.get(name)) for point in points] for name in _names(points)},
        )

    def points(self) -> list[Point]:
        """Raises ValueError where the columns are not of one length, or the steps go back."""
        if len({len(self.step), len(self.epoch), *map(len, self.logs.values())}) > 1:
            raise ValueError("columns of different lengths")
        if any(later < step for step, later in zip(self.step, self.step[1:], strict=False)):
            raise ValueError("steps that go back")
        return [
            Point(step, epoch, {name: float(value) for name, value in row if value is not None})
            for step, epoch, row in zip(self.step, self.epoch, self._rows(), strict=True)
        ]

    def _rows(self) -> Iterator[list[tuple[str, _Value]]]:
        for place in range(len(self.step)):
            yield [(name, column[place]) for name, column in self.logs.items()]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    count: _Count
    stride: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    begin: _Count
    steps: _Columns
    epochs: _Columns


class _FormatOnly(msgspec.Struct):
    format: int


def _written(value: float | None) -> _Value:
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


_encoder = msgspec.json.Encoder()  # names stay in the order in which they were logged, as in Keras' history
_decoder = msgspec.json.Decoder(_Document)
_format_decoder: msgspec.json.Decoder[_FormatOnly] = msgspec.json.Decoder(_FormatOnly)
