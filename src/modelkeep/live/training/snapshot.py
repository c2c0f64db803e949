"""A model's tensors as they were between two steps, in memory kept for the run, while training goes on.

Two ways. *Copying*: every variable into memory that was taken once and touched ahead, so that a snapshot costs that
copy and no more. *Copy-on-write*, on TensorFlow: its buffers are shared with whoever read them, and an update copies
one that is shared before it writes; so holding what was read is a snapshot, and the next step pays for it.
``tests/test_snapshot.py`` shows that both hold what was there when they were taken, whatever training does then.

What is proved to be as it was is neither copied nor written again: by comparing the bytes, or, of a TensorFlow buffer
that was held all the time, by its address, since nobody can have written to it. That is tried with every variable until
it is seen to change once; frozen ones never do.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from modelkeep.errors import UsageError
from modelkeep.live import internals, shards
from modelkeep.live.capture import TORCH_RNG
from modelkeep.live.collector import undisturbed
from modelkeep.live.tensors import Array
from modelkeep.live.variables import Inventory, array_source, bytes_of, prefix, source, view
from modelkeep.manifest import ALIGNMENT
from modelkeep.storage import syscalls
from modelkeep.storage.blobs import TensorSource
from modelkeep.storage.protocol import Buffer

_SPARSE_FROM = 2**20  # bytes; a smaller tensor is copied sooner than TensorFlow is asked not to


class Snapshot:
    """The tensors of a model as they were at one moment, to be read until :meth:`release`.

    ``same`` are the names of those that are proved to be as they were in the snapshot before; ``sources`` are all the
    others, with the names, dtypes and shapes that :func:`modelkeep.live.capture.capture` gives them.
    """

    def __init__(self, sources: list[TensorSource], same: frozenset[str], let_go: Callable[[], None]) -> None:
        self.sources = sources
        self.same = same
        self._let_go: Callable[[], None] | None = let_go

    def release(self) -> None:
        """Let the memory go, once the tensors are durable or given up; ``sources`` must not be read any more."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()


class Snapshots:
    """Takes snapshots of the variables in ``inventory``, one at a time.

    ``copy_on_write`` is possible on TensorFlow alone, else UsageError; None chooses it there where the tensors are
    in host memory and twice as much is left. Either way takes as much memory again as the variables have: copying for
    as long as this object lives, copy-on-write from a snapshot to its release.
    """

    def __init__(self, inventory: Inventory, *, copy_on_write: bool | None = None) -> None:
        self._inventory = inventory
        self._save_themselves = [(path, node) for path, node in inventory.nodes if internals.saves_itself(node)]
        self._draws_from_torch = any(internals.draws_from_torch(node) for _, node in inventory.nodes)
        self._taken = False
        parts = shards.split(inventory.variables)
        self.shards = shards.record(parts)  # what lies on several devices, as a part to keep; None where nothing does
        variables = list(parts.values())
        sources = [source(name, variable) for name, variable in parts.items()]
        if copy_on_write is None:
            copy_on_write = _may_hold(variables, sources)
        elif copy_on_write and keras.backend.backend() != "tensorflow":
            raise UsageError(
                "copy-on-write needs buffers that no update writes to while they are held",
                found=f"the backend {keras.backend.backend()}",
                expected="tensorflow",
            )
        self._memory: _Memory = (_Held if copy_on_write else _Kept)(sources, variables)

    @undisturbed()
    def take(self) -> Snapshot:
        """The tensors as they are now. Raises UsageError while the snapshot before is not released.

        Within ``fit`` under JAX, :func:`modelkeep.live.internals.sync_jax` comes first. What classes compute for
        their own ``save_own_variables`` is computed and copied each time.
        """
        if self._taken:
            raise UsageError("the snapshot before is still in use", hint="release it first")
        same = self._memory.take()
        sources = [tensor for tensor in self._memory.sources if tensor.name not in same]
        sources += map(_copied, self._computed())
        self._taken = True
        return Snapshot(sources, same, self._release)

    def fits(self, model: keras.Model) -> bool:
        """Whether all variables of ``model`` are known here; takes less than a millisecond.

        Metrics and optimizers (those too that only the model's own ``train_step`` knows) make theirs at the first
        batch, and ``compile`` makes new ones: new Snapshots are to be made then.
        """
        known = (node for _, node in self._inventory.nodes if isinstance(node, keras.optimizers.Optimizer))
        optimizers = (getattr(model, "optimizer", None), *known)
        slots = [variable for one in optimizers for variable in getattr(one, "variables", ())]
        variables = (*model.variables, *slots, *internals.compile_metrics(model))
        return all(id(variable) in self._inventory.names for variable in variables)

    def _release(self) -> None:
        self._memory.release()
        self._taken = False

    def _computed(self) -> Iterator[TensorSource]:
        for path, node in self._save_themselves:
            store: dict[str, Any] = {}
            node.save_own_variables(store)
            for key, value in store.items():
                name = f"{prefix(path, node)}/vars/{key}"
                if name not in self._inventory.variables:
                    yield array_source(name, value)
        if self._draws_from_torch:
            yield array_source(TORCH_RNG, internals.torch_rng())


