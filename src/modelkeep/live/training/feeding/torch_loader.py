"""``torch.utils.data.DataLoader`` over a map-style dataset: its own sampler's order, drawn once for each pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from modelkeep.errors import UsageError
from modelkeep.live.training.feeding import drawing
from modelkeep.live.training.feeding.attributes import Attributes, Kept
from modelkeep.live.training.feeding.feed import Batch
from modelkeep.live.training.feeding.indexed import IndexedFeed


class TorchLoaderFeed(IndexedFeed):
    """A map-style ``DataLoader``. Its sampler is asked for the whole order of a pass at once.

    Of the order nothing is kept but the random states (the loader's generator, the samplers', the global ones) before
    it was drawn; it is drawn again under these.
    """

    kind: ClassVar[str] = "DataLoader"

    def __init__(self, loader: Any, *, steps_per_epoch: int | None) -> None:
        super().__init__(loader.dataset, workers=loader.num_workers > 0, steps_per_epoch=steps_per_epoch)
        self._loader = loader
        samplers = [loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]
        self._drawn_from = [Attributes(one) for one in (loader, *samplers) if one is not None]
        self._under: Kept | None = None
        self._order: list[Any] = []  # of a pass: what the sampler gave for each batch
        self._ahead: Iterator[Any] | None = None

    def _begin_pass(self) -> int:
        self._stop_workers()
        self._under = {"drawing": drawing.capture(), "samplers": [one.capture() for one in self._drawn_from]}
        self._order = list(self._index_sampler)
        return len(self._order)

    @property
    def _index_sampler(self) -> Any:
        return self._loader.sampler if self._loader.batch_sampler is None else self._loader.batch_sampler

    def _order_state(self) -> Any:
        return {"under": self._under, "samplers": [one.capture() for one in self._drawn_from]}

    def _set_order(self, kept: Any) -> None:
        self._under = kept["under"]
        if self._under is not None:
            with drawing.unchanged():
                drawing.restore(self._under["drawing"])
                self._set_samplers(self._under["samplers"])
                self._order = list(self._index_sampler)
        self._set_samplers(kept["samplers"])

    def _set_samplers(self, kept: list[Kept]) -> None:
        for one, value in zip(self._drawn_from, kept, strict=True):
            one.restore(value)

    def _made(self, index: int) -> Batch:
        return self._collated(self._order[index])

    def _collated(self, indices: Any) -> Batch:
        dataset, collate = self._loader.dataset, self._loader.collate_fn
        if self._loader.batch_sampler is None:
            return _as_tuple(collate(dataset[indices]))
        many = getattr(dataset, "__getitems__", None)
        return _as_tuple(collate(many(indices) if many else [dataset[index] for index in indices]))

    def _from_workers(self, index: int) -> Batch:
        if self._ahead is None:
            self._ahead = iter(self._loader_of(self._order[index:]))
        return _as_tuple(next(self._ahead))

    def _loader_of(self, order: list[Any]) -> Any:
        import torch

        loader = self._loader
        sampled = (
            {"batch_sampler": order} if loader.batch_sampler is not None else {"sampler": order, "batch_size": None}
        )
        return torch.utils.data.DataLoader(
            loader.dataset,
            **sampled,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
        )

    def _stop_workers(self) -> None:
        self._ahead = None

    def _epoch_ends(self) -> None:
        self._stop_workers()

    def _samples(self) -> list[Batch]:
        if len(self._loader) == 0:
            raise UsageError("the DataLoader has no batches", found="a length of 0")
        states = [one.capture() for one in self._drawn_from]
        with self._untouched():
            order = iter(self._index_sampler)
            samples = [self._collated(indices) for indices, _ in zip(order, range(2), strict=False)]
        self._set_samplers(states)
        return samples

    def _length(self) -> int:
        return len(self._loader)

    @property
    def batch_size(self) -> int | None:
        """Samples of a batch; None where a sampler of the user's makes batches."""
        return self._loader.batch_size  # type: ignore[no-any-return]


def _as_tuple(batch: Any) -> Batch:
    # Torch's own collating makes lists.
    return tuple(batch) if isinstance(batch, list) else batch
