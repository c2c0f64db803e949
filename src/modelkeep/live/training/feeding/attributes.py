"""The state of an object that makes batches: what its class keeps of itself, else its plain attributes."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from blake3 import blake3

from modelkeep.live import internals
from modelkeep.live.training import state

Kept: TypeAlias = dict[str, Any]

Methods: TypeAlias = tuple[Callable[[], Any], Callable[[Any], Any]]
"""How an object gives its state, and how it takes it."""

_TENSOR = "torch.Tensor"  # the key of a tensor in a state, as an array

LARGEST = 64 * 2**20
"""Bytes above which an array is taken as data, which nobody changes."""

_METHODS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))


def methods(owner: Any) -> Methods | None:
    """How an object gives and takes its own state as plain values, if its class says so."""
    for get, put in _METHODS:
        give, take = getattr(owner, get, None), getattr(owner, put, None)
        if callable(give) and callable(take):
            return partial(_given, give), partial(_taken, take)
    return None


def _given(give: Callable[[], Any]) -> Any:
    return _mapped(give(), lambda leaf: {_TENSOR: leaf.numpy().copy()} if _is_tensor(leaf) else leaf)


def _taken(take: Callable[[Any], Any], kept: Any) -> None:
    take(_mapped(kept, lambda leaf: leaf))


def _mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """The same nesting with ``leaf`` of what is in it; arrays that were torch tensors are tensors again."""
    if type(value) is dict:
        if value.keys() == {_TENSOR}:
            return sys.modules["torch"].from_numpy(np.array(value[_TENSOR]))
        return {key: _mapped(inner, leaf) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(inner, leaf) for inner in value)
    return leaf(value)


def _is_tensor(value: Any) -> bool:
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


class Attributes:
    """What changes in an object as training goes on.

    ``get_state``/``set_state`` or ``state_dict``/``load_state_dict`` if it has them. Else its generators of random
    numbers by their state, and every attribute of plain values or arrays that is not what it was when this was made.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._methods = methods(owner)
        self._at_first = {} if self._methods else {name: _digest(value) for name, value in self._plain()}

    def capture(self) -> Kept:
        """All of it, as plain values and arrays; they are the object's own, not copies."""
        if self._methods:
            return {"state": self._methods[0]()}
        changed = {name: value for name, value in self._plain() if self._at_first.get(name) != _digest(value)}
        return {"generators": self._generators(), "attributes": changed}

    def moving(self) -> Kept:
        """What making a batch changes as a rule: generators, numbers and texts. Takes microseconds."""
        if self._methods:
            return {}
        scalars = {name: value for name, value in self._items() if type(value) in (bool, int, float, str)}
        return {"generators": self._generators(), "attributes": scalars}

    def restore(self, kept: Kept) -> None:
        """Put back what :meth:`capture` or :meth:`moving` gave."""
        if "state" in kept and self._methods:
            self._methods[1](kept["state"])
        own = internals.attributes(self._owner)
        for name, generator in kept.get("generators", {}).items():
            if generator_state(own.get(name)) is not None:
                set_generator(own[name], generator)
        for name, value in kept.get("attributes", {}).items():
            setattr(self._owner, name, np.array(value) if isinstance(value, np.ndarray) else value)

    def _items(self) -> list[tuple[str, Any]]:
        return list(internals.attributes(self._owner).items())

    def _plain(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in self._items() if not _is_large(value) and state.is_plain(value)]

    def _generators(self) -> dict[str, Any]:
        states = {name: generator_state(value) for name, value in self._items()}
        return {name: value for name, value in states.items() if value is not None}


def _is_large(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.nbytes > LARGEST


def _digest(value: Any) -> bytes:
    packed = state.pack(value)
    hashed = blake3(packed.document)
    for array in packed.arrays.values():
        hashed.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hashed.digest()


def generator_state(value: Any) -> Any | None:
    """The state of a generator of random numbers (Python's, NumPy's, torch's) as plain values; None if it is none."""
    match value:
        case random.Random():
            return value.getstate()
        case np.random.Generator():
            return value.bit_generator.state
        case np.random.RandomState():
            return value.get_state(legacy=False)
    if "torch" in sys.modules and isinstance(value, sys.modules["torch"].Generator):
        return value.get_state().numpy()
    return None


def set_generator(generator: Any, kept: Any) -> None:
    """Put back what :func:`generator_state` gave of a generator of the same kind."""
    match generator:
        case random.Random():
            generator.setstate(kept)
        case np.random.Generator():
            generator.bit_generator.state = kept
        case np.random.RandomState():
            generator.set_state(kept)
        case _:
            generator.set_state(sys.modules["torch"].from_numpy(np.array(kept)))
