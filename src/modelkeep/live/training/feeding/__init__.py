"""Data for ``fit`` whose position can be kept in a checkpoint and gone back to: one module a kind."""

from __future__ import annotations

from typing import Any, Literal

import keras

from modelkeep.errors import UsageError
from modelkeep.live import internals
from modelkeep.live.training.feeding.arrays import ArrayFeed
from modelkeep.live.training.feeding.feed import Cursor, Feed, Position
from modelkeep.live.training.feeding.py_dataset import PyDatasetFeed

__all__ = ["Cursor", "Feed", "Position", "feed"]


def feed(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    shuffle: bool | Literal["batch"] = True,
    class_weight: Any = None,
    steps_per_epoch: int | None = None,
    seed: int,
    fast_forward: bool = False,
) -> Feed:
    """The feed of whatever ``fit`` takes as data, with ``fit``'s own arguments.

    ``seed``, from 0 to 2**64 - 1, decides the order of arrays; ``fast_forward`` lets data whose position cannot be
    restored consume and throw away what was trained on. Raises UsageError where ``fit`` could not train on it.
    """
    if isinstance(x, keras.utils.PyDataset):
        _alone(x, y, sample_weight)
        return PyDatasetFeed(x, shuffle=bool(shuffle), class_weight=class_weight, steps_per_epoch=steps_per_epoch)
    arrays = internals.array_adapter(
        x, y, sample_weight, batch_size=batch_size, steps=steps_per_epoch, class_weight=class_weight
    )
    if arrays is not None:
        return ArrayFeed(arrays, shuffle=shuffle, seed=seed, steps_per_epoch=steps_per_epoch)
    raise UsageError("fit cannot train on this", found=f"x of type {type(x).__name__}")


def _alone(x: Any, y: Any, sample_weight: Any) -> None:
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise UsageError(f"{name} is part of what a {type(x).__name__} gives, and not given beside it")
