"""Variables that lie in parts on several devices (``keras.distribution``), kept part by part.

Each part is a tensor of its own, ``<name>#<number>``, and ``shards.json`` says where in the whole it lies. A whole is
put together in host memory, one at a time, and handed to as many devices as the variable that takes it lies on: as many
as before, others, or one. No device ever holds more than its own part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import keras
import numpy as np

from modelkeep.errors import IntegrityError
from modelkeep.live import internals
from modelkeep.live.tensors import Array, numpy_dtype
from modelkeep.manifest import Tensor

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
    """The variables by name, each that lies on several devices as its parts; replicas count once."""
    parts: dict[str, internals.Variable | Shard] = {}
    for name, variable in variables.items():
        shards = _shards(variable)
        parts |= {f"{name}#{number}": shard for number, shard in enumerate(shards)} if shards else {name: variable}
    return parts


def _shards(variable: internals.Variable) -> list[Shard]:
    value = variable.value
    if keras.backend.backend() != "jax" or len(value.sharding.device_set) == 1 or value.is_fully_replicated:
        return []
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


@dataclass(frozen=True)
class Wholes:
    """Tensors that are stored in parts, as if they were whole."""

    tensors: Mapping[str, Tensor]  # those that are stored, by name
    record: Mapping[str, Any]

    def merged(self) -> dict[str, Tensor]:
        """All tensors, the parts of each put in the place of the whole. Raises IntegrityError where one is missing."""
        inner = {part for whole in self.record.values() for part in whole["parts"]}
        found = {name: tensor for name, tensor in self.tensors.items() if name not in inner}
        for name, whole in self.record.items():
            there = [self.tensors[part] for part in whole["parts"] if part in self.tensors]
            if not there:
                continue  # not asked for, such as slots of an optimizer
            self._check(name, whole, there)
            found[name] = Tensor(
                name=name,
                dtype=there[0].dtype,
                shape=tuple(whole["shape"]),
                digest="",
                pieces=(),
                variable=there[0].variable,
            )
        return found

    def _check(self, name: str, whole: Mapping[str, Any], there: list[Tensor]) -> None:
        covered = sum(prod(tensor.shape) for tensor in there)
        fits = len(there) == len(whole["parts"]) and covered == prod(whole["shape"])
        inside = all(
            len(start) == len(tensor.shape) == len(whole["shape"])
            and all(at >= 0 and at + n <= most for at, n, most in zip(start, tensor.shape, whole["shape"], strict=True))
            for tensor in there
            for start in [whole["parts"][tensor.name]]
        )
        if not fits or not inside or len({tensor.dtype for tensor in there}) > 1:
            raise IntegrityError(
                f"the parts of {name} are not the whole of it",
                found=f"{covered:,} numbers in {len(there)} parts",
                expected=f"{prod(whole['shape']):,} in {len(whole['parts'])}",
                hint="run: modelkeep fsck",
            )

    def array(self, name: str, read: Callable[[str], Array]) -> Array:
        """A tensor's values: of one stored in parts put together, of any other as ``read`` gives them."""
        if name not in self.record:
            return read(name)
        whole = self.record[name]
        parts = whole["parts"]
        values = np.empty(whole["shape"], numpy_dtype(self.tensors[next(iter(parts))].dtype))
        for part, start in parts.items():
            piece = read(part)
            values[tuple(slice(at, at + n) for at, n in zip(start, piece.shape, strict=True))] = piece
        return values
