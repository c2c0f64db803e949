"""A store that fails on purpose fails as it was told to, and not otherwise."""

from __future__ import annotations

import errno

import pytest

from modelkeep.errors import NotFound, StorageError
from modelkeep.storage.memory import MemoryStore
from modelkeep.storage.protocol import ObjectStore
from modelkeep.testing.faults import Fault, FaultyStore, Method
from modelkeep.testing.object_store import ObjectStoreContract


class TestFaultyStoreWithoutFaults(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return FaultyStore(MemoryStore(), Fault("create", key="never asked for", error=errno.EIO))


def test_the_nth_call_fails_and_leaves_nothing() -> None:
    fault = Fault("create", call=2, error=errno.ENOSPC)
    store = FaultyStore(MemoryStore(), fault)
    store.create("a", [b"1"])
    with pytest.raises(StorageError, match="cannot create b: No space left"):
        store.create("b", [b"2"])
    store.create("c", [b"3"])
    assert {info.key for info in store.inner.list("")} == {"a", "c"}
    assert fault.fired == 1


def test_a_lasting_fault_fails_from_then_on() -> None:
    store = FaultyStore(MemoryStore(), Fault("create", call=2, error=errno.ENOSPC, lasting=True))
    store.create("a", [b"1"])
    for key in ("b", "c"):
        with pytest.raises(StorageError):
            store.create(key, [b"2"])


def test_only_calls_of_the_key_are_counted() -> None:
    store = FaultyStore(MemoryStore(), Fault("create", call=2, key="ledger/", error=errno.EIO))
    for key in ("ledger/1", "blobs/1", "blobs/2"):
        store.create(key, [b"1"])
    with pytest.raises(StorageError):
        store.create("ledger/2", [b"1"])


def test_a_reply_may_be_lost_after_the_work_was_done() -> None:
    store = FaultyStore(MemoryStore(), Fault("create", error=errno.ETIMEDOUT, after=True))
    with pytest.raises(StorageError):
        store.create("a", [b"1"])
    assert store.inner.get("a") == b"1"


def test_any_exception_may_be_raised() -> None:
    store = FaultyStore(MemoryStore(), Fault("list", error=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        list(store.list(""))


@pytest.mark.parametrize("method", ["get", "get_range", "map", "create", "refresh", "list", "folders", "delete"])
def test_every_method_may_fail(method: Method) -> None:
    store = FaultyStore(MemoryStore(), Fault(method, error=errno.EIO))
    arguments = {"get_range": (0, 1), "create": ([b"1"],)}.get(method, ())
    with pytest.raises(StorageError, match="Input/output error"):
        list(getattr(store, method)("a/", *arguments))


def test_what_a_read_returns_may_be_damaged_and_what_is_kept_is_not() -> None:
    inner = MemoryStore()
    inner.create("a", [b"0123"])
    faults = [Fault("get", damage="flip"), Fault("get_range", damage="truncate"), Fault("map", damage="flip")]
    store = FaultyStore(inner, *faults)
    assert (store.get("a"), store.get_range("a", 0, 4), store.map("a")) == (b"0133", b"012", b"0133")
    assert (store.get("a"), store.get_range("a", 0, 4), store.map("a")) == (b"0123",) * 3
    assert inner.get("a") == b"0123"


def test_every_call_is_listed() -> None:
    store = FaultyStore(MemoryStore())
    store.create("a", [b"1"])
    with pytest.raises(NotFound):
        store.get("b")
    assert store.calls == [("create", "a"), ("get", "b")]
