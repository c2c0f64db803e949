"""What a foreign file holds, as data. Nothing of it has been brought to life, imported or executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep.manifest import Signature

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class ForeignTensor:
    """One array in a foreign file: its name there, and a way to read it while the file is open."""

    name: str  # as the form spells it: "layers/dense/vars/0", "dense/kernel:0"
    dtype: str  # NumPy's or ml_dtypes' word: "float32", "bfloat16"
    shape: tuple[int, ...]
    nbytes: int  # of the array itself; what lies in the file may be compressed
    read: Callable[[], Array] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a form that is neither weights nor config: a vocabulary, an asset."""

    name: str
    size: int  # bytes
    read: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)  # where a model needs it: assets


@dataclass(frozen=True, slots=True)
class Problem:
    """Something no honest writer would have written: which rule it breaks, where, and what was found.

    ``rule`` is the id of a rule of :mod:`modelkeep.safety.rules`, which tells how bad it is.
    """

    rule: str
    message: str
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a foreign file tells of itself.

    ``writer`` has any of ``keras``, ``tensorflow``, ``backend``, ``date``, ``producer``. ``config`` and
    ``compile`` are JSON values as the file has them: of Keras 3, or of Keras 1 and 2 where it is older.
    ``details`` are JSON values that this form alone has. ``problems`` did not stop the reading.
    """

    form: str
    path: Path
    size: int  # bytes on disk
    writer: Mapping[str, str] = field(default_factory=dict)
    config: Any = None
    compile: Any = None
    tensors: tuple[ForeignTensor, ...] = ()  # of the network
    optimizer: tuple[ForeignTensor, ...] = ()
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    pickles: tuple[Member, ...] = ()  # streams of pickle opcodes inside: to be looked through, never loaded
    details: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def parameters(self) -> int:
        """Numbers in the network's tensors."""
        return sum(_count(tensor.shape) for tensor in self.tensors)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
