"""Arrays: ``fit``'s own shuffling, with an order that follows from a seed and the number of the pass alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from modelkeep.errors import NotFaithful
from modelkeep.live import internals
from modelkeep.live.arrays import Array
from modelkeep.live.training.feeding.feed import Batch, Cursor, FetchedFeed, Position, changed, digest
from modelkeep.report import Finding, Severity


class ArrayFeed(FetchedFeed):
    """Arrays, tensors and data frames, nested as ``fit`` takes them.

    The order of a pass is NumPy's Philox generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
    2011) keyed by seed and pass, so it can be had again without the passes before it.
    """

    kind: ClassVar[str] = "arrays"

    def __init__(
        self, adapter: Any, *, shuffle: bool | Literal["batch"], seed: int, steps_per_epoch: int | None = None
    ) -> None:
        super().__init__(steps_per_epoch=steps_per_epoch)
        self._adapter = adapter
        self._arrays = internals.packed_arrays(adapter)
        self._rows = _Rows(self._arrays)
        self._samples_total = next(
            len_ for len_ in map(_length_of, keras.tree.flatten(self._arrays)) if len_ is not None
        )
        self._shuffle = shuffle
        self._seed = seed
        self._order: tuple[int, Array] | None = None
        self._counter: Any = None

    def order(self, number: int) -> Array:
        """The samples of a pass in the order they come in, int64, shape ``(samples,)``."""
        if self._order is None or self._order[0] != number:
            self._order = number, self._drawn(number)
        return self._order[1]

    def _drawn(self, number: int) -> Array:
        samples = np.arange(self._samples_total)
        if not self._shuffle:
            return samples
        generator = np.random.Generator(np.random.Philox(key=[self._seed, number]))
        if self._shuffle == "batch":
            size = self._adapter.batch_size
            for start in range(0, self._samples_total, size):
                generator.shuffle(samples[start : start + size])
            return samples
        return generator.permutation(self._samples_total)

    # --- position

    @property
    def cursor(self) -> Cursor:
        """How far the data has been fetched; TensorFlow's pipeline counts by itself."""
        if self._counter is not None and self._training:
            self._cursor = Cursor(self._cursor.passes, int(self._counter.numpy()))
        return self._cursor

    def _state(self) -> Position:
        at = self.cursor
        return {
            "seed": self._seed,
            "samples": self._samples_total,
            "batch_size": self._adapter.batch_size,
            "shuffle": self._shuffle,
            "digest": digest(self._at(at.passes, at.index - 1)) if at.index else None,
        }

    def _restore(self, position: Position) -> tuple[Finding, ...]:
        self._seed = position["seed"]
        self._order = None
        self._recount()
        names = ("samples", "batch_size", "shuffle")
        now = {**self._state(), "digest": None}
        other = {name: (now[name], position[name]) for name in names if now[name] != position[name]}
        at = self._cursor
        if not other:
            last = digest(self._at(at.passes, at.index - 1)) if at.index else None
            return changed(position["digest"], last, f"batch {at.index} of pass {at.passes + 1}")
        found = ", ".join(f"{name} {found}" for name, (found, _) in other.items())
        expected = ", ".join(f"{name} {expected}" for name, (_, expected) in other.items())
        ended = -(-position["samples"] // position["batch_size"])
        if 0 < at.index < ended:
            raise NotFaithful(
                "training cannot go on in the midst of a pass over data that is cut into other batches",
                found=found,
                expected=expected,
                hint="give fit the same arrays and batch_size, or begin a new run",
            )
        if at.index:
            self._cursor = Cursor(at.passes + 1)
            self._recount()
        message = (
            f"the data is not what it was: found {found}, expected {expected}; training goes on with what it is now"
        )
        return (Finding("data-changed", Severity.WARNING, message, "arrays"),)

    def _at(self, number: int, index: int) -> Batch:
        return self._rows.take(self._indices(number, index), "numpy")

    def _indices(self, number: int, index: int) -> Array:
        size = self._adapter.batch_size
        return self.order(number)[index * size : (index + 1) * size]

    # --- batches

    def _batches_of(self, backend: str) -> Iterator[Batch]:
        for indices in self._batches():
            yield self._rows.take(indices, backend)

    def _fetch(self) -> Array:
        at = self._cursor
        if at.index == self._adapter.num_batches:
            raise StopIteration
        self._cursor = Cursor(at.passes, at.index + 1)
        return self._indices(at.passes, at.index)

    def _peek(self) -> Array:
        at = self._cursor
        return self._indices(at.passes, at.index if at.index < self._adapter.num_batches else 0)

    def get_numpy_iterator(self) -> Iterator[Batch]:
        """Batches of NumPy arrays."""
        return self._batches_of("numpy")

    def get_jax_iterator(self) -> Iterator[Batch]:
        """Batches of what JAX takes."""
        return self._batches_of("jax")

    def get_torch_dataloader(self) -> Iterator[Batch]:
        """Batches of torch tensors."""
        return map(internals.as_torch, self._after_placeholders(self._batches_of("torch")))

    def get_tf_dataset(self) -> Any:
        """A pipeline in TensorFlow's graph. It may gather ahead within a pass: the order is known, nothing is drawn.

        What was fetched is counted where the batches leave it.
        """
        import tensorflow as tf

        tensors = keras.tree.lists_to_tuples(internals.sliceable(self._arrays, "tensorflow"))
        size, rest = self._adapter.batch_size, self._adapter.partial_batch_size or 0
        with tf.device("CPU:0"):
            counter = self._counter = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._recount()

        def batches(order: Any) -> Any:
            whole = tf.size(order) // size * size
            indices = tf.data.Dataset.from_tensor_slices(tf.reshape(order[:whole], [-1, size]))
            if rest:
                indices = indices.concatenate(tf.data.Dataset.from_tensors(tf.ensure_shape(order[whole:], [rest])))
            gathered = indices.map(
                lambda rows: internals.gather_tensorflow(tensors, rows), num_parallel_calls=tf.data.AUTOTUNE
            )
            return gathered.prefetch(tf.data.AUTOTUNE)

        def count(*batch: Any) -> Any:
            with tf.control_dependencies([counter.assign_add(1)]):
                batch = tf.nest.map_structure(tf.identity, batch, expand_composites=True)
            return batch if len(batch) > 1 or isinstance(tensors, tuple) else batch[0]

        passes = tf.data.Dataset.from_generator(self._passes, output_signature=tf.TensorSpec([None], tf.int64))
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = (
            False  # rewriting the graph costs more than it gives
        )
        options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        return passes.flat_map(batches).map(count).with_options(options)

    def _passes(self) -> Iterator[Array]:
        """What is left of the pass at the cursor, then the next where an epoch begins with it."""
        while True:
            at = self.cursor
            if at.index < self._adapter.num_batches:
                yield self.order(at.passes)[at.index * self._adapter.batch_size :]
            elif not self._next_pass():
                return

    def _next_pass(self) -> bool:
        goes_on = super()._next_pass()
        self._recount()
        return goes_on

    def _recount(self) -> None:
        if self._counter is not None:
            self._counter.assign(self._cursor.index)

    def on_epoch_end(self) -> None:
        """Keras ends an epoch; or is about to begin training, and may have looked at a batch."""
        if not self._training:
            self._recount()
        super().on_epoch_end()

    def _length(self) -> int:
        return int(self._adapter.num_batches)

    @property
    def batch_size(self) -> int:
        """Samples of a batch."""
        return int(self._adapter.batch_size)

    @property
    def has_partial_batch(self) -> bool:
        """Whether the last batch of a pass is smaller."""
        return bool(self._adapter.has_partial_batch)

    @property
    def partial_batch_size(self) -> int | None:
        """Samples of that batch; None where all are alike."""
        return self._adapter.partial_batch_size  # type: ignore[no-any-return]


class _Rows:
    """Rows of nested arrays, as any backend takes them."""

    def __init__(self, arrays: Any) -> None:
        self._arrays = arrays
        self._sliceable: dict[str, Any] = {}

    def take(self, indices: Array, backend: str) -> Batch:
        if backend not in self._sliceable:
            self._sliceable[backend] = internals.sliceable(self._arrays, backend)
        convert = {
            "numpy": "convert_to_numpy",
            "jax": "convert_to_jax_compatible",
            "torch": "convert_to_torch_compatible",
        }[backend]
        return keras.tree.map_structure(
            lambda one: None if one is None else getattr(one, convert)(one[indices]), self._sliceable[backend]
        )


def _length_of(array: Any) -> int | None:
    return None if array is None else int(array.shape[0])
