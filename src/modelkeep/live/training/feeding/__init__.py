"""Data for ``fit`` whose position can be kept in a checkpoint and gone back to: one module a kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import keras

from modelkeep.errors import CannotLoad, UsageError
from modelkeep.live import internals
from modelkeep.live.training.feeding.arrays import ArrayFeed
from modelkeep.live.training.feeding.attributes import methods
from modelkeep.live.training.feeding.feed import Cursor, Feed, Position
from modelkeep.live.training.feeding.iterators import IteratorFeed
from modelkeep.live.training.feeding.py_dataset import PyDatasetFeed
from modelkeep.live.training.feeding.tf_dataset import dataset_feed
from modelkeep.live.training.feeding.torch_loader import TorchLoaderFeed

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
    if not internals.takes_adapters():
        raise CannotLoad(
            "fit of this Keras takes no data that modelkeep could go on with",
            found=f"keras {keras.__version__}",
            expected="keras 3.7 or later",
            hint="pip install --upgrade keras",
        )
    arrays = internals.array_adapter(
        x, y, sample_weight, batch_size=batch_size, steps=steps_per_epoch, class_weight=class_weight
    )
    if arrays is not None:
        return ArrayFeed(arrays, shuffle=shuffle, seed=seed, steps_per_epoch=steps_per_epoch)
    _check_alone(x, y=y, sample_weight=sample_weight)
    if internals.is_tensorflow_dataset(x):
        return dataset_feed(x, class_weight=class_weight, steps_per_epoch=steps_per_epoch, fast_forward=fast_forward)
    if isinstance(x, keras.utils.PyDataset):
        return PyDatasetFeed(x, shuffle=bool(shuffle), class_weight=class_weight, steps_per_epoch=steps_per_epoch)
    _check_alone(x, class_weight=class_weight)
    if internals.is_torch_loader(x) and _is_indexed(x):
        return TorchLoaderFeed(x, steps_per_epoch=steps_per_epoch)
    if isinstance(x, Iterable):
        return IteratorFeed(x, steps_per_epoch=steps_per_epoch, fast_forward=fast_forward)
    raise UsageError("fit cannot train on this", found=f"x of type {type(x).__name__}")


def _is_indexed(loader: Any) -> bool:
    """Whether a DataLoader's dataset is asked by index, and it keeps no state of its own."""
    import torch

    return not isinstance(loader.dataset, torch.utils.data.IterableDataset) and methods(loader) is None


def _check_alone(x: Any, **beside: Any) -> None:
    for name, value in beside.items():
        if value is not None:
            raise UsageError(
                f"{name} is given beside data that has its own",
                found=f"x of type {type(x).__name__}",
                hint=f"let it give {name} with each batch: (x, y, sample_weight)",
            )
