"""Many processes at once on one folder: everything happens wholly or not at all, and nothing is lost."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import pytest

from modelkeep.entry import Move
from modelkeep.errors import Conflict
from modelkeep.fsck import fsck
from modelkeep.gc import gc
from modelkeep.registry import Registry
from modelkeep.storage.local import LocalStore
from small_versions import publish

PROCESSES = 8
VERSIONS = 25
_spawn = multiprocessing.get_context("spawn")
_start: Barrier
_stop: Event


def _prepare(start: Barrier, stop: Event) -> None:
    global _start, _stop
    _start, _stop = start, stop


def at_once(*work: tuple[Callable[..., Any], *tuple[Any, ...]]) -> list[Any]:
    """Run every piece of work in a process of its own, all starting together; their results."""
    shared = (_spawn.Barrier(len(work)), _spawn.Event())
    with ProcessPoolExecutor(len(work), mp_context=_spawn, initializer=_prepare, initargs=shared) as pool:
        return [future.result() for future in [pool.submit(_together, *each) for each in work]]


def _together(work: Callable[..., Any], *args: Any) -> Any:
    _start.wait(timeout=60)
    return work(*args)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A folder that must pass fsck in the end: every entry, and every byte of every version."""
    yield tmp_path
    report = fsck(Registry(LocalStore(tmp_path)))
    assert report.ok, str(report)


def publish_many(store: Path, who: int) -> list[str]:
    registry = Registry(LocalStore(store), actor=f"process {who}")
    return [publish(registry, "m", bump="patch", part=bytes([who, n])).version for n in range(VERSIONS)]


@pytest.mark.slow
def test_every_publish_of_many_processes_becomes_a_version(store: Path) -> None:
    taken = at_once(*((publish_many, store, who) for who in range(PROCESSES)))
    expected = sorted(f"1.0.{n}" for n in range(PROCESSES * VERSIONS))
    assert sorted(version for versions in taken for version in versions) == expected
    registry = Registry(LocalStore(store))
    assert sorted(record.version for record in registry.versions("m")) == expected
    assert [entry.seq for entry in registry.history("m")] == list(range(1, PROCESSES * VERSIONS + 1))


def promote_many(store: Path, who: int) -> int:
    registry, conflicts = Registry(LocalStore(store), actor=f"process {who}"), 0
    for n in range(VERSIONS):
        try:
            registry.promote(f"m:1.{(who + n) % 4}.0", "production", reason=f"{who} {n}")
        except Conflict:
            conflicts += 1
    return conflicts


def roll_back_many(store: Path, who: int) -> int:
    registry, conflicts = Registry(LocalStore(store), actor=f"process {who}"), 0
    for _ in range(VERSIONS):
        try:
            registry.rollback("m", "production")
        except Conflict:
            conflicts += 1
    return conflicts


def test_promotions_and_rollbacks_take_effect_wholly_or_conflict(store: Path) -> None:
    registry = Registry(LocalStore(store))
    for n in range(4):
        publish(registry, "m", f"1.{n}.0")
        registry.promote(f"m:1.{n}.0", "production")
    at_once(*((work, store, who) for who, work in enumerate([promote_many, roll_back_many] * 2)))
    moves = [entry.action for entry in registry.history("m", "production")]
    stack: list[dict[str, float]] = []
    for move in moves:
        assert isinstance(move, Move)
        assert move.was == (stack[-1] if stack else {})
        if move.kind == "rollback":
            stack.pop()
            assert move.targets == stack[-1]
        else:
            stack.append(move.targets)
    assert registry.resolve("m@production").targets == stack[-1]


def publish_for_a_while(store: Path) -> set[str]:
    registry, kept, end = Registry(LocalStore(store)), set(), time.monotonic() + 4
    while time.monotonic() < end:
        # The same few parts again and again, so that most saves rely on blobs that are there already.
        record = publish(registry, "m", bump="patch", part=b"part %d" % (len(kept) % 3))
        kept.add(record.version)
        if len(kept) > 5:  # most go again, so that parts come to be referred to by nothing
            registry.delete(f"m:{kept.pop()}")
    _stop.set()
    return kept


def sweep_for_as_long(store: Path) -> int:
    removed = 0
    while not _stop.is_set():
        removed += gc(Registry(LocalStore(store)), grace=timedelta(seconds=1)).removed
        time.sleep(0.01)
    return removed


@pytest.mark.slow
def test_publishing_while_sweeping_loses_nothing(store: Path) -> None:
    kept, removed = at_once((publish_for_a_while, store), (sweep_for_as_long, store))
    assert removed
    assert {record.version for record in Registry(LocalStore(store)).versions("m")} == kept
