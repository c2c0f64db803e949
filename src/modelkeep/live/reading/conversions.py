"""Tensors whose layout changed between versions of Keras, or between its backends, brought into the one of today.

After the conversions that Keras 2 itself made when it loaded older files: kernels that Theano turned around, gates
that Keras 1 kept apart, kernels and biases in the order of cuDNN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelkeep.formats.contents import ForeignTensor
from modelkeep.legacy.rules import Version
from modelkeep.live.internals import Variable

Array = np.ndarray[Any, np.dtype[Any]]
_CELLS = {"LSTMCell": 4, "GRUCell": 3, "ConvLSTMCell": 4}  # how many gates each has
# Keras 1 kept the gates apart, LSTM's in the order i, c, f, o, and the three arrays of a gate together.
_ORDER = {4: (0, 2, 1, 3), 3: (0, 1, 2)}
_KERNELS = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose", "ConvLSTMCell")


@dataclass(frozen=True)
class Converter:
    """How one file's tensors become values of today's variables. ``owners`` are layers by the id of a variable."""

    writer: Mapping[str, str]
    owners: Mapping[int, Any]

    def slots(self, variables: Sequence[Variable]) -> list[tuple[Variable, int]]:
        """The variables in the order of a file's tensors: one that was kept in parts comes once for each."""
        slots: list[tuple[Variable, int]] = []
        done: set[int] = set()
        for variable in variables:
            owner = self.owners.get(id(variable))
            gates = _CELLS.get(type(owner).__name__, 1) if self._is_first else 1
            if gates == 1:
                slots.append((variable, 0))
            elif id(owner) not in done:
                done.add(id(owner))
                together = [each for each in variables if self.owners.get(id(each)) is owner]
                slots += [(each, gate) for gate in range(gates) for each in together]
        return slots

    def converted(
        self, variables: Sequence[Variable], found: Mapping[int, Sequence[ForeignTensor]]
    ) -> dict[int, ForeignTensor]:
        """One tensor for each variable that has any."""
        result = {}
        for variable in variables:
            parts = found.get(id(variable))
            if parts:
                owner = self.owners.get(id(variable))
                whole = parts[0] if len(parts) == 1 else _joined(parts, _ORDER[len(parts)])
                if self._is_cudnn(owner, variables, found):
                    whole = _from_cudnn(_CELLS[type(owner).__name__], _own_name(variable), whole)
                result[id(variable)] = self._convert(variable, owner, whole)
        return result

    def _is_cudnn(
        self, owner: Any, variables: Sequence[Variable], found: Mapping[int, Sequence[ForeignTensor]]
    ) -> bool:
        """Whether an LSTM's or a GRU's tensors are cuDNN's: it has twice the biases, one after the other."""
        if type(owner).__name__ not in ("LSTMCell", "GRUCell"):
            return False
        biases = (v for v in variables if self.owners.get(id(v)) is owner and _own_name(v) == "bias")
        length = 2 * _CELLS[type(owner).__name__] * owner.units
        return any(part.shape == (length,) for bias in biases for part in found.get(id(bias), ()))

    @property
    def _is_first(self) -> bool:
        return Version.of(self.writer.get("keras")).major == 1

    def _convert(self, variable: Variable, owner: Any, tensor: ForeignTensor) -> ForeignTensor:
        kind, shape = type(owner).__name__, tuple(variable.shape)
        if kind in _KERNELS and "kernel" in _own_name(variable):
            return self._kernel(kind, owner, shape, tensor)
        return tensor

    def _kernel(self, kind: str, owner: Any, shape: tuple[int, ...], tensor: ForeignTensor) -> ForeignTensor:
        rank = len(shape)
        if self._is_first:
            first = getattr(owner, "data_format", "") == "channels_first"
            if kind == "Conv1D" and len(tensor.shape) == 4:
                if tensor.shape[2:] == (shape[0], 1) and tensor.shape[0] == shape[2]:
                    tensor = _changed(tensor, lambda a: a.transpose(2, 3, 1, 0))
                tensor = _changed(tensor, lambda a: a[:, 0])
            elif kind == "Conv2DTranspose":
                axes = (2, 3, 0, 1) if first else (0, 1, 3, 2)
                tensor = _changed(tensor, lambda a: a.transpose(axes))
            elif first and rank >= 4:
                spatial = tuple(range(2, rank))
                tensor = _changed(tensor, lambda a: a.transpose((*spatial, 1, 0)))
        if tensor.shape != shape and rank == 4 and tuple(tensor.shape[i] for i in (3, 2, 0, 1)) == shape:
            tensor = _changed(tensor, lambda a: a.transpose(3, 2, 0, 1))
        if self.writer.get("backend") == "theano":
            # It convolves where the others correlate.
            tensor = _changed(tensor, lambda a: a[(slice(None, None, -1),) * (rank - 2)])
        return tensor


def _from_cudnn(gates: int, name: str, tensor: ForeignTensor) -> ForeignTensor:
    """A tensor as cuDNN had it: kernels turned over gate by gate, and two biases where LSTM adds one."""
    if name == "bias":
        if gates == 4:
            return _changed(tensor, lambda a: a.reshape(2, -1).sum(axis=0))
        return _changed(tensor, lambda a: a.reshape(2, -1))

    def turned(kernel: Array) -> Array:
        parts = np.split(kernel, gates, axis=1)
        if name == "recurrent_kernel":
            return np.concatenate([part.T for part in parts], axis=1)
        return np.concatenate([part.T.reshape(part.shape, order="F") for part in parts], axis=1)

    return _changed(tensor, turned)


def _own_name(variable: Variable) -> str:
    return str(variable.path.rpartition("/")[2])


def _joined(parts: Sequence[ForeignTensor], order: Sequence[int]) -> ForeignTensor:
    """The arrays of the gates side by side."""
    first = parts[0]
    shape = (*first.shape[:-1], sum(part.shape[-1] for part in parts))
    names = ", ".join(part.name for part in parts)
    return ForeignTensor(
        names,
        first.dtype,
        shape,
        sum(part.nbytes for part in parts),
        lambda: np.concatenate([parts[index].read() for index in order], axis=-1),
    )


def _changed(tensor: ForeignTensor, change: Callable[[Array], Array]) -> ForeignTensor:
    """The tensor as ``change`` makes it, which must not depend on its values."""
    shape = change(np.broadcast_to(np.zeros((), tensor.dtype), tensor.shape)).shape
    return ForeignTensor(
        tensor.name, tensor.dtype, shape, tensor.nbytes, lambda: np.ascontiguousarray(change(tensor.read()))
    )
