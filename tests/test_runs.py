"""Checkpoints of a run: added by one process at a time, found, and deleted with what they alone needed."""

from __future__ import annotations

import pytest

from modelkeep.checkpoint import encode
from modelkeep.errors import (
    CheckpointNotFound,
    Conflict,
    IntegrityError,
    InvalidRef,
    ModelkeepError,
    RunNotFound,
    StorageError,
)
from modelkeep.retention import Retention
from modelkeep.runs import Progress, Runs
from modelkeep.storage.blobs import Blobs, blob_key
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.memory import MemoryStore
from modelkeep.testing.faults import Fault, FaultyStore
from small_runs import add, draft


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
