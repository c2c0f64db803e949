"""``tf.data``: a dataset's own iterators, kept as TensorFlow itself checkpoints them.

Under TensorFlow ``fit`` is given the dataset with one thing changed: which iterators it gives. Keras makes some that
it never uses, and each would shuffle anew; here it gets the same one again until that has been used.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
import numpy as np

from modelkeep.live import internals
from modelkeep.live.arrays import Array
from modelkeep.live.training.feeding.feed import Cursor, Feed, Position
from modelkeep.live.training.feeding.iterators import IteratorFeed, passed_by
from modelkeep.report import Finding, Severity

_NOT_KEPT = frozenset({"GeneratorDataset"})
"""Operations that TensorFlow cannot checkpoint."""

_DRAWING = frozenset({"PyFunc", "EagerPyFunc", "PyFuncStateless"})
"""Operations that run Python, which may have a state that TensorFlow does not know."""


def dataset_feed(dataset: Any, *, class_weight: Any, steps_per_epoch: int | None, fast_forward: bool) -> Feed:
    """The feed of a ``tf.data.Dataset``: TensorFlow's own loop over it, or an iterator under JAX and PyTorch."""
    dataset = internals.tensorflow_dataset(dataset, class_weight)
    if keras.backend.backend() == "tensorflow":
        return DatasetFeed(dataset, steps_per_epoch=steps_per_epoch, fast_forward=fast_forward)
    return _IteratedDataset(dataset, steps_per_epoch=steps_per_epoch, fast_forward=fast_forward)


def save(iterator: Any) -> Array:
    """Where an iterator stands, buffers of shuffles and prefetches included: bytes as uint8, shape ``(bytes,)``.

    Raises TensorFlow's UnimplementedError for what it cannot checkpoint.
    """
    import tensorflow as tf
    from tensorflow.python.ops import gen_dataset_ops

    # Private, because tf.train.Checkpoint refuses every dataset that runs Python or draws random numbers, and goes by
    # way of files; the operation is the one it uses.
    policy = tf.data.experimental.ExternalStatePolicy.IGNORE.value
    state = gen_dataset_ops.serialize_iterator(iterator._iterator_resource, external_state_policy=policy)
    return np.frombuffer(tf.io.serialize_tensor(state).numpy(), dtype=np.uint8)


def load(iterator: Any, kept: Array) -> None:
    """Let a new iterator of the same dataset stand where :func:`save` was asked."""
    import tensorflow as tf
    from tensorflow.python.ops import gen_dataset_ops

    state = tf.io.parse_tensor(np.asarray(kept).tobytes(), tf.variant)
    gen_dataset_ops.deserialize_iterator(iterator._iterator_resource, state)


def examine(dataset: Any, *, fast_forward: bool) -> tuple[Finding, ...]:
    """What of a dataset's position or random numbers TensorFlow does not keep."""
    operations = {operation.op: operation for one in _inputs(dataset) for operation in _operations(one)}
    name = type(dataset).__name__
    if not _NOT_KEPT.isdisjoint(operations):
        what = "it is gone through again as far as training had come" if fast_forward else "it begins anew"
        message = f"TensorFlow cannot keep the position of from_generator: when training is resumed, {what}"
        return (Finding("data-not-restored", Severity.WARNING, message, name),)
    findings = []
    drawing = sorted(one for one in operations if one in _DRAWING or one.startswith(("Random", "Stateful")))
    if drawing:
        message = (
            f"the position is kept, but not what {', '.join(drawing)} within it draw: use tf.random's stateless "
            "functions, seeded by tf.data.Dataset.random or a counter"
        )
        findings.append(Finding("data-not-exact", Severity.WARNING, message, name))
    if any(_is_unseeded(one) for one in _inputs(dataset)):
        message = (
            "a shuffle without a seed is kept within a pass only, and later passes come in another order when "
            "training is resumed: give shuffle a seed, or call keras.utils.set_random_seed before"
        )
        findings.append(Finding("data-not-exact", Severity.WARNING, message, name))
    return tuple(findings)


def reshuffles(dataset: Any) -> bool:
    """Whether each pass over it comes in an order of its own."""
    return any(getattr(one, "_reshuffle_each_iteration", False) for one in _inputs(dataset))


def _inputs(dataset: Any) -> Iterator[Any]:
    # Private throughout: a dataset has no public account of what it was made of.
    yield dataset
    for one in dataset._inputs():
        yield from _inputs(one)


def _operations(dataset: Any) -> Iterator[Any]:
    for function in dataset._functions():
        graph = function.function.graph.as_graph_def()
        yield from graph.node
        for inner in graph.library.function:
            yield from inner.node_def


def _is_unseeded(dataset: Any) -> bool:
    seeds = [getattr(dataset, name, None) for name in ("_seed", "_seed2")]
    return all(seed is not None and int(seed) == 0 for seed in seeds)


