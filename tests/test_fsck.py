"""Reading a whole store again: what is damaged, and which versions it touches."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.entry import entry_key
from modelkeep.fsck import fsck
from modelkeep.manifest import Manifest, Part, Piece, Tensor
from modelkeep.registry import Registry
from modelkeep.report import Finding, Severity
from modelkeep.retention import Retention
from modelkeep.runs import Runs
from modelkeep.snapshots import EVERY
from modelkeep.storage.blobs import blob_key
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.memory import MemoryStore
from small_runs import add
from small_versions import publish


@pytest.fixture
def registry() -> Registry:
    return filled(Registry(MemoryStore()))


def filled(registry: Registry) -> Registry:
    publish(registry, "a", "1.0.0", part=b"of a", tensors=[b"first", b"second"])
    for number in range(EVERY + 1):
        publish(registry, "b", f"1.{number}.0", part=b"of b", tensors=[b"first", b"second"])
    registry.promote("b", "production")
    return registry


def found(registry: Registry, severity: Severity = Severity.FAILURE) -> list[Finding]:
    return [finding for finding in fsck(Registry(registry.store)) if finding.severity is severity]


def replace(registry: Registry, key: str, data: bytes) -> None:
    registry.store.delete(key)
    registry.store.create(key, [data])


def flip(registry: Registry, key: str, position: int = 0, by: int = 1) -> None:
    data = bytearray(registry.store.get(key))
    data[position % len(data)] ^= by
    replace(registry, key, bytes(data))


def test_a_whole_store_passes(registry: Registry) -> None:
    report = fsck(registry)
    assert report.ok
    assert [finding.message for finding in report] == [
        "11 entries of 2 models fit together",
        "13 blobs, " + report.findings[1].message.partition(", ")[2],
    ]


def test_an_empty_store_passes() -> None:
    assert fsck(Registry(MemoryStore())).ok


def test_a_damaged_blob_names_every_version_that_needs_it(registry: Registry) -> None:
    flip(registry, blob_key(digest_of(b"firstsecond")))
    (failure,) = found(registry)
    assert (failure.check, failure.subject) == ("blob", digest_of(b"firstsecond"))
    assert failure.details["versions"] == sorted(["a:1.0.0", *(f"b:1.{number}.0" for number in range(EVERY + 1))])


def test_a_missing_blob_names_the_version_that_needs_it(registry: Registry) -> None:
    registry.store.delete(blob_key(digest_of(b"of a")))
    (failure,) = found(registry)
    assert "missing" in failure.message
    assert failure.details["versions"] == ["a:1.0.0"]


def test_checkpoints_are_checked_and_named_by_their_step(registry: Registry) -> None:
    add(registry.store, "team/r", 1200, b"weights")
    add(registry.store, "team/r", 1300, b"weights", b"more")
    assert "2 checkpoints of 1 runs can be read" in [finding.message for finding in fsck(registry)]
    flip(registry, blob_key(digest_of(b"more")))
    registry.store.delete(blob_key(digest_of(b"weights")))
    assert {failure.subject: failure.details["versions"] for failure in found(registry)} == {
        digest_of(b"more"): ["team/r@1300"],
        digest_of(b"weights"): ["team/r@1200", "team/r@1300"],
    }


def test_a_damaged_checkpoint_is_told_by_its_number(registry: Registry) -> None:
    add(registry.store, "r", 1, b"weights")
    add(registry.store, "r", 2, b"weights")
    flip(registry, "checkpoints/r/entries/000000000002.json", 100)
    (failure,) = found(registry)
    assert (failure.check, failure.subject) == ("checkpoint", "checkpoint 2 of r")
    assert failure.details["versions"] == ["r@1"]


def test_what_a_run_deletes_while_it_is_checked_is_no_damage(registry: Registry) -> None:
    add(registry.store, "r", 1, b"old")
    add(registry.store, "r", 2, b"new")

    def go_on(what: str, *_: int) -> None:
        if what == "reading checkpoints":
            Runs(registry.store, registry.blobs).prune("r", Retention(last=1))

    assert fsck(registry, progress=go_on).ok
    assert registry.blobs.refresh([digest_of(b"old")]) == [digest_of(b"old")]


def test_a_damaged_manifest_is_one_finding(registry: Registry) -> None:
    record = registry.resolve("a").record
    flip(registry, blob_key(record.digest))
    (failure,) = found(registry)
    assert (failure.subject, failure.details["versions"]) == (record.digest, ["a:1.0.0"])


def test_every_damage_is_found_in_one_run(registry: Registry) -> None:
    flip(registry, blob_key(digest_of(b"of a")))
    flip(registry, entry_key("b", 3))
    flip(registry, entry_key("b", 6))
    registry.store.delete(entry_key("b", 5))
    subjects = {failure.subject for failure in found(registry)}
    assert subjects == {digest_of(b"of a"), "entry 3 of b", "entry 5 of b", "entry 6 of b"}


def test_an_entry_moved_from_another_store_breaks_the_chain(registry: Registry) -> None:
    other = filled(Registry(MemoryStore(), actor="eve"))
    replace(registry, entry_key("b", 4), other.store.get(entry_key("b", 4)))
    assert [failure.subject for failure in found(registry)] == ["entry 4 of b", "entry 5 of b"]


def test_a_cut_ledger_is_told_by_its_snapshot(registry: Registry) -> None:
    for seq in range(EVERY, EVERY + 3):
        registry.store.delete(entry_key("b", seq))
    (failure,) = found(registry)
    assert failure.message == f"ends at entry {EVERY - 1}, but a snapshot was made of {EVERY}"


def test_lost_snapshots_are_no_failure(registry: Registry) -> None:
    root, page = sorted(info.key for info in registry.store.list("models/b/snapshots/"))
    flip(registry, page)
    (warning,) = found(registry, Severity.WARNING)
    assert "1 of its pages are lost" in warning.message
    flip(registry, root)
    (warning,) = found(registry, Severity.WARNING)
    assert (warning.message, warning.subject) == ("cannot be read, and is passed over", root)
    assert found(registry) == []


def test_a_snapshot_that_lies_is_a_failure(registry: Registry) -> None:
    from modelkeep.storage.envelope import seal, unseal

    key = f"models/b/snapshots/{EVERY:012d}.json"
    body = unseal(registry.store.get(key))[0]
    replace(registry, key, seal(body.replace(b'"live":8', b'"live":7'))[0])
    (failure,) = found(registry)
    assert (failure.check, failure.subject) == ("snapshot", key)


def test_what_nothing_refers_to_is_counted_and_its_damage_told(registry: Registry) -> None:
    registry.blobs.put(b"stray")
    (note,) = found(registry, Severity.NOTE)
    assert "1 blobs, 5 B, are referred to by no version" in note.message
    flip(registry, blob_key(digest_of(b"stray")))
    (warning,) = found(registry, Severity.WARNING)
    assert warning.subject == digest_of(b"stray")


def lying(registry: Registry, **said: object) -> None:
    def build(number: object) -> Manifest:
        return Manifest(model="c", version=str(number), created="", writer="", kind="weights", **said)  # type: ignore[arg-type]

    registry.publish("c", build)


def test_a_manifest_that_names_other_bytes_of_a_pack_is_found(registry: Registry) -> None:
    pack = registry.blobs.put(b"firstsecond")
    pieces = (Piece(blob=pack, offset=1, size=5),)
    lying(registry, tensors=(Tensor(name="w", dtype="uint8", shape=(5,), digest=digest_of(b"first"), pieces=pieces),))
    (failure,) = found(registry)
    assert (failure.check, failure.subject, failure.details["versions"]) == ("tensor", digest_of(b"first"), ["c:1.0.0"])


def test_a_tensor_that_reaches_beyond_its_pack_is_found(registry: Registry) -> None:
    pieces = (Piece(blob=registry.blobs.put(b"firstsecond"), offset=8, size=5),)
    lying(registry, tensors=(Tensor(name="w", dtype="uint8", shape=(5,), digest=digest_of(b"first"), pieces=pieces),))
    assert found(registry)


def test_a_part_of_another_size_is_found(registry: Registry) -> None:
    lying(registry, parts=(Part(name="p", digest=registry.blobs.put(b"four"), size=5),))
    (failure,) = found(registry)
    assert (failure.subject, failure.message) == ("c:1.0.0 p", "found 4 bytes, expected 5")
    assert failure.details["versions"] == ["c:1.0.0"]


def test_progress_reaches_its_end(registry: Registry) -> None:
    told: list[tuple[str, int, int]] = []
    fsck(registry, progress=lambda *step: told.append(step))
    last = {what: (done, total) for what, done, total in told}
    assert set(last) == {"reading ledgers", "reading manifests", "checking blobs", "checking tensors"}
    assert all(done == total for done, total in last.values())


_WHOLE = filled(Registry(MemoryStore())).store


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 255))
def test_any_changed_byte_of_an_entry_or_blob_is_found(data: st.DataObject, by: int) -> None:
    registry = Registry(MemoryStore())
    for info in _WHOLE.list(""):
        registry.store.create(info.key, [_WHOLE.get(info.key)])
    keys = sorted(info.key for info in _WHOLE.list("") if "/snapshots/" not in info.key)
    flip(registry, data.draw(st.sampled_from(keys)), data.draw(st.integers(0, 1000)), by)
    assert found(registry)
