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
from modelkeep.live.training.feeding.iterators import IteratorFeed
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

    Of a dataset that TensorFlow cannot checkpoint the batches are counted as they leave it.
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
        self._counter = _counter() if any(one.check == "data-not-restored" for one in self.findings) else None
        self._passes = _Passes(dataset if self._counter is None else _counted(dataset, self._counter))
        self._used = False  # whether a step took from the iterator of this pass
        self._handed_out = True  # whether Keras has seen an iterator that was put back

    # --- position

    def _state(self) -> Position:
        if self._counter is None:
            return {"passes": self._passes.save(), "used": self._used}
        return {"batches": int(self._counter.numpy()) if self._used else 0, "used": self._used}

    def _restore(self, position: Position) -> tuple[Finding, ...]:
        self._used, self._handed_out = position["used"], False
        if self._counter is None:
            self._passes.load(position["passes"])
            return ()
        count = position["batches"]
        to_pass_by = count if self._fast_forward else 0
        self._passes.now = iter(_counted(self._dataset.skip(to_pass_by), self._counter))
        self._counter.assign(to_pass_by)
        if count and self._fast_forward:
            message = f"{count} batches are made and thrown away, to go on where training stood"
            return (Finding("data-fast-forward", Severity.NOTE, message, type(self._dataset).__name__),)
        return self.findings if count else ()

    def around(self, iterator: Any) -> None:
        """A step takes its batches from the newest iterator."""
        if iterator is self._passes.now and not self._used:
            self._used = True
            if self._counter is not None:
                self._counter.assign(0)
        self._cursor = Cursor(self._cursor.passes, self._cursor.index + 1)

    # --- what Keras asks for

    def get_tf_dataset(self) -> Any:
        """The dataset, which gives the iterators that this feed keeps."""
        return _giving(self._dataset, self._next_iterator)

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


def _counter() -> Any:
    import tensorflow as tf

    with tf.device("CPU:0"):
        return tf.Variable(0, dtype=tf.int64, trainable=False)


def _counted(dataset: Any, counter: Any) -> Any:
    """The same dataset, which counts its batches as they leave it."""
    import tensorflow as tf

    def count(*batch: Any) -> Any:
        with tf.control_dependencies([counter.assign_add(1)]):
            batch = tf.nest.map_structure(tf.identity, batch, expand_composites=True)
        return batch if isinstance(dataset.element_spec, tuple) else batch[0]

    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False  # what is fetched ahead would be counted
    return dataset.map(count).with_options(options)


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
