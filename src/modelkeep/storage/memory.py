"""Objects in this process' memory: for tests, and for trying things out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count

from modelkeep.errors import NotFound, ObjectExists
from modelkeep.storage.keys import check_folder, check_key, check_prefix, check_range
from modelkeep.storage.protocol import Buffer, ObjectInfo
from modelkeep.storage.syscalls import private_memory

_serial = count(1)


class MemoryStore:
    """An ObjectStore that lives and dies with the process."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.RLock()
        self._time = 0.0
        self._url = f"memory://{next(_serial)}"

    @property
    def url(self) -> str:
        """``memory://`` and a number."""
        return self._url

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFound."""
        try:
            return self._objects[check_key(key)][0]
        except KeyError:
            raise NotFound(f"no object {key} in {self.url}") from None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``. Raises NotFound, IntegrityError."""
        data = self.get(key)
        check_range(key, start, length, len(data))
        return data[start : start + length]

    def map(self, key: str) -> memoryview:
        """A private copy, at the start of a page. Raises NotFound."""
        data = self.get(key)
        copy = private_memory(len(data))
        copy[:] = data
        return copy

    def create(self, key: str, chunks: Sequence[Buffer]) -> float:
        """Keep the concatenation of ``chunks``; tells its time. Raises ObjectExists."""
        data = b"".join(chunks)
        with self._lock:
            if check_key(key) in self._objects:
                raise ObjectExists(f"{key} is there already")
            now = self.now()
            self._objects[key] = (data, now)
            return now

    def refresh(self, key: str) -> bool:
        """Make it young again; False when it is not there."""
        with self._lock:
            if check_key(key) not in self._objects:
                return False
            data, modified = self._objects[key]
            self._objects[key] = (data, max(self.now(), modified + 1e-6))
            return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key begins so."""
        check_prefix(prefix)
        with self._lock:
            found = [(key, *value) for key, value in self._objects.items() if key.startswith(prefix)]
        for key, data, modified in found:
            yield ObjectInfo(key, len(data), modified)

    def folders(self, prefix: str) -> Iterator[str]:
        """The distinct next key parts that hold objects further down."""
        rests = (info.key[len(prefix) :].split("/") for info in self.list(check_folder(prefix)))
        yield from sorted({rest[0] for rest in rests if len(rest) > 1})

    def delete(self, key: str, *, unless_younger_than: float | None = None) -> bool:
        """Remove it; False when it is not there or too young."""
        with self._lock:
            found = self._objects.get(check_key(key))
            if found is None or (unless_younger_than is not None and found[1] >= unless_younger_than):
                return False
            del self._objects[key]
            return True

    def now(self) -> float:
        """This machine's clock, never twice the same: what happens after an answer is younger."""
        with self._lock:
            self._time = max(time.time(), math.nextafter(self._time, math.inf))
            return self._time
