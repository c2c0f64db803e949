"""Sweeping blobs that no version refers to, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from modelkeep.catalog import Attachment
from modelkeep.entry import entry_key
from modelkeep.errors import BlobMissing, FormatTooNew, IntegrityError, LedgerDamaged, ModelkeepError, UsageError
from modelkeep.gc import gc
from modelkeep.registry import Registry
from modelkeep.runs import Runs
from modelkeep.snapshots import EVERY
from modelkeep.storage.blobs import Blobs, blob_key
from modelkeep.storage.memory import MemoryStore
from small_runs import GoingOn, add
from small_versions import publish

NOW = timedelta(0)


@pytest.fixture
def registry() -> Registry:
    return Registry(MemoryStore())


def blobs(registry: Registry) -> set[str]:
    return {digest for digest, _ in registry.blob_objects()}


def damage(registry: Registry, key: str) -> None:
    data = registry.store.get(key)
    registry.store.delete(key)
    registry.store.create(key, [data[:-1]])


def test_only_what_nothing_refers_to_is_removed(registry: Registry) -> None:
    record = publish(registry, "m", "1.0.0", part=b"part", tensors=[b"a", b"b"])
    attached = registry.blobs.put(b"onnx")
    registry.attach("m", Attachment(kind="onnx", digest=attached, size=4))
    stray = registry.blobs.put(b"stray")
    swept = gc(registry, grace=NOW)
    assert (swept.kept, swept.young, swept.removed, swept.removed_bytes) == (4, 0, 1, len(b"stray"))
    assert blobs(registry) == registry.manifest("m", record).blobs() | {record.digest, attached}
    assert stray not in blobs(registry)


def test_a_deleted_version_s_bytes_go_and_shared_ones_stay(registry: Registry) -> None:
    kept = publish(registry, "m", "1.0.0", part=b"shared")
    publish(registry, "m", "1.1.0", part=b"shared", tensors=[b"its own"])
    registry.delete("m:1.1.0")
    assert gc(registry, grace=NOW).removed == 2  # the manifest and the tensor
    assert registry.blobs.get(*registry.manifest("m", kept).blobs()) == b"shared"


def test_a_yanked_version_stays_whole(registry: Registry) -> None:
    publish(registry, "m", "1.0.0")
    registry.yank("m:1.0.0")
    assert gc(registry, grace=NOW).removed == 0


def test_an_attachment_that_was_replaced_goes(registry: Registry) -> None:
    publish(registry, "m", "1.0.0")
    for data in (b"old", b"new"):
        registry.attach("m", Attachment(kind="onnx", digest=registry.blobs.put(data), size=3))
    assert gc(registry, grace=NOW).removed_bytes == len(b"old")


def test_young_blobs_are_left_for_the_save_that_is_writing_them(registry: Registry) -> None:
    registry.blobs.put(b"stray")
    swept = gc(registry)
    assert (swept.young, swept.young_bytes, swept.removed) == (1, len(b"stray"), 0)


def test_a_blob_refreshed_while_gc_runs_stays(registry: Registry) -> None:
    stray = registry.blobs.put(b"stray")
    publish(registry, "m")
    time.sleep(0.02)
    swept = gc(registry, grace=NOW, progress=lambda *_: registry.blobs.refresh([stray]) and None)
    assert (swept.removed, stray in blobs(registry)) == (0, True)


def test_a_dry_run_tells_and_does_nothing(registry: Registry) -> None:
    registry.blobs.put(b"stray")
    swept = gc(registry, grace=NOW, dry_run=True)
    assert (swept.removed, swept.removed_bytes, swept.dry_run) == (1, len(b"stray"), True)
    assert len(blobs(registry)) == 1


def test_progress_is_told(registry: Registry) -> None:
    publish(registry, "m")
    registry.blobs.put(b"stray")
    told: list[tuple[str, int, int]] = []
    gc(registry, grace=NOW, progress=lambda *step: told.append(step))
    assert told == [("marking models", 1, 1), ("removing blobs", 1, 1)]


def lose_the_manifest(registry: Registry) -> None:
    registry.store.delete(blob_key(registry.resolve("m:1.0.0").record.digest))


def damage_the_manifest(registry: Registry) -> None:
    damage(registry, blob_key(registry.resolve("m:1.0.0").record.digest))


def damage_an_entry(registry: Registry) -> None:
    damage(registry, entry_key("m", 1))


def cut_the_ledger(registry: Registry) -> None:
    registry.store.delete(entry_key("m", EVERY))


def lose_the_ledger(registry: Registry) -> None:
    for seq in range(1, EVERY + 1):
        registry.store.delete(entry_key("m", seq))


def hold_something_of_a_later_modelkeep(registry: Registry) -> None:
    registry.store.create("datasets/d/1.json", [b"{}"])


@pytest.mark.parametrize(
    ("doubt", "error"),
    [
        (lose_the_manifest, BlobMissing),
        (damage_the_manifest, IntegrityError),
        (damage_an_entry, LedgerDamaged),
        (cut_the_ledger, LedgerDamaged),
        (lose_the_ledger, LedgerDamaged),
        (hold_something_of_a_later_modelkeep, FormatTooNew),
    ],
)
def test_on_any_doubt_nothing_is_removed(registry: Registry, doubt: object, error: type[ModelkeepError]) -> None:
    for number in range(EVERY):
        publish(registry, "m", f"1.{number}.0")
    registry.blobs.put(b"stray")
    doubt(registry)  # type: ignore[operator]
    before = blobs(registry)
    with pytest.raises(error):
        gc(Registry(registry.store), grace=NOW)
    assert blobs(registry) == before


def test_documents_elsewhere_can_hold_on_to_blobs(registry: Registry) -> None:
    held = registry.blobs.put(b"slot")
    registry.store.create("datasets/d/1.json", [held.encode()])
    swept = gc(registry, grace=NOW, roots={"datasets": lambda data: [data.decode()]})
    assert (swept.kept, swept.removed) == (1, 0)


def test_what_a_checkpoint_needs_stays(registry: Registry) -> None:
    checkpoint = add(registry.store, "team/r", 1, b"weights", b"slots")
    registry.blobs.put(b"stray")
    assert gc(registry, grace=NOW).removed_bytes == len(b"stray")
    assert blobs(registry) == Runs(registry.store, registry.blobs).digests(checkpoint)


def lose_a_checkpoint_s_manifest(registry: Registry) -> None:
    registry.store.delete(blob_key(add(registry.store, "r", 1).manifest))


def damage_a_checkpoint(registry: Registry) -> None:
    add(registry.store, "r", 1)
    damage(registry, "checkpoints/r/entries/000000000001.json")


@pytest.mark.parametrize("doubt", [lose_a_checkpoint_s_manifest, damage_a_checkpoint])
def test_on_any_doubt_about_a_checkpoint_nothing_is_removed(
    registry: Registry, doubt: Callable[[Registry], None]
) -> None:
    registry.blobs.put(b"stray")
    doubt(registry)
    before = blobs(registry)
    with pytest.raises(IntegrityError):
        gc(registry, grace=NOW)
    assert blobs(registry) == before


@pytest.mark.parametrize("turns", range(1, 12))
def test_what_a_run_goes_on_needing_is_never_taken_while_it_goes_on(turns: int) -> None:
    store = MemoryStore()
    add(store, "r", 0, b"frozen", b"first")
    gc(Registry(GoingOn(store, turns)), grace=NOW)
    runs = Runs(store, Blobs(store))
    (last,) = runs.checkpoints("r")
    assert last.step == turns
    assert runs.digests(last) <= {"blake3:" + info.key.rpartition("/")[2] for info in store.list("blobs/")}


def test_a_negative_grace_is_refused(registry: Registry) -> None:
    with pytest.raises(UsageError, match="cannot be negative"):
        gc(registry, grace=timedelta(seconds=-1))
