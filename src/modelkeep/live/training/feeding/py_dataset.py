"""``keras.utils.PyDataset``: batches by index, in an order that is drawn once for each pass."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
import numpy as np

from modelkeep.errors import UsageError
from modelkeep.live import internals
from modelkeep.live.arrays import Array
from modelkeep.live.training.feeding.feed import Batch
from modelkeep.live.training.feeding.indexed import IndexedFeed


class PyDatasetFeed(IndexedFeed):
    """A ``keras.utils.PyDataset``, its hooks and, where it has some, its workers."""

    kind: ClassVar[str] = "PyDataset"

    def __init__(
        self, dataset: keras.utils.PyDataset, *, shuffle: bool, class_weight: Any, steps_per_epoch: int | None
    ) -> None:
        workers = dataset.workers > 1 or (dataset.workers > 0 and dataset.use_multiprocessing)
        super().__init__(dataset, workers=bool(workers), steps_per_epoch=steps_per_epoch)
        self._dataset = dataset
        self._shuffle = shuffle and dataset.num_batches is not None
        self._class_weight = class_weight
        self._order: Array | None = None  # int64; None where batches come in their own order
        self._enqueuer: Any = None
        self._enqueued: Iterator[Any] = iter(())

    def _begin_pass(self) -> int | None:
        length: int | None = self._dataset.num_batches
        self._order = None
        if self._shuffle and length is not None:
            indices = list(range(length))
            random.shuffle(indices)  # as Keras does, from Python's own generator
            self._order = np.array(indices, dtype=np.int64)
        return length

    def _order_state(self) -> Array | None:
        return self._order

    def _set_order(self, kept: Array | None) -> None:
        self._order = kept

    def _made(self, index: int) -> Batch:
        return self._standardized(self._dataset[index if self._order is None else int(self._order[index])])

    def _from_workers(self, index: int) -> Batch:
        if self._enqueuer is None:
            self._enqueuer = internals.workers(_Rest(self._dataset, self._order, index, self._length_of_pass))
            self._enqueuer.start()
            self._enqueued = self._enqueuer.get()
        batch = self._standardized(next(self._enqueued))
        if index + 1 == self._length_of_pass:
            self._stop_workers()
        return batch

    def _stop_workers(self) -> None:
        """What was made ahead is dropped."""
        if self._enqueuer is not None:
            self._enqueuer.stop()
            self._enqueuer = None

    def _samples(self) -> list[Batch]:
        length = self._dataset.num_batches
        if length == 0:
            raise UsageError("the PyDataset has no batches", found="a length of 0")
        with self._untouched():
            return [self._standardized(self._dataset[index]) for index in range(min(2, length or 2))]

    def _standardized(self, batch: Any) -> Batch:
        return internals.standard_batch(batch, self._class_weight)

    def _epoch_begins(self) -> None:
        self._dataset.on_epoch_begin()

    def _epoch_ends(self) -> None:
        self._stop_workers()
        self._dataset.on_epoch_end()

    def _length(self) -> int | None:
        return self._dataset.num_batches  # type: ignore[no-any-return]


class _Rest(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of a pass that are still to come, in their order: what workers are given."""

    def __init__(self, dataset: Any, order: Array | None, start: int, length: int | None) -> None:
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self._dataset, self._order, self._start, self._length = dataset, order, start, length

    def __getitem__(self, index: int) -> Any:
        index += self._start
        return self._dataset[index if self._order is None else int(self._order[index])]

    @property
    def num_batches(self) -> int | None:
        return None if self._length is None else self._length - self._start
