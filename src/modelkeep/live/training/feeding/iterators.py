"""Data that comes one batch after the other: whatever can be iterated, with a state of its own or without one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar

from modelkeep.errors import UsageError
from modelkeep.live.training.feeding import drawing
from modelkeep.live.training.feeding.attributes import Methods, generator_state, methods, set_generator
from modelkeep.live.training.feeding.feed import Batch, Cursor, FetchedFeed, Position
from modelkeep.report import Finding, Severity


class IteratorFeed(FetchedFeed):
    """Generators, iterators and what gives iterators.

    Its position is what the iterator, or else what gives it, keeps of itself: ``get_state``/``set_state`` or
    ``state_dict``/``load_state_dict`` (grain, torchdata's StatefulDataLoader). What has neither begins anew when
    training is resumed, or with ``fast_forward`` gives away as many batches as were trained on.
    """

    kind: ClassVar[str] = "iterator"

    def __init__(
        self, source: Any, *, steps_per_epoch: int | None, fast_forward: bool = False, length: int | None = None
    ) -> None:
        super().__init__(steps_per_epoch=steps_per_epoch)
        self._source = source
        self._once = iter(source) is source if isinstance(source, Iterator) else False
        self._known_length = length
        self._fast_forward = fast_forward
        self._to_pass_by = 0
        self._given = 0  # batches, over all passes
        self._iterator: Iterator[Any] | None = source if self._once else None
        self._looked_at: deque[tuple[Any, Batch]] = deque()  # batches before their turn, each with the state before it
        if not self._keeps_state():
            self.findings = (self._cannot(),)

    # --- position

    def _keeps_state(self) -> bool:
        """Whether the position can be had, as far as can be told without taking a batch."""
        return self._methods() is not None

    def _methods(self) -> Methods | None:
        # grain's datasets keep none, and give iterators that do; making one takes no batch.
        return methods(self._source) or methods(self._opened())

    def _capture(self) -> Any:
        """The state of the stream now; None where it has none."""
        own = self._methods()
        # A loader tells what its generator was when the pass began; what it is now decides over the next passes.
        return None if own is None else {"own": own[0](), "generator": generator_state(self._generator)}

    @property
    def _generator(self) -> Any:
        return getattr(self._source, "generator", None)

    def _put_back(self, kept: Any) -> None:
        """Let the stream stand where :meth:`_capture` was asked."""
        own = self._methods()
        if own is not None:
            own[1](kept["own"])
        if methods(self._source) and not self._once:
            with drawing.unchanged():
                self._iterator = iter(self._source)
        if kept["generator"] is not None and generator_state(self._generator) is not None:
            set_generator(self._generator, kept["generator"])

    def _state(self) -> Position:
        stream = self._looked_at[0][0] if self._looked_at else self._capture()
        return {"stream": stream, "given": self._given}

    def _restore(self, position: Position) -> tuple[Finding, ...]:
        self._looked_at.clear()
        self._given = position["given"]
        if position["stream"] is not None:
            self._put_back(position["stream"])
            return ()
        count = self._consumed(position)
        if count and self._fast_forward:
            self._to_pass_by = count
            return (passed_by(count, self._source),)
        return (self._cannot(),) if count else ()

    def _consumed(self, position: Position) -> int:
        """Batches to pass by: of the pass, or of all passes where there is but one iterator."""
        return int(position["given"] if self._once else position["at"][1])

    def _cannot(self) -> Finding:
        what = "it is gone through again as far as training had come" if self._fast_forward else "it begins anew"
        message = f"the position in the data cannot be restored: when training is resumed, {what}"
        return Finding("data-not-restored", Severity.WARNING, message, type(self._source).__name__)

    # --- batches

    def _opened(self) -> Iterator[Any]:
        if self._iterator is None:
            self._iterator = iter(self._source)
        return self._iterator

    def _take(self) -> Batch:
        iterator = self._opened()
        if self._to_pass_by:
            count, self._to_pass_by = self._to_pass_by, 0
            next(islice(iterator, count - 1, count), None)
        return _standard(next(iterator))

    def _fetch(self) -> Batch:
        batch = self._looked_at.popleft()[1] if self._looked_at else self._take()
        self._cursor = Cursor(self._cursor.passes, self._cursor.index + 1)
        self._given += 1
        return batch

    def _peek(self) -> Batch:
        return self._samples(1)[0]

    def _samples(self, count: int = 2) -> list[Batch]:
        while len(self._looked_at) < count:
            before = self._capture()
            try:
                self._looked_at.append((before, self._take()))
            except StopIteration:
                break
        if not self._looked_at and self._cursor.index and not self._once:
            self._begin_next()  # the last pass is over; what is looked at belongs to the next
            return self._samples(count)
        if not self._looked_at:
            raise UsageError("the data has no batches", found=f"an empty {type(self._source).__name__}")
        return [batch for _, batch in self._looked_at][:count]

    def _next_pass(self) -> bool:
        goes_on = not self._once and super()._next_pass()
        if goes_on:
            self._iterator = None
        return goes_on

    def _begin_next(self) -> None:
        self._cursor = Cursor(self._cursor.passes + 1)
        self._iterator = None

    def _length(self) -> int | None:
        return self._known_length


def passed_by(count: int, source: Any) -> Finding:
    """What is said of batches that are consumed for nothing."""
    message = f"{count} batches are made and thrown away, to go on where training stood"
    return Finding("data-fast-forward", Severity.NOTE, message, type(source).__name__)


def _standard(batch: Any) -> Batch:
    return tuple(batch) if isinstance(batch, list) else batch
