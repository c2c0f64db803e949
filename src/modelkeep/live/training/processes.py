"""Several processes that train one model together: one of them writes, all go on from the same checkpoint.

Under torch these are the processes of ``torch.distributed``, under JAX those of ``jax.distributed``, under TensorFlow
the workers of a ``MultiWorkerMirroredStrategy``. The first one decides when a checkpoint is taken and from which one
training goes on, and writes; the others are told. What differs between them, such as random states, each one hands over
to be kept.

All of them have to do the same in the same order: whoever is told waits for who tells. Where one dies, the others wait
until the backend tells them, or whoever started them does; what is durable by then is what all go on from.
"""

from __future__ import annotations

import itertools
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import keras
import msgspec
import numpy as np

from modelkeep.errors import Conflict, ModelkeepError
from modelkeep.live import internals
from modelkeep.live.tensors import Array
from modelkeep.live.training import state
from modelkeep.report import Finding, Severity

T = TypeVar("T")

OWN = ("random", "random_at_epoch", "feed", "extra")
"""What each process has for itself, of what is kept beside the variables."""

OTHERS = "processes"


class _Gather(Protocol):
    def __call__(self, data: bytes) -> list[bytes]:
        """What each process gave, in their order; returns when all have given theirs."""


@dataclass(frozen=True)
class Processes:
    """Those that train together: how many, which of them this is, and how they hear of each other."""

    rank: int = 0
    count: int = 1
    gather: _Gather = lambda data: [data]

    @property
    def writes(self) -> bool:
        """Whether this is the one that writes checkpoints."""
        return self.rank == 0

    def decided(self, decide: Callable[[], T], kind: Any) -> T:
        """What ``decide`` returns in the process that writes, of a type that msgspec writes. Only there is it called.

        What it raises is raised there; in the others Conflict, so that none of them waits for good.
        """
        if self.count == 1:
            return decide()
        if not self.writes:
            return cast(T, msgspec.convert(self._told(self.gather(b"")[0]), kind))
        try:
            value = decide()
        except BaseException as error:
            what = error.what if isinstance(error, ModelkeepError) else str(error)
            self.gather(msgspec.msgpack.encode({"error": f"{type(error).__name__}: {what}"}))
            raise
        self.gather(msgspec.msgpack.encode({"value": value}))
        return value

    def _told(self, data: bytes) -> Any:
        answer = msgspec.msgpack.decode(data)
        if "error" in answer:
            raise Conflict("the process that writes the checkpoints failed", found=answer["error"])
        return answer["value"]

    def agreed(self, *, due: bool, interrupted: bool) -> tuple[bool, bool]:
        """Whether a checkpoint is due, as the one that writes has it, and whether any of them is to end."""
        if self.count == 1:
            return due, interrupted
        votes = self.gather(bytes([due, interrupted]))
        return bool(votes[0][0]), any(vote[1] for vote in votes)

    def wait(self) -> None:
        """Return when all have come here."""
        if self.count > 1:
            self.gather(b"")

    def together(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """``value`` of the one that writes, with what the others have for themselves. The others' is not kept."""
        if self.count == 1:
            return dict(value)
        own = state.pack({name: value[name] for name in OWN if name in value})
        arrays = {name: array.tobytes() for name, array in own.arrays.items()}
        gathered = self.gather(msgspec.msgpack.encode([own.document, arrays]))
        return {**value, OTHERS: gathered[1:]}

    def own(self, value: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Finding, ...]]:
        """What :meth:`together` made, as it is for this process; the finding is of another number of them.

        A process that was not there then keeps the random numbers it has, and takes the data's position of the first.
        """
        others = value.get(OTHERS, [])
        findings: tuple[Finding, ...] = ()
        if len(others) + 1 != self.count:
            message = (
                f"trained by {len(others) + 1} processes, now by {self.count}: the random numbers and the data of each "
                "are others than they would have been"
            )
            findings = (Finding("processes-changed", Severity.WARNING, message),)
        if self.rank == 0:
            return dict(value), findings
        if self.rank <= len(others):
            return {**value, **_unpacked(others[self.rank - 1])}, findings
        return {**value, "random": None, "random_at_epoch": None}, findings


def _unpacked(data: bytes) -> dict[str, Any]:
    document, arrays = msgspec.msgpack.decode(data, type=tuple[bytes, dict[str, bytes]])
    value = state.unpack(document, {name: np.frombuffer(array, np.uint8) for name, array in arrays.items()})
    return dict(value)


def here() -> Processes:
    """The processes that this one trains with; itself alone where no distributed training was begun."""
    return _HERE.get(keras.backend.backend(), Processes)()


# --- torch


def _of_torch() -> Processes:
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        return Processes()
    return Processes(distributed.get_rank(), distributed.get_world_size(), _gather_by_torch)


def _gather_by_torch(data: bytes) -> list[bytes]:
    import torch
    from torch import distributed

    # What NCCL and the like exchange lies on the device of the process.
    device = torch.device("cpu" if distributed.get_backend() in ("gloo", "mpi") else torch.get_default_device())
    return _in_two_rounds(data, partial(_gather_torch_array, device))


def _gather_torch_array(device: Any, array: Array) -> list[Array]:
    import torch
    from torch import distributed

    mine = torch.from_numpy(array).to(device)
    all_of_them = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(all_of_them, mine)
    return [one.cpu().numpy() for one in all_of_them]


# --- JAX


def _of_jax() -> Processes:
    import jax

    if jax.process_count() == 1:
        return Processes()
    return Processes(jax.process_index(), jax.process_count(), _gather_by_jax)


def _gather_by_jax(data: bytes) -> list[bytes]:
    from jax.experimental import multihost_utils

    return _in_two_rounds(data, lambda array: list(np.asarray(multihost_utils.process_allgather(array))))


def _in_two_rounds(data: bytes, gather: Callable[[Array], list[Array]]) -> list[bytes]:
    """Backends gather arrays of one size: first how long each one's data is, then as much as the longest."""
    sizes = [int(size[0]) for size in gather(np.array([len(data)], np.int32))]
    padded = np.zeros(max(1, *sizes), np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    return [one[:size].tobytes() for one, size in zip(gather(padded), sizes, strict=True)]


# --- TensorFlow


def _of_tensorflow() -> Processes:
    workers = internals.tensorflow_workers()
    if workers is None:
        return Processes()
    count, rank = workers
    return Processes(rank, count, partial(_gather_by_tensorflow, count, rank))


_rounds = itertools.count()


def _gather_by_tensorflow(count: int, rank: int, data: bytes) -> list[bytes]:
    """Through the texts that the service which starts the workers together lets them leave for each other."""
    number = next(_rounds)  # all go through as many
    texts = internals.tensorflow_texts()
    texts.set_config_key_value(f"modelkeep/{number}/{rank}", b64encode(data).decode("ascii"))
    gathered = [b64decode(texts.get_config_key_value(f"modelkeep/{number}/{one}")) for one in range(count)]
    if number:
        texts.delete_config_key_value(f"modelkeep/{number - 1}/{rank}")  # whoever is here has read it
    return gathered


_HERE: Mapping[str, Callable[[], Processes]] = {"torch": _of_torch, "jax": _of_jax, "tensorflow": _of_tensorflow}