def _copied(tensor: TensorSource) -> TensorSource:
    data = bytes(tensor.read())
    return replace(tensor, read=lambda: data)


class _Memory(Protocol):
    """Where the values of variables stay while they are written."""

    sources: list[TensorSource]  # one for each, reading what was taken last

    def take(self) -> frozenset[str]:
        """Take what the variables hold now; returns the names of those that hold what they did at the last time."""

    def release(self) -> None:
        """What was taken is not read any more."""


# --- copied


class _Kept:
    """Copies of the variables, each at its place in one run of pages."""

    def __init__(self, sources: Sequence[TensorSource], variables: Sequence[internals.Variable]) -> None:
        self._lent = _Lent(variables)
        self._offsets, size = _laid_out(sources)
        self._memory = syscalls.private_memory(size)
        self._touching = _touch(self._memory)
        self._arrays: list[Array | None] = [None] * len(sources)
        self._hopeful = set(range(len(sources)))  # those that did not change yet
        self.sources = [replace(s, read=partial(self._read, index), copies=False) for index, s in enumerate(sources)]

    def take(self) -> frozenset[str]:
        self._touching.join()  # it writes to the memory
        same = []
        for index, now in enumerate(self._lent.now()):
            kept = self._arrays[index]
            if kept is None:
                kept = self._arrays[index] = np.ndarray(now.shape, now.dtype, self._memory, self._offsets[index])
            elif index in self._hopeful:
                if _equal(kept, now):
                    same.append(self.sources[index].name)
                    continue
                self._hopeful.remove(index)
            np.copyto(kept, now)
        return frozenset(same)

    def release(self) -> None:
        """The memory is kept."""

    def _read(self, index: int) -> Buffer:
        kept = self._arrays[index]
        assert kept is not None, "read before it was taken"
        return bytes_of(kept)


def _laid_out(sources: Sequence[TensorSource]) -> tuple[list[int], int]:
    """Where each tensor lies, and the end of the last."""
    offsets, end = [], 0
    for tensor in sources:
        offsets.append(end)
        end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    return offsets, end


