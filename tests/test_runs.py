"""Checkpoints of a run: added by one process at a time, found, and deleted with what they alone needed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from msgspec.structs import replace

import modelkeep as mk
from modelkeep.curves import Curves
from modelkeep.errors import (
    CheckpointNotFound,
    Conflict,
    IntegrityError,
    InvalidRef,
    ModelNotFound,
    RunNotFound,
    StorageError,
    StoreNotFound,
    UnsafeContent,
    UsageError,
    VersionNotFound,
)
from modelkeep.gc import gc
from modelkeep.keep import Keep
from modelkeep.manifest import decode
from modelkeep.manifest import encode as encode_manifest
from modelkeep.registry import Registry
from modelkeep.retention import Retention
from modelkeep.runs import Progress, Runs, version_of
from modelkeep.storage import marker
from modelkeep.storage.blobs import Blobs, blob_key
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.memory import MemoryStore
from modelkeep.storage.protocol import Buffer
from modelkeep.testing.faults import Fault, FaultyStore
from small_runs import GoingOn, add, draft
from small_versions import publish


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def runs(store: MemoryStore) -> Runs:
    return Runs(store, Blobs(store))


def damage(store: MemoryStore, number: int, run: str = "r") -> None:
    key = f"checkpoints/{run}/entries/{number:012d}.json"
    data = store.get(key)
    store.delete(key)
    store.create(key, [data[:-2] + b"x}"])


def steps(runs: Runs, run: str = "r") -> list[int]:
    return [checkpoint.step for checkpoint in runs.checkpoints(run)]


def blobs_of(store: MemoryStore) -> set[str]:
    return {"blake3:" + info.key.rpartition("/")[2] for info in store.list("blobs/")}


def test_checkpoints_are_numbered_and_told_in_order(store: MemoryStore, runs: Runs) -> None:
    added = [add(store, "team/r", step, runs=runs, metrics={"loss": 1 / step}) for step in (1, 2, 3)]
    assert [checkpoint.number for checkpoint in added] == [1, 2, 3]
    assert runs.checkpoints("team/r") == added
    assert list(runs.names()) == ["team/r"]
    assert added[0].created.endswith("Z")


def test_the_last_the_best_and_any_step_are_found(store: MemoryStore, runs: Runs) -> None:
    for step, loss in ((10, 0.5), (20, 0.25), (30, 0.75)):
        add(store, "r", step, runs=runs, metrics={"loss": loss})
    assert [runs.find("r", at).step for at in ("last", "best", 10)] == [30, 20, 10]
    with pytest.raises(CheckpointNotFound, match=r"no checkpoint after step 15.*\n.*modelkeep checkpoints r"):
        runs.find("r", 15)


def test_a_run_that_prunes_keeps_what_it_should(store: MemoryStore, runs: Runs) -> None:
    for step in (1, 2, 3):
        add(store, "r", step, b"frozen", b"weights %d" % step, runs=runs)
    pruned = runs.prune("r", Retention(last=1))
    assert [checkpoint.step for checkpoint in pruned.dropped] == [1, 2]
    assert steps(runs) == [3]
    (last,) = runs.checkpoints("r")
    assert blobs_of(store) == {last.manifest, digest_of(b"frozen"), digest_of(b"weights 3")}
    assert (pruned.removed_blobs, pruned.damaged) == (4, ())


# --- adding


def test_a_second_process_that_trains_the_same_run_is_noticed(store: MemoryStore, runs: Runs) -> None:
    other = Runs(store, Blobs(store))
    for process in (runs, other):
        with pytest.raises(RunNotFound):
            process.find("r")
    add(store, "r", 1, runs=runs)
    with pytest.raises(Conflict, match=r"(?s)another process trains 'r'.*number 1.*\n.*a run of its own name"):
        add(store, "r", 1, b"of another", runs=other)
    add(store, "r", 2, runs=runs)
    assert steps(runs) == [1, 2]


def test_a_second_process_is_noticed_though_retention_deleted_what_told_of_it(store: MemoryStore, runs: Runs) -> None:
    other = Runs(store, Blobs(store))
    for process in (runs, other):
        with pytest.raises(RunNotFound):
            process.find("r")
    for step in (1, 2, 3):
        add(store, "r", step, runs=runs)
    runs.prune("r", Retention(last=1))
    with pytest.raises(Conflict, match="number 3"):
        add(store, "r", 1, b"of another", runs=other)


class Meanwhile(FaultyStore):
    """Something happens just before the first entry is created."""

    def __init__(self, inner: MemoryStore, happens: Callable[[], object]) -> None:
        super().__init__(inner)
        self.happens = [happens]

    def create(self, key: str, chunks: Sequence[Buffer]) -> float:
        if "entries" in key and self.happens:
            self.happens.pop()()
        return super().create(key, chunks)


def test_a_second_process_is_noticed_at_the_very_moment(store: MemoryStore, runs: Runs) -> None:
    """The other one adds two and deletes the first of them after this one has looked at what is there."""
    add(store, "r", 1, runs=runs)

    def go_on() -> None:
        add(store, "r", 2, runs=runs)
        add(store, "r", 3, runs=runs)
        runs.prune("r", Retention(last=1))

    other = Runs(Meanwhile(store, go_on), Blobs(store))
    assert other.find("r").step == 1
    with pytest.raises(Conflict, match="number 3"):
        add(store, "r", 2, b"of another", runs=other)
    assert steps(runs) == [3]


def test_of_two_that_add_at_the_very_moment_one_does(store: MemoryStore, runs: Runs) -> None:
    other = Runs(Meanwhile(store, lambda: add(store, "r", 1, runs=runs)), Blobs(store))
    with pytest.raises(Conflict, match="number 1"):
        add(store, "r", 1, b"of another", runs=other)


@pytest.mark.parametrize("turns", range(1, 8))
def test_whoever_looks_finds_the_newest_while_the_run_goes_on(store: MemoryStore, turns: int) -> None:
    add(store, "r", 0)
    looking = GoingOn(store, turns)
    assert Runs(looking, Blobs(looking)).find("r").step > 0
    assert Runs(store, Blobs(store)).find("r").step == turns - looking.turns


def test_who_goes_on_from_the_newest_is_the_one_who_trains(store: MemoryStore, runs: Runs) -> None:
    add(store, "r", 1, runs=runs)
    resumed = Runs(store, Blobs(store))
    assert resumed.find("r").number == 1
    add(store, "r", 2, runs=resumed)
    with pytest.raises(Conflict):
        add(store, "r", 2, b"of the first", runs=runs)


def test_a_step_that_was_trained_again_is_found_as_it_was_last(store: MemoryStore, runs: Runs) -> None:
    for step in (1, 2, 1):
        add(store, "r", step, runs=runs)
    assert (runs.find("r", 1).number, runs.find("r").number) == (3, 3)


def test_a_lost_reply_is_no_other_process(store: MemoryStore) -> None:
    """The entry is there, though its writer was told that it is not: the next one follows it."""
    faulty = FaultyStore(store, Fault("create", key="entries", error=5, after=True))
    runs = Runs(faulty, Blobs(store))
    with pytest.raises(StorageError):
        add(store, "r", 1, runs=runs)
    assert add(store, "r", 2, runs=runs).number == 2


def test_what_a_collector_took_before_the_entry_was_written_is_a_conflict(store: MemoryStore, runs: Runs) -> None:
    blobs = Blobs(store)
    unnamed = draft(blobs, "r", 1, {"weights/0": b"weights"})
    store.delete(blob_key(digest_of(b"weights")))
    for fresh_since in (None, time.monotonic()):
        with pytest.raises(Conflict, match="1 missing"):
            runs.add(unnamed, fresh_since=fresh_since)
    with pytest.raises(RunNotFound):
        runs.checkpoints("r")


def test_blobs_of_earlier_checkpoints_are_made_young_unless_they_are(store: MemoryStore, runs: Runs) -> None:
    add(store, "r", 1, b"frozen", runs=runs)
    for fresh_since, young in ((time.monotonic(), False), (None, True)):
        limit = store.now()
        (info,) = store.list(blob_key(digest_of(b"frozen")))
        later = draft(Blobs(store), "r", 2, {"weights/1": b"more"})
        manifest = decode(Blobs(store).get(later.manifest))
        both = (*runs.manifest(runs.find("r", 1)).tensors, *manifest.tensors)
        digest, _ = Blobs(store).put_new(encode_manifest(replace(manifest, tensors=both)))
        runs.add(replace(later, manifest=digest), fresh_since=fresh_since)
        (now,) = store.list(blob_key(digest_of(b"frozen")))
        assert (now.modified >= limit) is young
        assert young or now == info


@pytest.mark.parametrize("name", ["", "a b", "a/entries", "../a"])
def test_what_is_no_name_is_refused_everywhere(store: MemoryStore, runs: Runs, name: str) -> None:
    calls = (runs.checkpoints, runs.find, runs.run, runs.progress, runs.delete, lambda run: add(store, run, 1))
    for call in calls:
        with pytest.raises(InvalidRef):
            call(name)


def test_runs_below_a_run_are_runs_of_their_own(store: MemoryStore, runs: Runs) -> None:
    for name in ("a", "a/b", "c"):
        add(store, name, 1, runs=runs)
    assert list(runs.names()) == ["a", "a/b", "c"]
    runs.delete("a")
    assert list(runs.names()) == ["a/b", "c"]
    with pytest.raises(RunNotFound, match=r"no training run 'a'.*\n.*modelkeep checkpoints"):
        runs.checkpoints("a")


def test_a_stranger_s_folder_is_no_run(store: MemoryStore, runs: Runs) -> None:
    store.create("checkpoints/-x/entries/000000000001.json", [b""])
    store.create("checkpoints/r/entries/notes.txt", [b""])
    assert list(runs.names()) == ["r"]
    assert runs.checkpoints("r") == []


# --- deleting


def test_a_version_that_shares_blobs_keeps_them(store: MemoryStore, runs: Runs) -> None:
    add(store, "r", 1, b"published", b"slots", runs=runs)
    publish(Registry(store), "m", tensors=[b"published"])
    add(store, "r", 2, b"other", runs=runs)
    runs.prune("r", Retention(last=1))
    assert digest_of(b"published") in blobs_of(store)
    assert digest_of(b"slots") not in blobs_of(store)
    runs.delete("r")
    assert gc(Registry(store), grace=timedelta(0)).kept == 3


def test_a_blob_that_was_there_before_the_run_is_left_to_gc(store: MemoryStore, runs: Runs) -> None:
    Blobs(store).put(b"somebody's")
    add(store, "r", 1, b"somebody's", b"its own", runs=runs)
    assert runs.delete("r").removed_blobs == 2  # its own and its manifest
    assert blobs_of(store) == {digest_of(b"somebody's")}


def test_a_blob_that_other_checkpoints_of_the_run_need_stays(store: MemoryStore, runs: Runs) -> None:
    add(store, "r", 1, b"frozen", b"first", runs=runs)
    add(store, "r", 2, b"frozen", b"second", runs=runs)
    runs.delete("r", 1)
    assert digest_of(b"frozen") in blobs_of(store)
    assert digest_of(b"first") not in blobs_of(store)


def test_a_blob_that_a_later_checkpoint_took_over_as_it_was_stays(store: MemoryStore, runs: Runs) -> None:
    """Its time is still the one it was created with."""
    first = add(store, "r", 1, b"frozen", runs=runs)
    manifest = replace(runs.manifest(first), version=version_of(2))
    digest, _ = Blobs(store).put_new(encode_manifest(manifest))
    again = replace(first, step=2, number=0, manifest=digest, created_blobs={})
    runs.add(again, fresh_since=time.monotonic())
    runs.prune("r", Retention(last=1))
    assert blobs_of(store) == {digest, digest_of(b"frozen")}


def test_a_dry_run_tells_what_would_go(store: MemoryStore, runs: Runs) -> None:
    for step in (1, 2):
        add(store, "r", step, b"weights %d" % step, runs=runs)
    before = {info.key for info in store.list("")}
    told = [runs.prune("r", Retention(last=1), dry_run=True), runs.delete("r", dry_run=True)]
    assert {info.key for info in store.list("")} == before
    done = runs.prune("r", Retention(last=1))
    assert (told[0].removed_blobs, told[0].removed_bytes) == (done.removed_blobs, done.removed_bytes)
    assert (told[1].removed_blobs, len(told[1].dropped), told[1].dry_run) == (4, 2, True)


def test_all_checkpoints_of_a_step_are_deleted(store: MemoryStore, runs: Runs) -> None:
    for step in (1, 2, 1):
        add(store, "r", step, runs=runs)
    assert [checkpoint.number for checkpoint in runs.delete("r", 1).dropped] == [1, 3]
    with pytest.raises(CheckpointNotFound, match="after step 1"):
        runs.delete("r", 1)


# --- damage


def test_a_damaged_newest_checkpoint_is_never_passed_over(store: MemoryStore, runs: Runs) -> None:
    for step in (1, 2):
        add(store, "r", step, runs=runs)
    damage(store, 2)
    says = r"(?s)checkpoint number 2 of 'r' cannot be read.*\n.*restore checkpoints/r/entries/000000000002.json"
    for call in (runs.find, runs.checkpoints, lambda run: runs.find(run, "best"), lambda run: runs.find(run, 2)):
        with pytest.raises(IntegrityError, match=says):
            call("r")
    store.delete("checkpoints/r/entries/000000000002.json")  # the way out that it names
    assert runs.find("r").step == 1


def test_a_damaged_older_checkpoint_is_in_nobody_s_way(store: MemoryStore, runs: Runs) -> None:
    for step in (1, 2, 3):
        add(store, "r", step, b"weights %d" % step, runs=runs)
    damage(store, 1)
    assert runs.find("r").step == 3
    pruned = runs.prune("r", Retention(last=1))
    assert ([c.step for c in pruned.dropped], pruned.damaged, pruned.removed_blobs) == ([2], (1,), 0)
    assert runs.run("r").damaged.keys() == {1}


def test_where_the_newest_is_damaged_nothing_is_pruned(store: MemoryStore, runs: Runs) -> None:
    for step in (1, 2, 3):
        add(store, "r", step, runs=runs)
    damage(store, 3)
    assert runs.prune("r", Retention(last=1)).dropped == ()


def test_where_a_manifest_that_stays_is_damaged_no_blob_goes(store: MemoryStore, runs: Runs) -> None:
    added = [add(store, "r", step, b"weights %d" % step, runs=runs) for step in (1, 2)]
    store.delete(blob_key(added[1].manifest))
    pruned = Runs(store, Blobs(store)).prune("r", Retention(last=1))
    assert (len(pruned.dropped), pruned.damaged, pruned.removed_blobs) == (1, (2,), 0)
    assert digest_of(b"weights 1") in blobs_of(store)


def test_an_entry_in_the_place_of_another_is_damage(store: MemoryStore, runs: Runs) -> None:
    add(store, "r", 1, runs=runs)
    add(store, "other", 1, runs=runs)
    key = "checkpoints/r/entries/000000000001.json"
    store.delete(key)
    store.create(key, [store.get(key.replace("/r/", "/other/"))])
    with pytest.raises(IntegrityError, match="is entry 1 of 'other'"):
        runs.find("r")


def test_another_s_manifest_is_damage(store: MemoryStore, runs: Runs) -> None:
    one, two = (add(store, "r", step, runs=runs) for step in (1, 2))
    with pytest.raises(IntegrityError, match=r"r@1 is another's: found r:0.0.0-step.2"):
        runs.manifest(replace(one, manifest=two.manifest))


def test_a_damaged_run_can_be_deleted(store: MemoryStore, runs: Runs) -> None:
    for step in (1, 2):
        add(store, "r", step, runs=runs)
    damage(store, 1)
    runs.delete("r")
    assert list(runs.names()) == []


# --- how far it is


def test_what_was_told_last_of_its_progress_counts(store: MemoryStore, runs: Runs) -> None:
    assert runs.progress("r") is None
    for step in (1, 2):
        runs.put_progress("r", Progress(step=step, epoch=0, of=5, logs={"loss": math.nan, "mae": 0.5}))
    found = runs.progress("r")
    assert found is not None
    assert (found.step, found.of, found.time[-1:], math.isnan(found.logs["loss"])) == (2, 5, "Z", True)
    assert len(list(store.list("checkpoints/r/progress/"))) == 1
    assert list(runs.names()) == ["r"]
    assert runs.checkpoints("r") == []


def test_damaged_progress_is_passed_over(store: MemoryStore, runs: Runs) -> None:
    runs.put_progress("r", Progress(step=1, epoch=0))
    store.create("checkpoints/r/progress/000000000002.json", [b"{}"])
    found = runs.progress("r")
    assert found is not None
    assert found.step == 1


def test_a_run_tells_its_newest_its_best_and_its_curves(store: MemoryStore, runs: Runs) -> None:
    curves = Curves()
    for step, loss in ((1, 0.5), (2, 0.25), (3, 0.75)):
        curves.add_step(step, 0, {"score": loss})
        said = {"metrics": {"score": loss}, "best": "max:score", "curves": curves, "finished": step == 3}
        add(store, "r", step, b"weights %d" % step, runs=runs, **said)
    later = curves.copy()
    later.add_step(4, 0, {"score": 0.125})
    since = json.loads(later.since(3).to_json())
    runs.put_progress("r", Progress(step=4, epoch=0, curves=since))
    run = runs.run("r")
    assert run.newest is not None
    assert run.best is not None
    assert (run.newest.step, run.best.step, run.finished, run.stored > 0) == (3, 3, True, True)
    assert [point.logs["score"] for point in run.curves.steps] == [0.5, 0.25, 0.75, 0.125]


def test_damaged_curves_since_the_newest_checkpoint_are_passed_over(store: MemoryStore, runs: Runs) -> None:
    runs.put_progress("r", Progress(step=1, epoch=0))
    assert runs.run("r").curves == Curves()
    runs.put_progress("r", Progress(step=1, epoch=0, curves={"format": 1}))
    assert runs.run("r").curves == Curves()
    assert (runs.run("r").newest, runs.run("r").best, runs.run("r").finished) == (None, None, False)


def test_without_a_word_the_best_has_the_least_validation_loss_or_else_loss(store: MemoryStore, runs: Runs) -> None:
    add(store, "r", 1, runs=runs, metrics={"loss": 0.1})
    add(store, "r", 2, runs=runs, metrics={"loss": 0.2, "val_loss": 0.2})
    assert runs.find("r", "best").step == 2
    add(store, "s", 1, runs=runs, metrics={"mae": 1.0})
    with pytest.raises(CheckpointNotFound, match="whose metric tells the best"):
        runs.find("s", "best")


# --- through the front door


@pytest.fixture
def keep(store: MemoryStore) -> Keep:
    marker.ensure(store)
    for step, loss in ((10, 0.5), (20, 0.25), (30, 0.75)):
        add(store, "m-run", step, b"weights %d" % step, metrics={"loss": loss})
    return mk.open(store)


def test_runs_are_listed_pruned_and_deleted(keep: Keep, store: MemoryStore) -> None:
    (run,) = keep.runs()
    assert run.name == "m-run"
    assert [checkpoint.step for checkpoint in keep.run("m-run").checkpoints] == [10, 20, 30]
    assert [c.step for c in keep.prune("m-run", keep_best="loss", dry_run=True).kept] == [20, 30]
    assert [c.step for c in keep.prune("m-run", keep_best="loss").kept] == [20, 30]
    keep.delete("m-run@20")
    assert [c.step for c in keep.delete_run("m-run").dropped] == [30]
    assert keep.runs() == []
    assert blobs_of(store) == set()


def test_what_a_prune_leaves_must_be_said(keep: Keep) -> None:
    with pytest.raises(UsageError, match="say which checkpoints stay"):
        keep.prune("m-run")
    with pytest.raises(UsageError, match="keep_last is a whole number of checkpoints, from 1: found 0"):
        keep.prune("m-run", keep_last=0)


def test_a_checkpoint_s_deletion_has_no_reason_to_be_kept(keep: Keep) -> None:
    with pytest.raises(UsageError, match="leave the reason out"):
        keep.delete("m-run@10", reason="too old")


def test_checkpoints_are_checked_by_their_step(keep: Keep, store: MemoryStore) -> None:
    report = keep.verify("m-run@20")
    assert report.ok
    assert report.title == "verify m-run@20"
    store.delete(blob_key(digest_of(b"weights 30")))
    assert not keep.verify("m-run@last").ok
    assert keep.verify("m-run@best").title == "verify m-run@20"


def test_checkpoints_are_compared_by_their_steps_and_with_versions(keep: Keep, store: MemoryStore) -> None:
    publish(Registry(store), "m", tensors=[b"weights 10"], kind="weights")
    found = keep.diff("m-run@10", "m-run@last")
    assert (found.old, found.new, len(found["weights"].changes)) == ("m-run@10", "m-run@30", 1)
    against = keep.diff("m-run@10", "m")
    assert (against.new, against["weights"].changes) == ("m:1.0.0", ())


def test_an_alias_and_a_run_of_one_name_are_told_apart_or_asked_about(keep: Keep, store: MemoryStore) -> None:
    publish(Registry(store), "m-run")
    assert keep.verify("m-run@last").title == "verify m-run@30"
    keep.promote("m-run:1.0.0", "last")
    with pytest.raises(UsageError, match=r"an alias of a model and a checkpoint of a run\n.*m-run:1.0.0"):
        keep.verify("m-run@last")
    publish(Registry(store), "other")
    keep.promote("other:1.0.0", "best")
    assert keep.verify("other@best").title == "verify other:1.0.0"


def test_a_checkpoint_is_no_version(keep: Keep) -> None:
    for verb in (keep.resolve, keep.yank, lambda ref: keep.promote(ref, "production")):
        with pytest.raises(VersionNotFound, match=r"m-run@10 is a checkpoint.*\n.*modelkeep publish m-run@10 NAME"):
            verb("m-run@10")


def test_what_no_run_has_is_not_found(keep: Keep) -> None:
    for ref, error in (("m-run@11", CheckpointNotFound), ("x@1", RunNotFound), ("x@best", ModelNotFound)):
        with pytest.raises(error):
            keep.verify(ref)
    with pytest.raises(StoreNotFound):
        mk.open(MemoryStore()).runs()


def test_nobody_signs_checkpoints(keep: Keep) -> None:
    with pytest.raises(UnsafeContent, match=r"m-run@10 is a checkpoint, which nobody signs\n.*modelkeep publish"):
        keep.verify("m-run@10", signature=True)


def test_only_a_checkpoint_is_published(keep: Keep, store: MemoryStore) -> None:
    publish(Registry(store), "m")
    with pytest.raises(UsageError, match=r"not a checkpoint: found 'm:1\.0\.0', expected run@step"):
        keep.publish("m:1.0.0", "other")
