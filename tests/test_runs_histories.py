"""Whatever happens to runs, in whatever order and however far it comes: no checkpoint that is listed lacks a byte."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelkeep.errors import NotFound, StorageError
from modelkeep.gc import gc
from modelkeep.registry import Registry
from modelkeep.retention import Retention, split
from modelkeep.runs import Runs
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.memory import MemoryStore
from modelkeep.testing.faults import Fault, FaultyStore
from small_runs import draft
from small_versions import publish

CONTENTS = [b"a", b"b", b"c", b"d", b"e"]
names = st.sampled_from(["r", "team/r"])
contents = st.lists(st.sampled_from(CONTENTS), min_size=1, max_size=3, unique=True)
retentions = st.builds(
    Retention, st.integers(1, 3), st.sampled_from([None, "loss", "max:loss"]), st.none() | st.integers(2, 3)
)
faults = st.none() | st.builds(
    Fault,
    st.sampled_from(["create", "delete", "refresh", "list", "map", "get"]),
    call=st.integers(1, 12),
    error=st.just(errno.EIO),
    after=st.booleans(),
    lasting=st.booleans(),
)


class Histories(RuleBasedStateMachine):
    """Runs against plain values: the steps and contents of each checkpoint, by run."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.kept: dict[str, dict[int, tuple[int, list[bytes]]]] = {"r": {}, "team/r": {}}  # by number
        self.published: list[bytes] = []
        self.processes: dict[str, Runs] = {}
        self.adding: dict[int, tuple[int, list[bytes]]] = {}  # what may be there after a crash, too
        self.deleting = False

    @contextmanager
    def process(self, run: str, fault: Fault | None) -> Iterator[tuple[Runs, Blobs]]:
        """What trains a run; killed by a fault, another one goes on from what it left."""
        store = FaultyStore(self.store, *([fault] if fault else []))
        if fault or run not in self.processes:
            self.processes[run] = Runs(store, Blobs(store))
        try:
            yield self.processes[run], Blobs(store)
        except StorageError:
            assert fault is not None
            self.processes.pop(run)
            self.look_again(run)
        else:
            if fault:
                self.processes.pop(run)

    def look_again(self, run: str) -> None:
        """After a crash: each thing that was being done is done or not, and nothing else was."""
        before, there = self.kept[run], set(Runs(self.store, Blobs(self.store)).numbers(run))
        assert not before or max(before) in there or self.deleting
        self.kept[run] = {number: told for number, told in {**before, **self.adding}.items() if number in there}
        assert there == self.kept[run].keys()

    @rule(run=names, step=st.integers(1, 9), data=contents, known=st.booleans(), fault=faults)
    def add(self, run: str, step: int, data: list[bytes], known: bool, fault: Fault | None) -> None:
        number = max(self.kept[run], default=0) + 1
        self.adding = {number: (step, data)}
        with self.process(run, fault) as (runs, blobs):
            pieces = {}
            if known and self.kept[run]:
                last = runs.find(run)
                pieces = {tensor.digest: tensor.pieces for tensor in runs.manifest(last).tensors}
            named = {f"weights/{position}": each for position, each in enumerate(data)}
            metrics = {"loss": float(step % 4)}
            assert runs.add(draft(blobs, run, step, named, known=pieces, metrics=metrics)).number == number
            self.kept[run][number] = (step, data)
        self.adding = {}

    @rule(run=names, retention=retentions, fault=faults)
    def prune(self, run: str, retention: Retention, fault: Fault | None) -> None:
        if not self.kept[run]:
            return
        stay, _ = split(Runs(self.store, Blobs(self.store)).checkpoints(run), retention)
        with self.process(run, fault) as (runs, _):
            runs.prune(run, retention)
            self.kept[run] = {checkpoint.number: self.kept[run][checkpoint.number] for checkpoint in stay}

    @rule(run=names, number=st.integers(0, 20), whole=st.booleans(), fault=faults)
    def delete(self, run: str, number: int, whole: bool, fault: Fault | None) -> None:
        if not self.kept[run]:
            return
        step = sorted(told[0] for told in self.kept[run].values())[number % len(self.kept[run])]
        self.deleting = True
        with self.process(run, fault) as (runs, _):
            runs.delete(run, None if whole else step)
            self.kept[run] = {n: told for n, told in self.kept[run].items() if not whole and told[0] != step}
        self.processes.pop(run, None)
        self.deleting = False

    @precondition(lambda self: len(self.published) < 10)
    @rule(data=st.sampled_from(CONTENTS))
    def publish(self, data: bytes) -> None:
        publish(Registry(self.store), "m", part=data)
        self.published.append(data)

    @rule(grace=st.sampled_from([0.0, 3600.0]))
    def collect(self, grace: float) -> None:
        gc(Registry(self.store), grace=timedelta(seconds=grace))

    @invariant()
    def every_checkpoint_is_whole_and_every_version(self) -> None:
        blobs = Blobs(self.store)
        runs = Runs(self.store, blobs)
        for run, kept in self.kept.items():
            try:
                checkpoints = runs.checkpoints(run)
            except NotFound:
                checkpoints = []
            assert {checkpoint.number for checkpoint in checkpoints} == kept.keys()
            for checkpoint in checkpoints:
                step, data = kept[checkpoint.number]
                assert checkpoint.step == step
                assert [tensor.digest for tensor in runs.manifest(checkpoint).tensors] == [
                    digest_of(each) for each in data
                ]
                for digest in runs.digests(checkpoint):
                    blobs.check(digest)
        for data in self.published:
            assert blobs.get(digest_of(data)) == data


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)


def attempts(act: Callable[[FaultyStore], object], method: str) -> Iterator[MemoryStore]:
    """The store after ``act`` was stopped at its first call of a method, its second, and so on until it is done."""
    for call in range(1, 100):
        store = MemoryStore()
        fault = Fault(method, call=call, error=KeyboardInterrupt(), lasting=True)  # type: ignore[arg-type]
        faulty = FaultyStore(store)
        for step in (1, 2, 3):
            blobs = Blobs(store)
            Runs(store, blobs).add(draft(blobs, "r", step, {"weights/0": b"frozen", "weights/1": b"%d" % step}))
        faulty.faults = (fault,)
        try:
            act(faulty)
        except KeyboardInterrupt:
            yield store
        else:
            yield store
            return
    raise AssertionError("never done")


@pytest.mark.parametrize("method", ["create", "delete", "refresh", "list"])
def test_a_process_killed_at_any_moment_leaves_whole_checkpoints_and_the_next_goes_on(method: str) -> None:
    def train(store: FaultyStore) -> None:
        blobs = Blobs(store)
        runs = Runs(store, blobs)
        runs.find("r")
        runs.add(draft(blobs, "r", 4, {"weights/0": b"frozen", "weights/1": b"4"}))
        runs.prune("r", Retention(last=1))

    for store in attempts(train, method):
        blobs = Blobs(store)
        runs = Runs(store, blobs)
        assert runs.find("r").step in (3, 4)
        for checkpoint in runs.checkpoints("r"):
            for digest in runs.digests(checkpoint):
                blobs.check(digest)
        again = runs.add(draft(blobs, "r", 5, {"weights/0": b"5"}))
        assert runs.prune("r", Retention(last=1)).kept == (again,)
