"""A model's tensors as they were between two steps, in memory kept for the run, while training goes on.

Two ways. *Copying*: every variable into memory that was taken once and touched ahead, so that a snapshot costs no
more than that copy. *Copy-on-write*, on TensorFlow: its buffers are shared by whoever read them, and an update copies
a buffer that is shared, so holding what was read is a snapshot, and the next step pays.
``tests/test_snapshot.py`` shows that both hold what was there when they were taken, whatever training does.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from modelkeep.errors import UsageError
from modelkeep.live import internals
from modelkeep.live.capture import TORCH_RNG
from modelkeep.live.tensors import Array
from modelkeep.live.variables import Inventory, array_source, bytes_of, prefix, source, view
from modelkeep.manifest import ALIGNMENT
from modelkeep.storage import syscalls
from modelkeep.storage.blobs import TensorSource
from modelkeep.storage.protocol import Buffer


class Snapshot:
    """The tensors of a model as they were at one moment, until :meth:`release`.

    ``sources`` are all of them, named and typed as :func:`modelkeep.live.capture.capture` would. ``same`` are the
    names of those proved to be what they were in the snapshot before: where that was stored, they need not be
    written again.
    """

    def __init__(self, sources: list[TensorSource], same: frozenset[str], let_go: Callable[[], None]) -> None:
        self.sources = sources
        self.same = same
        self._let_go = let_go

    def release(self) -> None:
        """Let the memory go, once the tensors are durable or given up; ``sources`` cannot be read any more."""
        self._let_go()


class Snapshots:
    """Takes snapshots of the variables in ``inventory``, one at a time.

    ``copy_on_write`` is possible on TensorFlow alone; None chooses it there, where memory suffices. Where variables
    come or go afterwards (metrics and slots are made at the first batch), make new Snapshots: see :meth:`fits`.
    """

    def __init__(self, inventory: Inventory, *, copy_on_write: bool | None = None) -> None:
        self._inventory = inventory
        self._saved_by_themselves = [(path, node) for path, node in inventory.nodes if internals.saves_itself(node)]
        self._draws_from_torch = any(internals.draws_from_torch(node) for _, node in inventory.nodes)
        sources = [source(name, variable) for name, variable in inventory.variables.items()]
        variables = list(inventory.variables.values())
        if copy_on_write is None:
            copy_on_write = _may_hold(sources)
        elif copy_on_write and keras.backend.backend() != "tensorflow":
            raise UsageError(
                "copy-on-write needs buffers that updates do not write to while they are held",
                found=f"the backend {keras.backend.backend()}",
                expected="tensorflow",
            )
        self._memory: _Memory = (_Held if copy_on_write else _Kept)(sources, variables)
        self._taken: Snapshot | None = None

    def take(self) -> Snapshot:
        """The tensors as they are now. Raises UsageError while the snapshot before is not released.

        Within ``fit`` under JAX, :func:`modelkeep.live.internals.sync_jax` comes first.
        """
        if self._taken is not None:
            raise UsageError("the snapshot before is still being written", hint="release it first")
        same = self._memory.take()
        self._taken = Snapshot([*self._memory.sources, *self._computed()], same, self._release)
        return self._taken

    def fits(self, model: keras.Model) -> bool:
        """Whether these are still the variables of ``model``."""
        variables = [*model.variables, *internals.compile_metrics(model), *getattr(model.optimizer, "variables", ())]
        return all(id(variable) in self._inventory.names for variable in variables)

    def _release(self) -> None:
        self._memory.release()
        self._taken = None

    def _computed(self) -> Iterator[TensorSource]:
        """What is no variable, as it is now: what classes compute for their own ``save_own_variables``."""
        for path, node in self._saved_by_themselves:
            store: dict[str, Any] = {}
            node.save_own_variables(store)
            for key, value in store.items():
                name = f"{prefix(path, node)}/vars/{key}"
                if name not in self._inventory.variables:
                    yield array_source(name, np.array(keras.ops.convert_to_numpy(value)))
        if self._draws_from_torch:
            yield array_source(TORCH_RNG, internals.torch_rng())


class _Memory(Protocol):
    """Where the values of variables stay while they are written."""

    sources: list[TensorSource]

    def take(self) -> frozenset[str]:
        """Take what the variables hold now; returns the names of those that are as they were."""

    def release(self) -> None:
        """What was taken is not needed any more."""


# --- copied


class _Kept:
    """Copies, in one run of pages that is never given back before the training ends."""

    def __init__(self, sources: list[TensorSource], variables: list[internals.Variable]) -> None:
        sizes = [-(-source.nbytes // ALIGNMENT) * ALIGNMENT for source in sources]
        memory = syscalls.private_memory(sum(sizes))
        self._touching = _touch(memory)
        self._places = list(_laid_out(sources, variables, sizes, memory))
        self.sources = [replace(place.source, read=place.read, copies=False) for place in self._places]

    def take(self) -> frozenset[str]:
        self._touching.join()  # it writes there
        return frozenset(place.source.name for place in self._places if place.take())

    def release(self) -> None:
        pass


class _Place:
    """Where one variable is copied to."""

    def __init__(self, source: TensorSource, variable: internals.Variable, memory: memoryview) -> None:
        self.source = source
        self._variable = variable
        self._memory = memory
        self._array: Array | None = None
        self._was_same = False

    def take(self) -> bool:
        """Copy the variable, unless it is what was copied last; returns whether it is.

        That a variable is frozen, or was the same last time, makes it worth to compare; it proves nothing.
        """
        now = view(self._variable)
        if self._array is None:
            self._array = np.ndarray(now.shape, now.dtype, self._memory)
        elif (self._was_same or not self._variable.trainable) and _equal(self._array, now):
            self._was_same = True
            return True
        self._was_same = False
        np.copyto(self._array, now)
        return False

    def read(self) -> Buffer:
        assert self._array is not None
        return bytes_of(self._array)


def _laid_out(
    sources: list[TensorSource], variables: list[internals.Variable], sizes: list[int], memory: memoryview
) -> Iterator[_Place]:
    offset = 0
    for tensor, variable, size in zip(sources, variables, sizes, strict=True):
        yield _Place(tensor, variable, memory[offset : offset + size])
        offset += size


def _touch(memory: memoryview) -> threading.Thread:
    """Have the system give the pages now, on a thread: a first copy into new memory takes five times as long."""
    if isinstance(memory.obj, mmap.mmap) and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.obj.madvise(mmap.MADV_HUGEPAGE)
    pages = np.ndarray(-(-len(memory) // mmap.PAGESIZE), np.uint8, memory, strides=(mmap.PAGESIZE,))
    thread = threading.Thread(target=pages.fill, args=(0,), name="modelkeep-touch")
    thread.start()
    return thread


def _equal(kept: Array, now: Array) -> bool:
    if not now.flags.c_contiguous:
        return False
    return _memcmp(kept.ctypes.data, now.ctypes.data, kept.nbytes) == 0


_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]

# --- copied on write


class _Held:
    """What TensorFlow gave when it was read, held so that an update cannot write to it."""

    def __init__(self, sources: list[TensorSource], variables: list[internals.Variable]) -> None:
        self._variables = variables
        self._views: list[Array | None] = [None] * len(variables)
        self._hopeful = [not variable.trainable for variable in variables]
        self.sources = [
            replace(source, read=lambda index=index: self._read(index), copies=False)
            for index, source in enumerate(sources)
        ]

    def take(self) -> frozenset[str]:
        before, self._views = self._views, [view(variable) for variable in self._variables]
        same = [
            old is not None and _address(old) == _address(new) for old, new in zip(before, self._views, strict=True)
        ]
        return frozenset(source.name for source, unchanged in zip(self.sources, same, strict=True) if unchanged)

    def release(self) -> None:
        for index, variable in enumerate(self._variables):
            if variable.trainable:
                self._views[index] = None

    def _read(self, index: int) -> Buffer:
        held = self._views[index]
        if held is None:
            raise UsageError("this snapshot was released already")
        return bytes_of(held)


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _may_hold(sources: list[TensorSource]) -> bool:
    """Whether TensorFlow's tensors may be held: on the CPU, and where all of them twice is there."""
    if keras.backend.backend() != "tensorflow" or any(source.copies for source in sources):
        return False
    return _available_memory() > 2 * sum(source.nbytes for source in sources)


def _available_memory() -> int:
    """Bytes that could be had without swapping; 0 where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
