"""A store that fails on purpose: to try what becomes of an operation when its storage gives way at any moment.

::

    store = FaultyStore(MemoryStore(), Fault("create", call=3, error=errno.ENOSPC))

To try *every* moment, raise ``call`` until nothing fires any more::

    for call in itertools.count(1):
        fault = Fault("create", call=call, error=errno.EIO)
        ...
        if not fault.fired:
            break
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

from modelkeep.errors import StorageError
from modelkeep.storage.protocol import Buffer, ObjectInfo, ObjectStore

Method: TypeAlias = Literal["get", "get_range", "map", "create", "refresh", "list", "folders", "delete"]
Damage: TypeAlias = Literal["flip", "truncate"]
_Answer = TypeVar("_Answer")
_Bytes = TypeVar("_Bytes", bytes, memoryview)


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong.

    It happens at the ``call``-th call (from 1) of ``method`` whose key or prefix contains ``key``, and with
    ``lasting`` at all later ones too. ``error`` is an errno, raised as the StorageError a store would raise, or an
    exception that is raised as it is; with ``after``, once the store has done what was asked, as when
    a reply is lost. ``damage`` spoils what a read returns instead: ``flip`` turns one bit in the middle,
    ``truncate`` cuts the last byte off. ``fired`` counts how often it happened.
    """

    method: Method
    call: int = 1
    error: int | BaseException | None = None
    damage: Damage | None = None
    key: str = ""
    after: bool = False
    lasting: bool = False
    fired: int = field(default=0, init=False)
    _calls: int = field(default=0, init=False)

    def meets(self, method: Method, key: str) -> bool:
        """Count a call; True when the fault happens in it."""
        if method != self.method or self.key not in key:
            return False
        self._calls += 1
        happens = self._calls == self.call or (self.lasting and self._calls > self.call)
        self.fired += happens
        return happens

    def exception(self, method: Method, key: str) -> BaseException:
        """What is raised."""
        if isinstance(self.error, BaseException):
            return self.error
        raised = StorageError(f"cannot {method} {key}: {os.strerror(self.error or 0)}", hint="a fault made for a test")
        raised.__cause__ = OSError(self.error, os.strerror(self.error or 0))
        return raised


class FaultyStore:
    """An ObjectStore over another one, with faults. ``calls`` lists every call made: method and key."""

    def __init__(self, inner: ObjectStore, *faults: Fault) -> None:
        self.inner = inner
        self.faults = faults
        self.calls: list[tuple[Method, str]] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The inner store's."""
        return self.inner.url

    def get(self, key: str) -> bytes:
        """As the inner store, unless a fault happens."""
        happening = self._begin("get", key)
        return _spoil(self._end("get", key, happening, self.inner.get(key)), happening)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """As the inner store, unless a fault happens."""
        happening = self._begin("get_range", key)
        data = self.inner.get_range(key, start, length)
        return _spoil(self._end("get_range", key, happening, data), happening)

    def map(self, key: str) -> memoryview:
        """As the inner store, unless a fault happens."""
        happening = self._begin("map", key)
        return _spoil(self._end("map", key, happening, self.inner.map(key)), happening)

    def create(self, key: str, chunks: Sequence[Buffer]) -> float:
        """As the inner store, unless a fault happens."""
        happening = self._begin("create", key)
        return self._end("create", key, happening, self.inner.create(key, chunks))

    def refresh(self, key: str) -> bool:
        """As the inner store, unless a fault happens."""
        happening = self._begin("refresh", key)
        return self._end("refresh", key, happening, self.inner.refresh(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As the inner store, unless a fault happens."""
        happening = self._begin("list", prefix)
        yield from self.inner.list(prefix)
        self._end("list", prefix, happening, None)

    def folders(self, prefix: str) -> Iterator[str]:
        """As the inner store, unless a fault happens."""
        happening = self._begin("folders", prefix)
        yield from self.inner.folders(prefix)
        self._end("folders", prefix, happening, None)

    def delete(self, key: str, *, unless_younger_than: float | None = None) -> bool:
        """As the inner store, unless a fault happens."""
        happening = self._begin("delete", key)
        answer = self.inner.delete(key, unless_younger_than=unless_younger_than)
        return self._end("delete", key, happening, answer)

    def now(self) -> float:
        """The inner store's clock."""
        return self.inner.now()

    def _begin(self, method: Method, key: str) -> Sequence[Fault]:
        with self._lock:
            self.calls.append((method, key))
            happening = [fault for fault in self.faults if fault.meets(method, key)]
        for fault in happening:
            if fault.error is not None and not fault.after:
                raise fault.exception(method, key)
        return happening

    def _end(self, method: Method, key: str, happening: Sequence[Fault], answer: _Answer) -> _Answer:
        for fault in happening:
            if fault.error is not None:
                raise fault.exception(method, key)
        return answer


def _spoil(data: _Bytes, happening: Sequence[Fault]) -> _Bytes:
    for fault in happening:
        if fault.damage == "truncate":
            data = data[:-1]
        elif fault.damage == "flip" and len(data):
            data = _flipped(data)
    return data


def _flipped(data: _Bytes) -> _Bytes:
    middle = len(data) // 2
    if isinstance(data, memoryview):
        data[middle] ^= 1  # private memory of its own, as map() promises
        return data
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
