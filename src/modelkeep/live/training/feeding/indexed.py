"""Data that gives any of its batches by an index: PyDatasets and PyTorch's map-style DataLoaders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modelkeep.errors import NotFaithful
from modelkeep.live.training.feeding import drawing
from modelkeep.live.training.feeding.attributes import Attributes, Kept
from modelkeep.live.training.feeding.feed import Batch, Cursor, FetchedFeed, Position, changed, digest
from modelkeep.report import Finding, Severity


class IndexedFeed(FetchedFeed):
    """Batches by index, with the state that ``owner`` keeps in its attributes and the random numbers it draws.

    The last batch can be made again, under the random states it was made under: its digest tells whether the data is
    still what it was.
    """

    def __init__(self, owner: Any, *, workers: bool, steps_per_epoch: int | None) -> None:
        super().__init__(steps_per_epoch=steps_per_epoch)
        self._attributes = Attributes(owner)
        self._workers = workers  # batches are made ahead, elsewhere: nobody knows what they draw
        self._length_of_pass: int | None = None
        self._last: Batch = None
        self._before: Kept | None = None  # the random states, and the owner's, before the last batch was made
        if workers:
            message = (
                "makes batches ahead, in workers: their order is kept, the random numbers that workers draw are not; "
                "without workers they are exact"
            )
            self.findings = (Finding("data-not-exact", Severity.WARNING, message, type(owner).__name__),)

    @abstractmethod
    def _begin_pass(self) -> int | None:
        """Draw the order of a pass; returns how many batches it has, None for no end."""

    @abstractmethod
    def _made(self, index: int) -> Batch:
        """The batch at ``index`` of the pass."""

    @abstractmethod
    def _from_workers(self, index: int) -> Batch:
        """The same batch, where workers make them."""

    @abstractmethod
    def _order_state(self) -> Any:
        """The order of the pass as a plain value."""

    @abstractmethod
    def _set_order(self, kept: Any) -> None:
        """Take what :meth:`_order_state` gave."""

    # --- position

    def _state(self) -> Position:
        return {
            "length": self._length_of_pass,
            "batches": self._length(),
            "order": self._order_state(),
            "owner": self._attributes.capture(),
            "before": self._before,
            "digest": None if self._before is None else digest(self._last),
        }

    def _restore(self, position: Position) -> tuple[Finding, ...]:
        if self._within_epoch:
            with drawing.unchanged():  # it may open what is needed; what it drew then is in the state
                self._epoch_begins()
        self._attributes.restore(position["owner"])
        self._length_of_pass = position["length"]
        self._set_order(position["order"])
        if self._within_epoch and self._length() != self._length_of_pass:
            raise NotFaithful(
                "training cannot go on in the midst of a pass over data of another length",
                found=f"{self._length()} batches",
                expected=f"{self._length_of_pass} batches",
                hint="give fit the same data, or begin a new run",
            )
        return (*self._check_batches(position["batches"]), *self._check_last(position))

    def _check_batches(self, expected: int | None) -> Iterator[Finding]:
        """Between two passes it may have other batches, such as of another size."""
        if self._length() != expected:
            message = f"the data has {self._length()} batches a pass, and had {expected}; training goes on with these"
            yield Finding("data-changed", Severity.WARNING, message, "data")

    def _check_last(self, position: Position) -> tuple[Finding, ...]:
        before, at = position["before"], self._cursor
        if before is None or position["digest"] is None or not at.index or not self._within_epoch:
            return ()  # the hooks at an epoch's end may have changed what batches are made of
        with drawing.unchanged():
            drawing.restore(before["drawing"])
            self._attributes.restore(before["owner"])
            again = digest(self._made(at.index - 1))
        self._attributes.restore(before["owner"])
        self._attributes.restore(position["owner"])
        return changed(position["digest"], again, f"batch {at.index} of pass {at.passes + 1}")

    # --- batches

    def _fetch(self) -> Batch:
        at = self._cursor
        if at.index == 0:
            self._length_of_pass = self._begin_pass()
        if at.index == self._length_of_pass:
            raise StopIteration
        if self._workers:
            batch = self._from_workers(at.index)
        else:
            self._before = {"drawing": drawing.capture(), "owner": self._attributes.moving()}
            batch = self._last = self._made(at.index)
        self._cursor = Cursor(at.passes, at.index + 1)
        return batch

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Inside, making batches leaves no trace."""
        kept = self._attributes.moving()
        with drawing.unchanged():
            yield
        self._attributes.restore(kept)

    def _peek(self) -> Batch:
        return self._samples()[0]
