"""Variables that lie in parts on several devices (``keras.distribution``), kept part by part.

Each part is a tensor of its own, ``<name>#<number>``, and ``shards.json`` says where in the whole it lies. A whole is
put together in host memory, one at a time, and handed to as many devices as the variable that takes it lies on: as many
as before, others, or one. No device ever holds more than its own part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import keras
import msgspec
import numpy as np

from modelkeep.errors import IntegrityError, UsageError
from modelkeep.live import internals
from modelkeep.live.tensors import Array, numpy_dtype
from modelkeep.manifest import Manifest, Tensor

PART = "shards.json"


@dataclass(frozen=True)
class Shard:
    """One part of a variable, on one device; stands for a variable where tensors are read."""

    variable: internals.Variable
    number: int  # among those that this process can reach
    start: tuple[int, ...]  # of the part in the whole
    shape: tuple[int, ...]

    @property
    def value(self) -> Any:
        """The part, as it is now."""
        return self.variable.value.addressable_shards[self.number].data

    _value = value  # by which `internals.held` reads many at once

    @property
    def path(self) -> str:
        """The variable's."""
        return str(self.variable.path)

    @property
    def trainable(self) -> bool:
        """The variable's."""
        return bool(self.variable.trainable)


def split(variables: Mapping[str, internals.Variable]) -> dict[str, internals.Variable | Shard]:
    """The variables by name, each that lies on several devices as its parts; replicas count once.

    Raises UsageError where parts lie on devices of other processes, which this one cannot read.
    """
    parts: dict[str, internals.Variable | Shard] = {}
    for name, variable in variables.items():
        shards = _shards(variable)
        parts |= {f"{name}#{number}": shard for number, shard in enumerate(shards)} if shards else {name: variable}
    return parts


def _shards(variable: internals.Variable) -> list[Shard]:
    value = variable.value
    if keras.backend.backend() != "jax" or len(value.sharding.device_set) == 1 or value.is_fully_replicated:
        return []
    if not value.is_fully_addressable:
        raise UsageError(
            f"parts of {variable.path} lie on devices of other processes, and one process writes a checkpoint",
            found=f"{len(value.addressable_shards)} of {len(value.sharding.device_set)} parts here",
            hint="keep replicas on each host (DataParallel), or the parts of each variable on the devices of one",
        )
    return [
        Shard(variable, number, tuple(part.start or 0 for part in shard.index), tuple(shard.data.shape))
        for number, shard in enumerate(value.addressable_shards)
        if shard.replica_id == 0
    ]


def record(parts: Mapping[str, internals.Variable | Shard]) -> bytes | None:
    """Where each part lies in its whole, as JSON; None where every variable is whole."""
    wholes: dict[str, Any] = {}
    for name, shard in parts.items():
        if isinstance(shard, Shard):
            shape = list(map(int, shard.variable.shape))
            whole = wholes.setdefault(name.rpartition("#")[0], {"shape": shape, "parts": {}})
            whole["parts"][name] = list(shard.start)
    return json.dumps(wholes, separators=(",", ":"), sort_keys=True).encode() if wholes else None


class Whole(msgspec.Struct, frozen=True):
    """Where the parts of one variable lie in it: of each, by the name of its tensor, its least index on every axis."""

    shape: tuple[int, ...]
    parts: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Wholes:
    """Tensors that are stored in parts, as if they were whole."""

    tensors: Mapping[str, Tensor]  # those that are stored, by name
    record: Mapping[str, Whole]

    @classmethod
    def of(cls, manifest: Manifest, tensors: Iterable[Tensor], part: Callable[[str], bytes]) -> Wholes:
        """``tensors`` of ``manifest``, with its :func:`record` where it has one. Raises IntegrityError."""
        kept = any(one.name == PART for one in manifest.parts)
        try:
            record = msgspec.json.decode(part(PART), type=dict[str, Whole]) if kept else {}
        except msgspec.DecodeError as error:
            raise IntegrityError(f"{PART} is damaged ({error})", hint="run: modelkeep fsck") from error
        return cls({tensor.name: tensor for tensor in tensors}, record)

    @cached_property
    def merged(self) -> dict[str, Tensor]:
        """All tensors, the parts of each put in the place of the whole. Raises IntegrityError where they are not it."""
        inner = {part for whole in self.record.values() for part in whole.parts}
        found = {name: tensor for name, tensor in self.tensors.items() if name not in inner}
        for name, whole in self.record.items():
            there = [self.tensors[part] for part in whole.parts if part in self.tensors]
            if there:  # else it was not asked for, such as slots of an optimizer
                self._check(name, whole, there)
                first = there[0]
                found[name] = Tensor(
                    name=name, dtype=first.dtype, shape=whole.shape, digest="", pieces=(), variable=first.variable
                )
        return found

    def _check(self, name: str, whole: Whole, there: Sequence[Tensor]) -> None:
        """Every number of the whole is in exactly one part: all lie within it, apart, and are as large together."""
        boxes = [(whole.parts[tensor.name], tensor.shape) for tensor in there]
        covered = sum(prod(shape) for _, shape in boxes)
        if (
            len(there) != len(whole.parts)
            or len({tensor.dtype for tensor in there}) > 1
            or covered != prod(whole.shape)
            or not all(_is_within(start, shape, whole.shape) for start, shape in boxes)
            or not _are_apart(boxes)
        ):
            raise IntegrityError(
                f"the parts of {name} are not the whole of it",
                found=f"{covered:,} numbers in {len(there)} parts",
                expected=f"{prod(whole.shape):,} in {len(whole.parts)}, each of them once",
                hint="run: modelkeep fsck",
            )

    def array(self, name: str, read: Callable[[str], Array]) -> Array:
        """A tensor's values: of one stored in parts put together, of any other as ``read`` gives them."""
        if name not in self.record:
            return read(name)
        whole = self.merged[name]
        values = np.empty(whole.shape, numpy_dtype(whole.dtype))
        for part, start in self.record[name].parts.items():
            piece = read(part)
            values[_slices(start, piece.shape)] = piece
        return values


def _slices(start: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(at, at + length) for at, length in zip(start, shape, strict=True))


def _is_within(start: Sequence[int], shape: Sequence[int], most: Sequence[int]) -> bool:
    return len(start) == len(shape) == len(most) and all(
        at >= 0 and at + length <= end for at, length, end in zip(start, shape, most, strict=True)
    )


def _are_apart(boxes: Sequence[tuple[Sequence[int], Sequence[int]]]) -> bool:
    """Whether no two have a number in common: on some axis one ends before the other begins."""
    starts = np.array([start for start, _ in boxes], np.int64)
    ends = starts + np.array([shape for _, shape in boxes], np.int64)
    return not any(
        bool(((starts[at + 1 :] < ends[at]) & (starts[at] < ends[at + 1 :])).all(axis=1).any())
        for at in range(len(boxes))
    )