def _touch(memory: memoryview) -> threading.Thread:
    """Have the system give all pages now, on a thread: a copy into memory never used takes up to five times as long."""
    if isinstance(memory.obj, mmap.mmap) and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.obj.madvise(mmap.MADV_HUGEPAGE)
    pages = np.ndarray(-(-len(memory) // mmap.PAGESIZE), np.uint8, memory, strides=(mmap.PAGESIZE,))
    thread = threading.Thread(target=pages.fill, args=(0,), name="modelkeep-touch")
    thread.start()
    return thread


class _Lent:
    """The variables' own memory as arrays, in a microsecond or two each: for thousands of small ones that counts."""

    def __init__(self, variables: Sequence[internals.Variable]) -> None:
        self._variables = variables
        self._arrays: list[Array] = []
        self._addresses: list[int | None] = [None] * len(variables)  # of torch's memory

    def now(self) -> list[Array]:
        """What each variable holds, over its own memory where the backend lends it."""
        match keras.backend.backend():
            case "torch":
                return self._of_torch()
            case "jax":
                return list(map(_of_jax, internals.held(self._variables)))
            case _:
                return list(map(view, self._variables))

    def _of_torch(self) -> list[Array]:
        """The arrays of the last time, where the memory is the same: it cannot be another's while they are held."""
        self._arrays = self._arrays or list(map(view, self._variables))
        for index, value in enumerate(internals.held(self._variables)):
            address = value.data_ptr()
            if address != self._addresses[index] or not value.is_contiguous():
                self._arrays[index] = array = view(self._variables[index])
                self._addresses[index] = address if _address(array) == address else None
        return self._arrays


def _of_jax(value: Any) -> Array:
    """Through the buffer protocol: ``numpy.asarray`` takes twice as long, and the array keeps what it gave."""
    try:
        return np.asarray(memoryview(value))
    except (BufferError, TypeError, ValueError):  # a dtype or a device that lends no memory, or several devices
        return np.asarray(value)


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _equal(kept: Array, now: Array) -> bool:
    """Whether the bytes are equal; the interpreter's lock is not held meanwhile, and nothing is copied."""
    return now.flags.c_contiguous and not _memcmp(_address(kept), _address(now), kept.nbytes)


_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]

# --- copied on write


class _Held:
    """What TensorFlow gave when it was asked, held so that nobody writes to it."""

    def __init__(self, sources: Sequence[TensorSource], variables: Sequence[internals.Variable]) -> None:
        self._variables = variables
        self._large = [variable for s, variable in zip(sources, variables, strict=True) if s.nbytes >= _SPARSE_FROM]
        self._tensors: dict[int, Any] = {}
        self._hopeful = set(range(len(sources)))
        self.sources = [replace(s, read=partial(self._read, index), copies=False) for index, s in enumerate(sources)]

    def take(self) -> frozenset[str]:
        before, self._tensors = self._tensors, dict(enumerate(self._tensors_now()))
        if before:
            self._hopeful = {i for i in before if _same_buffer(before[i], self._tensors[i])}
        return frozenset(self.sources[index].name for index in self._hopeful) if before else frozenset()

    def release(self) -> None:
        """Those that never changed are held on: no update copies them, and only so is their address a proof."""
        self._tensors = {index: self._tensors[index] for index in self._hopeful}

    def _tensors_now(self) -> list[Any]:
        import tensorflow as tf

        # After an update of single rows a variable gives copies to whoever reads it, until this is called.
        for value in internals.held(self._large):
            tf.raw_ops.DisableCopyOnRead(resource=value.handle)
        read = tf.raw_ops.ReadVariableOp  # what `read_value` does, at half its cost
        return [read(resource=value.handle, dtype=value.dtype) for value in internals.held(self._variables)]

    def _read(self, index: int) -> Buffer:
        if index not in self._tensors:
            raise UsageError("the snapshot was released", hint="read its tensors before")
        return bytes_of(_of_tensorflow(self._tensors[index]))


def _of_tensorflow(tensor: Any) -> Array:
    import tensorflow as tf

    try:
        return np.asarray(memoryview(tf.bitcast(tensor, tf.uint16) if tensor.dtype == tf.bfloat16 else tensor))
    except (ValueError, TypeError, BufferError):  # a dtype or a device that lends no memory
        return np.asarray(tensor.numpy())


def _same_buffer(one: Any, other: Any) -> bool:
    return _address(_of_tensorflow(one)) == _address(_of_tensorflow(other))


def _may_hold(variables: Sequence[internals.Variable], sources: Sequence[TensorSource]) -> bool:
    """Whether these are variables of TensorFlow, each in one place, in host memory, and twice as much is left."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    replicated = any(isinstance(value, tf.distribute.DistributedValues) for value in internals.held(variables))
    elsewhere = any(tensor.copies for tensor in sources)
    size = sum(tensor.nbytes for tensor in sources)
    return not replicated and not elsewhere and _available_memory() >= 2 * size


def _available_memory() -> int:
    """Bytes that can be had without swapping; 0 where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
