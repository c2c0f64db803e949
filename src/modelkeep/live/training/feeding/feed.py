"""A training's data with a position that can be kept and gone back to: what ``fit`` is given as ``x``.

Keras asks its data adapter for a new iterator at each epoch, keeps one over epochs where ``steps_per_epoch`` is
given, makes some it never uses, and looks at a batch before training begins. So iterators are views: all of them go
on from the feed's own cursor, and what is looked at before training leaves no trace.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import keras
import numpy as np
from blake3 import blake3

from modelkeep.errors import NotFaithful
from modelkeep.live import internals
from modelkeep.report import Finding, Severity

Batch: TypeAlias = Any
"""``x``, ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``; each nested as the model takes it."""

Position: TypeAlias = dict[str, Any]
"""Plain values and arrays, as ``state.pack`` takes them."""

_ENDLESS = sys.maxsize


@dataclass(frozen=True, order=True)
class Cursor:
    """How many passes over the data are done, and how many batches of the next one were fetched."""

    passes: int = 0
    index: int = 0


class Feed(internals.DataAdapter):  # type: ignore[misc]
    """Batches for ``fit``, one pass over the data after the other, from wherever it was told to go on."""

    kind: ClassVar[str]

    def __init__(self, *, steps_per_epoch: int | None = None) -> None:
        self.findings: tuple[Finding, ...] = ()  # what cannot be restored; to be said when training begins
        self.placeholders = 0  # under PyTorch: how many fetches of the resumed epoch get no data
        self._steps_per_epoch = steps_per_epoch
        self._cursor = Cursor()
        self._epoch_began_at = Cursor()
        self._training = False
        self._within_epoch = False

    # --- where it stands

    def position(self) -> Position:
        """Where the feed stands after the last batch that was fetched."""
        at, began = self._cursor, self._epoch_began_at
        return {
            "kind": self.kind,
            "at": [at.passes, at.index],
            "epoch_began_at": [began.passes, began.index],
            "within_epoch": self._within_epoch,
            **self._state(),
        }

    def go_to(self, position: Position) -> tuple[Finding, ...]:
        """Stand where ``position`` was taken: the next batch fetched is the one that would have come. Before ``fit``.

        What differs from then is a finding. NotFaithful where the data is of another kind, or cut into other batches
        in the midst of a pass.
        """
        if position["kind"] != self.kind:
            raise NotFaithful(
                "this run was trained with data of another kind",
                found=self.kind,
                expected=position["kind"],
                hint="give fit the data that the run began with, or begin a new run",
            )
        self._cursor = Cursor(*position["at"])
        self._epoch_began_at = Cursor(*position["epoch_began_at"])
        self._within_epoch = position["within_epoch"]
        return self._restore(position)

    def around(self, iterator: Any, steps: int = 1) -> None:
        """``train_function`` is about to take ``steps`` batches (``steps_per_execution``) out of ``iterator``.

        Before each call: TensorFlow takes batches in its graph, where nobody else counts them.
        """

    @abstractmethod
    def _state(self) -> Position:
        """What the position holds beside the cursor."""

    @abstractmethod
    def _restore(self, position: Position) -> tuple[Finding, ...]:
        """Take what :meth:`_state` gave; the cursor is set already."""

    def _epoch_begins(self) -> None:
        """The user's own hook, once for each epoch."""

    def _epoch_ends(self) -> None:
        """The user's own hook, once for each epoch."""

    # --- what Keras asks for

    def on_epoch_begin(self) -> None:
        """Keras begins an epoch, or looks at a batch before the first."""
        if self._training and not self._within_epoch:
            self._within_epoch = True
            self._epoch_began_at = self._cursor
            self._epoch_begins()

    def on_epoch_end(self) -> None:
        """Keras ends an epoch; or, the first time, is about to begin training."""
        if not self._training:
            self._training = True
        elif self._within_epoch:
            self._within_epoch = False
            self._epoch_ends()

    @property
    def num_batches(self) -> int | None:
        """Batches of a pass; None where it is not known.

        Where it is not known and ``steps_per_epoch`` is given, Keras would take it from what it has seen of the
        first pass to end, which is less in a resumed training; a number beyond reach keeps it from that.
        """
        length = self._length()
        return _ENDLESS if length is None and self._steps_per_epoch else length

    def _length(self) -> int | None:
        return None

    @property
    def batch_size(self) -> int | None:
        """Samples of a batch; None where it is not known."""
        return None

    @property
    def has_partial_batch(self) -> bool | None:
        """Whether the last batch of a pass is smaller; None where it is not known."""
        return None

    @property
    def partial_batch_size(self) -> int | None:
        """Samples of that batch."""
        return None


