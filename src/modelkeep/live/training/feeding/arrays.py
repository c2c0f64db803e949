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
        self._in_graph = False  # whether TensorFlow takes the batches, where nobody counts them
        self._from = Cursor()  # where the step under way takes its first batch, under TensorFlow

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

    def _state(self) -> Position:
        at = self._cursor
        return {
            "seed": self._seed,
            "samples": self._samples_total,
            "batch_size": self._adapter.batch_size,
            "shuffle": self._shuffle,
            "digest": digest(self._at(at.passes, at.index - 1)) if at.index else None,
        }

    def _restore(self, position: Position) -> tuple[Finding, ...]:
        self._seed = position["seed"]
        self._order, self._from = None, self._cursor
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
            self._cursor = self._from = Cursor(at.passes + 1)
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
        """A pipeline in TensorFlow's graph. It gathers ahead within a pass: the order is known, nothing is drawn."""
        import tensorflow as tf

        self._in_graph = True
        with tf.device("CPU:0"):  # outside of the graph, which would hold them as constants
            tensors = keras.tree.map_structure(
                lambda array: tf.convert_to_tensor(array) if isinstance(array, np.ndarray) else array,
                keras.tree.lists_to_tuples(internals.sliceable(self._arrays, "tensorflow")),
            )
        size, rest = self._adapter.batch_size, self._adapter.partial_batch_size or 0

        def batches(order: Any) -> Any:
            whole = tf.size(order) // size * size
            indices = tf.data.Dataset.from_tensor_slices(tf.reshape(order[:whole], [-1, size]))
            if rest:
                indices = indices.concatenate(tf.data.Dataset.from_tensors(tf.ensure_shape(order[whole:], [rest])))
            gathered = indices.map(
                lambda rows: internals.gather_tensorflow(tensors, rows), num_parallel_calls=tf.data.AUTOTUNE
            )
            return gathered.prefetch(tf.data.AUTOTUNE)

        passes = tf.data.Dataset.from_generator(self._passes, output_signature=tf.TensorSpec([None], tf.int64))
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = (
            False  # rewriting the graph costs more than it gives
        )
        options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        return passes.flat_map(batches).with_options(options)

    def around(self, iterator: Any, steps: int = 1) -> None:
        """TensorFlow takes up to ``steps`` batches from here on, none of them beyond the pass."""
        if not self._in_graph:
            return
        if self._cursor.index == self._length():
            self._next_pass()
        self._from = self._cursor
        self._cursor = Cursor(self._from.passes, min(self._from.index + steps, self._length()))

    def _passes(self) -> Iterator[Array]:
        """What is left of the pass; then, each time a step begins with another pass, all of that."""
        at = self._from if self._from.index < self._length() else Cursor(self._from.passes + 1)
        while True:
            yield self.order(at.passes)[at.index * self._adapter.batch_size :]
            if self._from.passes == at.passes:
                return
            at = self._from

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
