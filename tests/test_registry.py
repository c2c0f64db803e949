"""Publishing, resolving, and moving names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from modelkeep import ledgers
from modelkeep.catalog import Attachment
from modelkeep.entry import Entry, Move, Refuse, entry_key
from modelkeep.errors import (
    AliasNotFound,
    BlobMissing,
    Conflict,
    FormatTooNew,
    GateRefused,
    IntegrityError,
    InvalidRef,
    LedgerDamaged,
    ModelkeepError,
    ModelNotFound,
    ObjectExists,
    UsageError,
    VersionExists,
    VersionNotFound,
)
from modelkeep.gc import gc
from modelkeep.manifest import Environment, Lineage, Manifest, Part, canonical_json
from modelkeep.refs import SemVer
from modelkeep.registry import Registry
from modelkeep.report import Finding, Report, Severity
from modelkeep.storage.blobs import blob_key
from modelkeep.storage.envelope import seal
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore
from modelkeep.storage.protocol import Buffer
from small_versions import publish


class Clock:
    """A day goes by whenever it is told so."""

    def __init__(self) -> None:
        self.time = datetime(2024, 5, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def days_pass(self, days: int) -> None:
        self.time += timedelta(days=days)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> Registry:
    return Registry(MemoryStore(), actor="ada@lab", clock=clock)


def publish_all(registry: Registry, *versions: str) -> None:
    for version in versions:
        publish(registry, "m", version)


def resolved(registry: Registry, ref: str) -> str:
    return Registry(registry.store).resolve(ref).record.version


def refusal() -> GateRefused:
    finding = Finding("gate", Severity.FAILURE, "accuracy is 0.5", "accuracy >= 0.8", {"values": {"accuracy": 0.5}})
    return GateRefused("not good enough", report=Report("gates", (finding,), GateRefused))


# --- publishing


def test_a_published_version_says_what_its_manifest_says(registry: Registry) -> None:
    record = publish(
        registry,
        "team/m",
        bump="minor",
        part=b"config",
        metrics={"accuracy": 0.9},
        metadata={"dataset": {"name": "reviews"}},
        tags=("nightly",),
        note="first",
        parameters=7,
        lineage=Lineage(parent="team/base:1.0.0"),
        environment=Environment(
            python="3.11", platform="linux", machine="x", backend="jax", packages={"keras": "3.15.1"}
        ),
    )
    assert (record.version, record.metrics, record.metadata) == (
        "1.0.0",
        {"accuracy": 0.9},
        {"dataset": {"name": "reviews"}},
    )
    assert (record.tags, record.note, record.parent) == (("nightly",), "first", "team/base:1.0.0")
    assert (record.backend, record.keras, record.parameters, record.size) == ("jax", "3.15.1", 7, 6)
    assert record.new_bytes > len(b"config")
    assert (record.actor, record.created) == ("ada@lab", "2024-05-01T12:00:00.000000Z")
    assert Registry(registry.store).resolve("team/m").record == record
    assert registry.manifest("team/m", record).metrics == {"accuracy": 0.9}


def test_bumps_follow_each_other(registry: Registry) -> None:
    found = [publish(registry, "m", bump=bump).version for bump in (None, None, "patch", "major", "prerelease")]
    assert found == ["1.0.0", "1.1.0", "1.1.1", "2.0.0", "2.0.1-dev.20240501120000"]


def test_a_lower_number_may_come_later_but_never_twice(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "2.0.0", "1.0.1")
    assert resolved(registry, "m") == "2.0.0"
    for taken in ("1.0.1", "2.0.0+build"):
        with pytest.raises(VersionExists):
            registry.next_version("m", version=taken)


def test_a_number_is_asked_for_in_one_way(registry: Registry) -> None:
    with pytest.raises(UsageError, match="two ways"):
        registry.next_version("m", version="1.0.0", bump="minor")
    with pytest.raises(UsageError, match="expected major, minor, patch, prerelease"):
        registry.next_version("m", bump="big")  # type: ignore[arg-type]
    with pytest.raises(InvalidRef):
        registry.next_version("m", version="1.0")
    with pytest.raises(InvalidRef):
        registry.next_version("../m")


def test_who_loses_the_race_for_a_number_builds_again_for_the_next(registry: Registry) -> None:
    other = Registry(registry.store)
    asked: list[str] = []

    def build(number: SemVer) -> Manifest:
        if not asked:
            publish(other, "m", bump="minor")
        asked.append(str(number))
        return Manifest(model="m", version=str(number), created="", writer="")

    assert registry.publish("m", build, bump="minor").version == "1.1.0"
    assert asked == ["1.0.0", "1.1.0"]


def test_who_loses_the_race_for_an_explicit_number_is_told(registry: Registry) -> None:
    other = Registry(registry.store)

    def build(number: SemVer) -> Manifest:
        publish(other, "m", "1.0.0")
        return Manifest(model="m", version=str(number), created="", writer="")

    with pytest.raises(VersionExists):
        registry.publish("m", build, version="1.0.0")
    assert len(registry.history("m")) == 1


def test_a_refused_version_leaves_its_numbers_and_nothing_else(registry: Registry) -> None:
    def build(number: SemVer) -> Manifest:
        raise refusal()

    with pytest.raises(GateRefused):
        registry.publish("m", build)
    (entry,) = registry.history("m")
    assert isinstance(entry.action, Refuse)
    assert (entry.action.version, entry.action.gates[0].values) == ("1.0.0", {"accuracy": 0.5})
    with pytest.raises(VersionNotFound, match="m has no version"):
        registry.resolve("m")
    assert publish(registry, "m").version == "1.0.0"


def test_blobs_are_looked_at_once_more_before_a_late_publish(registry: Registry) -> None:
    blob = registry.blobs.put(b"tensor")

    def build(number: SemVer) -> Manifest:
        part = Part(name="p", digest=blob, size=6)
        return Manifest(model="m", version=str(number), created="", writer="", parts=(part,))

    registry.store.delete(blob_key(blob))
    with pytest.raises(Conflict, match=r"a gc removed blobs of m:1\.0\.0"):
        registry.publish("m", build)
    with pytest.raises(ModelNotFound):
        registry.resolve("m")


def test_time_never_runs_backwards_in_a_ledger(registry: Registry, clock: Clock) -> None:
    publish_all(registry, "1.0.0")
    clock.days_pass(-3)
    publish_all(registry, "1.1.0")
    assert [entry.time for entry in registry.history("m")] == ["2024-05-01T12:00:00.000000Z"] * 2


def test_the_actor_is_whoever_runs_this_unless_given() -> None:
    publish(registry := Registry(MemoryStore()), "m")
    assert "@" in registry.history("m")[0].actor


def test_values_without_a_json_form_are_refused(registry: Registry) -> None:
    with pytest.raises(UsageError, match="not a JSON value"):
        publish(registry, "m", metrics={"loss": float("nan")})
    with pytest.raises(ModelNotFound):
        registry.history("m")


def test_a_manifest_of_another_version_is_not_published(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"found m:9\.0\.0, expected m:1\.0\.0"):
        registry.publish("m", lambda _: Manifest(model="m", version="9.0.0", created="", writer=""))


class Taken(MemoryStore):
    """A store in which somebody else always wrote the next entry a moment ago, and nobody can read it."""

    def create(self, key: str, chunks: Sequence[Buffer]) -> None:
        if "/ledger/" in key:
            raise ObjectExists(key)
        super().create(key, chunks)


def test_who_is_never_first_gives_up_with_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "LONGEST_PAUSE", 0)
    with pytest.raises(Conflict, match="were first 200 times in a row"):
        publish(Registry(Taken()), "m")


# --- resolving


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("m", "2.0.0"),
        ("m:1", "1.2.0"),
        ("m:1.1", "1.1.1"),
        ("m:1.1.0", "1.1.0"),
        ("m:3", "3.0.0-rc.1"),
        ("m:2.0.0-rc.1", "2.0.0-rc.1"),
        ("m@production", "1.1.0"),
    ],
)
def test_a_ref_selects_one_version(registry: Registry, ref: str, expected: str) -> None:
    publish_all(registry, "1.0.0", "1.1.0", "1.1.1", "1.2.0", "2.0.0-rc.1", "2.0.0", "3.0.0-rc.1")
    registry.promote("m:1.1.0", "production")
    assert resolved(registry, ref) == expected


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("other", ModelNotFound),
        ("m:1.0.1", VersionNotFound),
        ("m:2", VersionNotFound),
        ("m@staging", AliasNotFound),
        ("m@blake3:00000000", VersionNotFound),
    ],
)
def test_a_ref_to_nothing_names_what_is_missing(registry: Registry, ref: str, error: type[ModelkeepError]) -> None:
    publish_all(registry, "1.0.0")
    with pytest.raises(error):
        registry.resolve(ref)


def test_a_digest_or_its_beginning_selects_its_version(registry: Registry) -> None:
    publish(registry, "m", "1.0.0", part=b"a")
    record = publish(registry, "m", "1.1.0", part=b"b")
    publish(registry, "other", "1.1.0", part=b"b")
    assert registry.resolve(f"m@{record.digest}").record == record
    assert registry.resolve(f"m@{record.digest[:15]}").record == record
    with pytest.raises(VersionNotFound):
        registry.resolve(f"other@{record.digest}")


def test_a_tensor_s_digest_selects_nothing(registry: Registry) -> None:
    record = publish(registry, "m", part=b"tensor")
    (digest,) = registry.manifest("m", record).blobs()
    with pytest.raises(VersionNotFound):
        registry.resolve(f"m@{digest}")


def test_a_split_resolves_to_its_largest_share_and_tells_the_others(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0", "1.2.0")
    registry.split("m", "production", {"1.0.0": 20, "1.1.0": 40, "1.2.0": 40})
    found = registry.resolve("m@production")
    assert (found.record.version, found.alias) == ("1.2.0", "production")
    assert found.targets == {"1.0.0": 20, "1.1.0": 40, "1.2.0": 40}


def test_a_yanked_version_is_found_by_number_and_digest_only(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0")
    digest = registry.resolve("m:1.1.0").record.digest
    registry.yank("m:1.1.0", reason="leaks")
    assert [resolved(registry, ref) for ref in ("m", "m:1", "m:1.1.0", f"m@{digest}")] == [
        "1.0.0",
        "1.0.0",
        "1.1.0",
        "1.1.0",
    ]
    registry.yank("m:1.1.0", undo=True)
    assert resolved(registry, "m") == "1.1.0"


def test_a_ref_can_be_resolved_as_of_a_date(registry: Registry, clock: Clock) -> None:
    publish_all(registry, "1.0.0")
    registry.promote("m", "production")
    clock.days_pass(1)
    publish_all(registry, "2.0.0")
    registry.promote("m", "production")
    registry.delete("m:1.0.0")
    first, second = date(2024, 5, 1), date(2024, 5, 2)
    assert [registry.resolve("m@production", at=at).record.version for at in (first, second)] == ["1.0.0", "2.0.0"]
    assert registry.resolve("m", at="2024-05-01T12:00:00").record.version == "1.0.0"
    with pytest.raises(ModelNotFound, match="had no entry at 2024-04-30"):
        registry.resolve("m", at="2024-04-30")
    with pytest.raises(VersionNotFound):
        registry.resolve("m:2.0.0", at=first)


# --- listing


def test_models_are_listed_with_what_matters(registry: Registry, clock: Clock) -> None:
    publish(registry, "team/b", "1.0.0")
    publish(registry, "team/b", "1.1.0-rc.1")
    publish(registry, "team", "2.0.0")
    registry.promote("team/b", "production")
    clock.days_pass(1)
    registry.delete("team/b:1.1.0-rc.1")
    team, b = Registry(registry.store).models()
    assert (team.name, b.name, b.versions, b.updated) == ("team", "team/b", 1, "2024-05-02T12:00:00.000000Z")
    assert b.newest is not None
    assert (b.newest.ref, b.aliases, b.stored) == ("team/b:1.0.0", {"production": {"1.0.0": 100}}, b.newest.new_bytes)


def test_one_damaged_ledger_does_not_hide_the_other_models(registry: Registry) -> None:
    publish(registry, "a")
    publish(registry, "b")
    key = entry_key("a", 1)
    data = registry.store.get(key)
    registry.store.delete(key)
    registry.store.create(key, [data[:-1]])
    a, b = Registry(registry.store).models()
    assert isinstance(a.damage, LedgerDamaged)
    assert (b.versions, b.damage) == (1, None)


def test_records_of_all_models_can_be_searched(registry: Registry) -> None:
    publish(registry, "a", "1.0.0")
    publish(registry, "b", "1.0.0", metrics={"accuracy": 0.9})
    publish(registry, "b", "1.1.0")
    registry.delete("b:1.1.0")
    assert [(model, record.metrics) for model, record in registry.records()] == [("a", {}), ("b", {"accuracy": 0.9})]
    assert [model for model, _ in registry.records("a")] == ["a"]


# --- aliases


def test_rollbacks_go_further_and_further_back(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0", "1.2.0")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        registry.promote(f"m:{version}", "production")
    registry.split("m", "production", {"1.1.0": 10, "1.2.0": 90})
    seen = []
    for _ in range(3):
        registry.rollback("m", "production")
        seen.append(resolved(registry, "m@production"))
    assert seen == ["1.2.0", "1.1.0", "1.0.0"]
    with pytest.raises(Conflict, match="no earlier move"):
        registry.rollback("m", "production")


def test_a_rollback_after_a_rollback_and_a_promotion_goes_back_to_where_it_was(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0", "1.2.0")
    registry.promote("m:1.0.0", "production")
    registry.promote("m:1.1.0", "production")
    registry.rollback("m", "production")
    registry.promote("m:1.2.0", "production")
    registry.rollback("m", "production")
    assert resolved(registry, "m@production") == "1.0.0"


def test_a_rollback_reads_as_much_however_long_the_history(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0")
    for _ in range(30):
        registry.promote("m:1.0.0", "production")
        registry.promote("m:1.1.0", "production")
    entry = registry.rollback("m", "production")
    assert isinstance(entry.action, Move)
    assert (entry.action.kind, entry.action.targets, entry.action.beneath) == (
        "rollback",
        {"1.0.0": 100},
        entry.seq - 3,
    )


def test_a_removed_alias_comes_back_by_rollback(registry: Registry) -> None:
    publish_all(registry, "1.0.0")
    registry.promote("m", "production")
    registry.remove_alias("m", "production")
    with pytest.raises(AliasNotFound):
        registry.resolve("m@production")
    registry.rollback("m", "production")
    assert resolved(registry, "m@production") == "1.0.0"


def test_pointing_an_alias_where_it_points_changes_nothing(registry: Registry) -> None:
    publish_all(registry, "1.0.0")
    first = registry.promote("m", "production")
    assert registry.promote("m:1.0.0", "production") == first
    assert len(registry.history("m")) == 2


def test_a_rollback_to_a_version_that_is_gone_says_so(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0")
    registry.promote("m:1.0.0", "production")
    registry.promote("m:1.1.0", "production")
    registry.delete("m:1.0.0")
    with pytest.raises(Conflict, match=r"cannot go back: m has no version 1\.0\.0, it was deleted"):
        registry.rollback("m", "production")


def test_an_alias_that_somebody_else_moved_meanwhile_is_left_alone(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0")
    other = Registry(registry.store)
    with pytest.raises(Conflict, match="somebody else moved m@production"):
        registry.promote("m:1.0.0", "production", judge=lambda _: other.promote("m:1.1.0", "production"))
    assert resolved(registry, "m@production") == "1.1.0"


def test_an_entry_about_something_else_does_not_disturb_a_promotion(registry: Registry) -> None:
    publish_all(registry, "1.0.0")
    other = Registry(registry.store)
    registry.promote("m:1.0.0", "production", judge=lambda _: publish(other, "m", "1.1.0"))
    assert resolved(registry, "m@production") == "1.0.0"


def test_a_refused_promotion_is_remembered_with_the_alias(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0")
    registry.promote("m:1.0.0", "production")

    def judge(record: object) -> None:
        raise refusal()

    with pytest.raises(GateRefused):
        registry.promote("m:1.1.0", "production", judge=judge)
    assert resolved(registry, "m@production") == "1.0.0"
    refused = registry.history("m", "production")[-1].action
    assert isinstance(refused, Refuse)
    assert (refused.version, refused.alias) == ("1.1.0", "production")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"1.0.0": 60, "1.1.0": 60}, "found 120 in all, expected 100 in all"),
        ({"1.0.0": 100, "1.1.0": 0}, "must be positive"),
        ({"1.0.0": float("nan"), "1.1.0": 50}, "must be positive"),
        ({}, "cannot name 0 versions"),
    ],
)
def test_shares_are_per_cent(registry: Registry, weights: dict[str, float], message: str) -> None:
    publish_all(registry, "1.0.0", "1.1.0")
    with pytest.raises(UsageError, match=message):
        registry.split("m", "production", weights)


def test_history_tells_who_when_and_why(registry: Registry, clock: Clock) -> None:
    publish_all(registry, "1.0.0")
    clock.days_pass(1)
    registry.promote("m", "production", reason="better")
    registry.promote("m", "staging")
    (entry,) = registry.history("m", "production")
    assert (entry.actor, entry.time, entry.reason) == ("ada@lab", "2024-05-02T12:00:00.000000Z", "better")
    assert len(registry.history("m")) == 3
    with pytest.raises(AliasNotFound, match="never had an alias"):
        registry.history("m", "canary")


# --- saying more, taking away


def kinds(entries: Sequence[Entry]) -> list[str]:
    return [type(entry.action).__name__ for entry in entries]


def test_tags_notes_and_attachments_can_come_later(registry: Registry) -> None:
    publish(registry, "m", "1.0.0", tags=("old",))
    registry.annotate("m", add=("good", "new"), remove=("old",), note="see the report")
    onnx = Attachment(kind="onnx", digest=registry.blobs.put(b"onnx"), size=4)
    registry.attach("m", onnx)
    record = Registry(registry.store).resolve("m").record
    assert (record.tags, record.note, record.attachments) == (("good", "new"), "see the report", (onnx,))
    assert kinds(registry.history("m")) == ["Publish", "Annotate", "Attach"]


def test_what_is_attached_must_be_there(registry: Registry) -> None:
    publish_all(registry, "1.0.0")
    with pytest.raises(BlobMissing):
        registry.attach("m", Attachment(kind="onnx", digest="blake3:" + "0" * 64, size=4))


def test_a_deleted_version_is_gone_and_its_number_stays_taken(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0")
    digest = registry.resolve("m:1.1.0").record.digest
    registry.delete("m:1.1.0")
    assert [record.version for record in registry.versions("m")] == ["1.0.0"]
    for ref in ("m:1.1.0", f"m@{digest}"):
        with pytest.raises(VersionNotFound):
            registry.resolve(ref)
    assert str(registry.next_version("m", bump="minor")) == "1.2.0"


@pytest.mark.parametrize("ref", ["m", "m:1", "m@production"])
def test_only_a_version_named_exactly_is_deleted(registry: Registry, ref: str) -> None:
    publish_all(registry, "1.0.0")
    with pytest.raises(UsageError, match="named exactly"):
        registry.delete(ref)


def test_what_an_alias_points_at_is_neither_deleted_nor_yanked(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0")
    registry.split("m", "production", {"1.0.0": 90, "1.1.0": 10})
    for take_away in (registry.delete, registry.yank):
        with pytest.raises(Conflict, match="while m@production points at it"):
            take_away("m:1.1.0")
    assert len(registry.history("m")) == 3


def test_a_rollback_passes_over_the_time_without_the_alias(registry: Registry) -> None:
    publish_all(registry, "1.0.0", "1.1.0")
    registry.promote("m:1.0.0", "production")
    registry.remove_alias("m", "production")
    registry.promote("m:1.1.0", "production")
    registry.rollback("m", "production")
    assert resolved(registry, "m@production") == "1.0.0"
    with pytest.raises(Conflict, match="no earlier move"):
        registry.rollback("m", "production")


def test_a_version_whose_manifest_is_damaged_is_still_found_by_its_digest(registry: Registry) -> None:
    digest = publish(registry, "m", "1.0.0").digest
    registry.store.delete(blob_key(digest))
    registry.store.create(blob_key(digest), [b"damaged"])
    record = registry.resolve(f"m@{digest[:20]}").record
    assert record.version == "1.0.0"
    with pytest.raises(IntegrityError, match="is damaged"):
        registry.manifest("m", record)


def test_what_cannot_be_an_alias_is_neither_judged_nor_recorded(registry: Registry) -> None:
    publish_all(registry, "1.0.0")
    with pytest.raises(InvalidRef, match="not an alias"):
        registry.promote("m", "to production", judge=lambda _: pytest.fail("judged"))
    assert len(registry.history("m")) == 1


@pytest.mark.parametrize("share", ["most", None, 10**400])
def test_a_share_that_is_no_number_is_told(registry: Registry, share: object) -> None:
    publish_all(registry, "1.0.0")
    with pytest.raises(UsageError, match="must be a number"):
        registry.split("m", "production", {"1.0.0": share})  # type: ignore[dict-item]


def test_a_split_takes_versions_as_they_are_handed_out(registry: Registry) -> None:
    publish_all(registry, "1.0.0")
    registry.split("m", "production", {SemVer(1): 100})  # type: ignore[dict-item]
    assert resolved(registry, "m@production") == "1.0.0"


def test_a_manifest_that_could_not_be_read_again_is_not_published(registry: Registry) -> None:
    with pytest.raises(UsageError, match="not what a manifest can hold"):
        publish(registry, "m", lineage=Lineage(data_digest=5))  # type: ignore[arg-type]
    assert registry.models() == []


def test_time_travel_tells_of_a_gap_rather_than_stopping_there(registry: Registry, clock: Clock) -> None:
    for _ in range(9):
        publish(registry, "m")
    clock.days_pass(1)
    publish(registry, "m")
    registry.store.delete(entry_key("m", 5))
    with pytest.raises(LedgerDamaged, match=r"entry 5 .* is missing"):
        Registry(registry.store).resolve("m", at="2024-05-01")


def test_folders_that_can_be_no_model_s_are_strangers(tmp_path: Path) -> None:
    registry = Registry(LocalStore(tmp_path))
    publish_all(registry, "1.0.0")
    for name in (".ipynb_checkpoints", "my model"):
        (tmp_path / "models" / name).mkdir()
        (tmp_path / "models" / name / "notes.txt").write_text("not a model")
    assert [model.name for model in registry.models()] == ["m"]
    assert gc(registry, dry_run=True).kept == 2


def test_a_ledger_of_a_later_format_does_not_hide_the_other_models(registry: Registry) -> None:
    publish(registry, "m")
    state = registry.ledgers.state("m")
    body = {"format": 2, "model": "n", "seq": 1, "previous": "", "time": state.time, "actor": "x", "action": {}}
    registry.store.create(entry_key("n", 1), [seal(canonical_json(body))[0]])
    assert [(model.name, type(model.damage)) for model in registry.models()] == [("m", type(None)), ("n", FormatTooNew)]