class _Passes:
    """The iterator of the pass and, unused, that of the next one.

    At its end an iterator no longer tells how the shuffles of its dataset go on; one that has not begun does.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.now: Any = None
        self._next: Any = None

    def renew(self) -> Any:
        """Go on to the next pass."""
        self.now = iter(self._dataset) if self._next is None else self._next
        self._next = iter(self._dataset)
        return self.now

    def save(self) -> Position | None:
        return None if self.now is None else {"now": save(self.now), "next": save(self._next)}

    def load(self, kept: Position | None) -> Any:
        if kept is None:
            return None
        self._next = None
        load(self.renew(), kept["now"])
        load(self._next, kept["next"])
        return self.now


class DatasetFeed(Feed):
    """A ``tf.data.Dataset`` under TensorFlow, whose ``train_function`` takes batches out of an iterator by itself.

    Of a dataset that TensorFlow cannot checkpoint the batches are counted.
    """

    kind: ClassVar[str] = "tf.data"

    def __init__(self, dataset: Any, *, steps_per_epoch: int | None, fast_forward: bool) -> None:
        super().__init__(steps_per_epoch=steps_per_epoch)
        self._batches_of_pass = _cardinality(dataset)
        if steps_per_epoch and self._batches_of_pass and self._batches_of_pass % steps_per_epoch == 0:
            # Keras begins a new pass after that many steps, which it would not count over again when resumed.
            dataset, self._batches_of_pass = dataset.repeat(), None
        self._dataset = dataset
        self._fast_forward = fast_forward
        self.findings = examine(dataset, fast_forward=fast_forward)
        self._is_kept = not any(one.check == "data-not-restored" for one in self.findings)
        self._passes = _Passes(dataset)
        self._used = False  # whether a step took from the iterator of this pass
        self._handed_out = True  # whether Keras has seen an iterator that was put back

    # --- position

    def _state(self) -> Position:
        return {"passes": self._passes.save() if self._is_kept else None, "used": self._used}

    def _restore(self, position: Position) -> tuple[Finding, ...]:
        self._used, self._handed_out = position["used"], False
        if self._is_kept:
            self._passes.load(position["passes"])
            return ()
        count = self._cursor.index if self._used else 0
        self._passes.now = iter(self._dataset.skip(count if self._fast_forward else 0))
        if count and self._fast_forward:
            return (passed_by(count, self._dataset),)
        return self.findings if count else ()

    def around(self, iterator: Any, steps: int = 1) -> None:
        """TensorFlow takes batches from the iterator of this pass."""
        self._used = True
        self._cursor = Cursor(self._cursor.passes, self._cursor.index + steps)

    # --- what Keras asks for

    def get_tf_dataset(self) -> Any:
        """The dataset, which gives the iterators that this feed keeps."""
        return _giving(self._dataset, self._next_iterator)

    def get_numpy_iterator(self) -> Iterator[Any]:
        """The form of a batch, for a model that is built by its first one; of the dataset nothing is read."""
        yield keras.tree.map_structure(
            lambda spec: keras.KerasTensor(tuple(spec.shape), spec.dtype.name), self._dataset.element_spec
        )

    def _next_iterator(self) -> Any:
        if self._passes.now is None or (self._used and self._handed_out):
            self._renew()
        self._handed_out = True
        return self._passes.now

    def _renew(self) -> None:
        self._passes.renew()
        self._used = False
        self._cursor = Cursor(self._cursor.passes + 1) if self._cursor.index else self._cursor

    def on_epoch_end(self) -> None:
        """Keras ends an epoch. Where it will ask for a new iterator, that is made now: the position is there."""
        # Within an epoch's last step, Keras handles that the iterator came to its end.
        ran_out = isinstance(sys.exc_info()[1], StopIteration)
        if self._training and self._within_epoch and self._used and (self._steps_per_epoch is None or ran_out):
            self._renew()
        super().on_epoch_end()

    def _length(self) -> int | None:
        return self._batches_of_pass

    @property
    def batch_size(self) -> int | None:
        """Samples of a batch; None where it is not known."""
        return keras.tree.flatten(self._dataset.element_spec)[0].shape[0]  # type: ignore[no-any-return]


def _cardinality(dataset: Any) -> int | None:
    count = int(dataset.cardinality())
    return count if count >= 0 else None


def _giving(dataset: Any, iterator: Any) -> Any:
    """The same dataset, with ``iterator`` in place of its ``__iter__``."""
    import tensorflow as tf

    class Giving(tf.data.Dataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(dataset._variant_tensor)  # private: what a dataset is to TensorFlow's operations

        def _inputs(self) -> list[Any]:
            return [dataset]

        @property
        def element_spec(self) -> Any:
            return dataset.element_spec

        def __iter__(self) -> Any:
            return iterator()

    return Giving()


class _IteratedDataset(IteratorFeed):
    """A ``tf.data.Dataset`` under JAX and PyTorch, whose loops take one batch after the other."""

    kind: ClassVar[str] = "tf.data"

    def __init__(self, dataset: Any, *, steps_per_epoch: int | None, fast_forward: bool) -> None:
        self._found = examine(dataset, fast_forward=fast_forward)
        self._passes = _Passes(dataset)
        super().__init__(
            dataset, steps_per_epoch=steps_per_epoch, fast_forward=fast_forward, length=_cardinality(dataset)
        )
        self.findings = self._found

    def _keeps_state(self) -> bool:
        return not any(one.check == "data-not-restored" for one in self._found)

    def _capture(self) -> Any:
        return self._passes.save() if self._keeps_state() else None

    def _put_back(self, kept: Any) -> None:
        self._iterator = self._passes.load(kept)

    def _opened(self) -> Any:
        if self._iterator is None:
            self._iterator = self._passes.renew()
        return self._iterator
