"""``keras.utils.PyDataset``: batches by index, in an order that is drawn once for each pass."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import keras
import numpy as np

from modelkeep.errors import NotFaithful, UsageError
from modelkeep.live import internals
from modelkeep.live.arrays import Array
from modelkeep.live.training.feeding import drawing
from modelkeep.live.training.feeding.attributes import Attributes, Kept
from modelkeep.live.training.feeding.feed import Batch, Cursor, Feed, Position, changed, digest
from modelkeep.report import Finding, Severity


class PyDatasetFeed(Feed):
    """A ``keras.utils.PyDataset``, with the state it keeps in its attributes and the random numbers it draws."""

    kind: ClassVar[str] = "PyDataset"

    def __init__(
        self, dataset: keras.utils.PyDataset, *, shuffle: bool, class_weight: Any, steps_per_epoch: int | None
    ) -> None:
        super().__init__(steps_per_epoch=steps_per_epoch)
        self._dataset = dataset
        self._shuffle = shuffle and dataset.num_batches is not None
        self._class_weight = class_weight
        self._attributes = Attributes(dataset)
        self._order: Array | None = None  # of the pass that has begun; None where batches come in their own order
        self._length_of_pass = dataset.num_batches
        self._last: Batch = None
        self._before: Kept | None = None  # the random states, and the dataset's, before the last batch was made
        self._workers = _Workers(dataset) if _has_workers(dataset) else None
        if self._workers:
            message = (
                f"{type(dataset).__name__} makes batches ahead, in workers: their order is kept, the random numbers "
                "that workers draw are not; workers=1 without use_multiprocessing makes them exact"
            )
            self.findings = (Finding("data-not-exact", Severity.WARNING, message, type(dataset).__name__),)

    # --- position

    def _state(self) -> Position:
        return {
            "length": self._length_of_pass,
            "order": self._order,
            "dataset": self._attributes.capture(),
            "before": self._before,
            "digest": None if self._before is None else digest(self._last),
        }

    def _restore(self, position: Position) -> tuple[Finding, ...]:
        at = self._cursor
        if self._within_epoch:
            with drawing.unchanged():  # it may open what is needed; what it drew then is in the state
                self._dataset.on_epoch_begin()
        self._attributes.restore(position["dataset"])
        self._order, self._length_of_pass = position["order"], position["length"]
        length = self._dataset.num_batches
        if length != self._length_of_pass and self._within_epoch:
            raise NotFaithful(
                "training cannot go on in the midst of a pass over data that has another length",
                found=f"{length} batches",
                expected=f"{self._length_of_pass} batches",
                hint="give fit the same data, or begin a new run",
            )
        before = position["before"]
        if before is None or not at.index or position["digest"] is None:
            return ()
        with drawing.unchanged():
            drawing.restore(before["drawing"])
            self._attributes.restore(before["dataset"])
            again = digest(self._made(at.index - 1))
            self._attributes.restore(before["dataset"])
            self._attributes.restore(position["dataset"])
        return changed(position["digest"], again, f"batch {at.index} of pass {at.passes + 1}")

    # --- batches

    def _fetch(self) -> Batch:
        at = self._cursor
        if at.index == 0:
            self._begin_pass()
        if at.index == self._length_of_pass:
            raise StopIteration
        if self._workers:
            batch = self._standardized(self._workers.next(self._order, at.index, self._length_of_pass))
        else:
            self._before = {"drawing": drawing.capture(), "dataset": self._attributes.moving()}
            batch = self._last = self._made(at.index)
        self._cursor = Cursor(at.passes, at.index + 1)
        return batch

    def _begin_pass(self) -> None:
        self._length_of_pass = self._dataset.num_batches
        self._order = None
        if self._shuffle:
            indices = list(range(self._length_of_pass))
            random.shuffle(indices)  # as Keras does, from Python's own generator
            self._order = np.array(indices, dtype=np.int64)

    def _made(self, index: int) -> Batch:
        return self._standardized(self._dataset[index if self._order is None else int(self._order[index])])

    def _peek(self) -> Batch:
        return self._samples()[0]

    def _samples(self) -> list[Batch]:
        length = self._dataset.num_batches
        if length == 0:
            raise UsageError("the PyDataset has no batches", found="a length of 0")
        with self._untouched():
            return [self._standardized(self._dataset[index]) for index in range(min(2, length or 2))]

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        kept = {} if self._workers else self._attributes.moving()
        with drawing.unchanged():
            yield
        self._attributes.restore(kept)

    def _standardized(self, batch: Any) -> Batch:
        return internals.standard_batch(batch, self._class_weight)

    # --- what Keras asks for

    def _epoch_begins(self) -> None:
        self._dataset.on_epoch_begin()

    def _epoch_ends(self) -> None:
        if self._workers:
            self._workers.stop()
        self._dataset.on_epoch_end()

    def _length(self) -> int | None:
        return self._dataset.num_batches  # type: ignore[no-any-return]


def _has_workers(dataset: Any) -> bool:
    return bool(dataset.workers > 1 or (dataset.workers > 0 and dataset.use_multiprocessing))


class _Rest(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of a pass that are still to come, in their order."""

    def __init__(self, dataset: Any, order: Array | None, start: int, length: int | None) -> None:
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self._dataset, self._order, self._start, self._length = dataset, order, start, length

    def __getitem__(self, index: int) -> Any:
        index += self._start
        return self._dataset[index if self._order is None else int(self._order[index])]

    @property
    def num_batches(self) -> int | None:
        return None if self._length is None else self._length - self._start


class _Workers:
    """Keras' own workers over what is left of a pass; begun anew wherever somebody goes on."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._enqueuer: Any = None
        self._batches: Iterator[Any] = itertools.repeat(None)

    def next(self, order: Array | None, index: int, length: int | None) -> Any:
        if self._enqueuer is None:
            self._enqueuer = internals.workers(_Rest(self._dataset, order, index, length))
            self._enqueuer.start()
            self._batches = self._enqueuer.get()
        batch = next(self._batches)
        if index + 1 == length:
            self.stop()
        return batch

    def stop(self) -> None:
        """What was made ahead is dropped."""
        if self._enqueuer is not None:
            self._enqueuer.stop()
            self._enqueuer = None
