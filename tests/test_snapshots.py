"""Snapshots are a cache: wrong or missing ones cost time, never truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from modelkeep import catalog
from modelkeep.entry import entry_key
from modelkeep.errors import LedgerDamaged
from modelkeep.fsck import fsck
from modelkeep.keep import Keep
from modelkeep.registry import Registry
from modelkeep.snapshots import EVERY, KEPT
from modelkeep.storage import marker
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore
from small_versions import publish


class CountingStore(MemoryStore):
    """A store that remembers what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return super().get(key)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "PAGE", 4)


@pytest.fixture
def store() -> Iterator[CountingStore]:
    return CountingStore()


def filled(store: MemoryStore, versions: int, model: str = "m") -> Registry:
    registry = Registry(store, actor="ada")
    for number in range(versions):
        publish(registry, model, f"1.{number}.0")
    return registry


def names(store: MemoryStore, model: str = "m") -> list[str]:
    return [record.version for record in Registry(store).versions(model)]


def keys(store: MemoryStore, under: str) -> list[str]:
    return sorted(info.key for info in store.list(under))


def replace(store: MemoryStore, key: str, data: bytes) -> None:
    store.delete(key)
    store.create(key, [data])


@pytest.mark.parametrize("ref", ["m", "m:1.17.0", "m:1", "m@production"])
def test_resolving_reads_one_root_one_page_and_the_entries_since(store: CountingStore, ref: str) -> None:
    filled(store, 20).promote("m:1.17.0", "production")
    store.read.clear()
    Registry(store).resolve(ref)
    assert sum("/snapshots/0" in key for key in store.read) == 1
    assert sum("/pages/" in key for key in store.read) <= 1
    assert sum("/ledger/" in key for key in store.read) == 21 % EVERY + 1  # the entries since, and the free number


def test_two_roots_are_kept_and_pages_are_shared(store: CountingStore) -> None:
    filled(store, 4 * EVERY)
    assert keys(store, "models/m/snapshots/0") == [
        f"models/m/snapshots/{seq:012d}.json" for seq in range(4 * EVERY - (KEPT - 1) * EVERY, 4 * EVERY + 1, EVERY)
    ]
    assert len(keys(store, "models/m/snapshots/pages/")) == 4 * EVERY / 4


def test_without_any_snapshot_the_entries_say_the_same(store: CountingStore) -> None:
    filled(store, 20)
    expected = names(store)
    for key in keys(store, "models/m/snapshots/"):
        store.delete(key)
    assert names(store) == expected


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 100, b'{"digest":"blake3:', b"[" * 100_000])
def test_roots_and_pages_that_cannot_be_read_are_passed_over(store: CountingStore, data: bytes) -> None:
    filled(store, 20)
    expected = names(store)
    for key in keys(store, "models/m/snapshots/"):
        replace(store, key, data)
    assert names(store) == expected


def test_another_model_s_root_is_passed_over(store: CountingStore) -> None:
    filled(store, 9, "other")
    filled(store, 9)
    expected = names(store)
    key = "models/m/snapshots/000000000008.json"
    replace(store, key, store.get(key.replace("/m/", "/other/")))
    assert names(store) == expected


def test_a_root_of_another_store_s_ledger_is_passed_over(store: CountingStore) -> None:
    foreign = MemoryStore()
    publish(Registry(foreign, actor="eve"), "m", "9.0.0")
    filled(foreign, 9)
    filled(store, 9)
    expected = names(store)
    for key in keys(foreign, "models/m/snapshots/"):
        replace(store, key, foreign.get(key))
    assert names(store) == expected


def test_lost_pages_are_written_again_with_the_next_root(store: CountingStore) -> None:
    registry = filled(store, EVERY)
    for key in keys(store, "models/m/snapshots/pages/"):
        store.delete(key)
    for number in range(EVERY):
        publish(registry, "m", f"2.{number}.0")
    store.read.clear()
    assert len(names(store)) == 2 * EVERY
    assert sum("/ledger/" in key for key in store.read) == 2


def test_a_damaged_page_is_cleared_away_by_whoever_finds_it(store: CountingStore) -> None:
    filled(store, EVERY)
    pages = keys(store, "models/m/snapshots/pages/")
    replace(store, pages[0], b"[]")
    assert len(names(store)) == EVERY
    assert keys(store, "models/m/snapshots/pages/") == pages[1:]


def test_a_ledger_that_was_cut_is_told_by_its_snapshot(store: CountingStore) -> None:
    filled(store, 2 * EVERY)
    store.delete(entry_key("m", 2 * EVERY))
    with pytest.raises(LedgerDamaged, match=r"entry 16 .* is missing, though a snapshot was made of it"):
        names(store)


def test_a_gap_is_told_when_the_entries_are_all_there_is(store: CountingStore) -> None:
    filled(store, 5)
    store.delete(entry_key("m", 3))
    with pytest.raises(LedgerDamaged, match=r"entry 3 .* is missing, though later ones are there"):
        names(store)


def test_a_publish_succeeds_where_no_snapshot_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/snapshots").touch()  # a file where the folder should be
    registry = Registry(LocalStore(tmp_path))
    for number in range(EVERY + 1):
        publish(registry, "m", f"1.{number}.0")
    assert len(Registry(LocalStore(tmp_path)).versions("m")) == EVERY + 1


def test_a_model_made_anew_under_a_running_process_is_read_anew(store: CountingStore) -> None:
    registry = filled(store, 2)
    for key in keys(store, "models/"):
        store.delete(key)
    publish(registry, "m", "3.0.0")
    assert names(store) == ["3.0.0"]


def test_a_snapshot_that_names_another_manifest_fails_verification(store: CountingStore) -> None:
    marker.ensure(store)
    registry = filled(store, 2)
    state = registry.ledgers.state("m")
    first, second = state.catalog
    forged = structs.replace(second, digest=first.digest)
    registry.ledgers.snapshots("m").write(structs.replace(state, catalog=state.catalog.with_record(forged)))
    report = Keep(store).verify("m")
    assert f"no entry publishes {first.digest} as m:{second.version}" in report.failures[0].message


def test_a_ledger_that_is_gone_is_told_by_any_page_left(store: CountingStore) -> None:
    filled(store, EVERY)
    for info in [*store.list("models/m/ledger/"), *store.list("models/m/snapshots/0")]:
        store.delete(info.key)
    registry = Registry(store)
    assert "entry 1 of the ledger of 'm' is missing" in str(registry.models()[0].damage)
    assert not fsck(registry).ok
    with pytest.raises(LedgerDamaged):
        publish(registry, "m")