class FetchedFeed(Feed):
    """A feed that makes each batch when it is asked for it, and none ahead.

    An iterator ends where a pass ends, as Keras' own do; one asked for more when an epoch has just begun goes on
    with the next pass. So a training that is resumed in the midst of a pass sees the same ends as one that was not.
    """

    @abstractmethod
    def _fetch(self) -> Batch:
        """The batch at the cursor, which moves on afterwards. StopIteration where the pass has no more."""

    @abstractmethod
    def _peek(self) -> Batch:
        """The batch at the cursor, without a trace: nothing drawn, nothing moved."""

    def _samples(self) -> list[Batch]:
        """One or two batches that show what changes between batches, without a trace."""
        return [self._peek()]

    def get_numpy_iterator(self) -> Iterator[Batch]:
        """Batches of NumPy arrays."""
        return internals.as_numpy(self._batches())

    def get_jax_iterator(self) -> Iterator[Batch]:
        """Batches of what JAX takes."""
        return internals.as_jax(self._batches())

    def get_torch_dataloader(self) -> Iterator[Batch]:
        """Batches of torch tensors. No ``DataLoader``: making an iterator of one draws a random number."""
        return map(internals.as_torch, self._after_placeholders(self._batches()))

    def get_tf_dataset(self) -> Any:
        """A dataset that fetches each batch when it is asked for, and none ahead."""
        import tensorflow as tf

        spec = internals.tensorflow_spec([_as_tuples(batch) for batch in self._samples()])
        dataset = tf.data.Dataset.from_generator(
            lambda: (internals.as_tensorflow(_as_tuples(batch)) for batch in self._batches()),
            output_signature=spec,
        )
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False  # one of them fetches ahead
        options.autotune.enabled = False
        return dataset.with_options(options)

    def _batches(self) -> Iterator[Batch]:
        """One iterator as Keras asks for them."""
        while True:
            if not self._training:
                yield self._peek()
            else:
                try:
                    batch = self._fetch()
                except StopIteration:
                    if not self._next_pass():
                        return
                else:
                    yield batch

    def _after_placeholders(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Nothing for the steps that are done: under PyTorch Keras fetches, whether or not a step is skipped."""
        while self._training and self.placeholders:
            self.placeholders -= 1
            yield None
        yield from batches

    def _next_pass(self) -> bool:
        """Whether the data goes on with another pass now that one has ended."""
        if self._cursor != self._epoch_began_at or not self._cursor.index:
            return False  # the epoch ends with the pass; or the pass was empty, and so are all
        self._cursor = self._epoch_began_at = Cursor(self._cursor.passes + 1)
        return True


def digest(batch: Batch) -> str | None:
    """BLAKE3 of a batch's dtypes, shapes and bytes; None where it holds what has no bytes of its own."""
    hashed = blake3()
    for leaf in keras.tree.flatten(batch):
        if leaf is None:
            continue
        array = np.asarray(leaf.cpu() if hasattr(leaf, "cpu") else leaf)
        if array.dtype.hasobject:
            return None
        hashed.update(f"{array.dtype.str}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return f"blake3:{hashed.hexdigest()}"


def changed(expected: str | None, found: str | None, subject: str) -> tuple[Finding, ...]:
    """A finding where the last batch that was trained on is not what it was."""
    if expected is None or expected == found:
        return ()
    message = (
        "the data is not what it was: the last batch that was trained on came out different when it was made again, "
        "so what follows may differ from a training that was never stopped"
    )
    return (Finding("data-changed", Severity.WARNING, message, subject, {"found": found, "expected": expected}),)


def _as_tuples(batch: Batch) -> Batch:
    # tf.data would stack a list of arrays to one.
    return keras.tree.lists_to_tuples(batch)
