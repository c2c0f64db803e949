"""Objects in memory keep the contract; so does a store with faults while none happens."""

from __future__ import annotations

import pytest

from modelkeep.errors import UsageError
from modelkeep.storage import open_store
from modelkeep.storage.memory import MemoryStore
from modelkeep.storage.protocol import ObjectStore
from modelkeep.testing.object_store import ObjectStoreContract


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore()


def test_every_memory_store_is_another_one() -> None:
    first, second = open_store("memory://"), open_store("memory://")
    first.create("a", [b"1"])
    assert list(second.list("")) == []
    assert first.url != second.url


def test_a_chunk_that_is_changed_later_does_not_change_the_object() -> None:
    store, chunk = MemoryStore(), bytearray(b"before")
    store.create("a", [chunk])
    chunk[:] = b"after!"
    assert store.get("a") == b"before"


def test_a_scheme_that_nobody_implements_is_named_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"(?s)gopher://.*folder.*file://.*memory://"):
        open_store("gopher://models")
