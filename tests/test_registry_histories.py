"""Any history of a registry, against the same history of plain Python values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelkeep import catalog
from modelkeep.catalog import precedence
from modelkeep.errors import AliasNotFound, Conflict, ModelkeepError, VersionExists, VersionNotFound
from modelkeep.fsck import fsck
from modelkeep.gc import gc
from modelkeep.registry import Registry
from modelkeep.snapshots import EVERY
from modelkeep.storage.memory import MemoryStore
from small_versions import publish

MODEL = "team/m"
versions = st.sampled_from(["1.0.0", "1.1.0", "1.1.1", "1.2.0-rc.1", "1.2.0", "2.0.0", "2.1.0-rc.1", "2.1.0-rc.2"])
aliases = st.sampled_from(["production", "staging"])
bumps = st.sampled_from(["major", "minor", "patch"])
which = st.integers(0, 1)
tags = st.sampled_from(["a", "b", "c"])


@pytest.fixture(autouse=True, scope="module")
def _small_pages() -> Iterator[None]:
    """So that short histories have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "PAGE", 3)
        yield


class Plain:
    """What a registry should know, said as simply as possible."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, list[dict[str, float]]] = {}  # every alias' stack of where it pointed
        self.entries = 0

    def live(self, version: str) -> dict[str, Any]:
        found = self.versions.get(version)
        if found is None or found["deleted"]:
            raise VersionNotFound(version)
        return found

    def pointed_at(self, version: str) -> bool:
        return any(stack and version in stack[-1] for stack in self.aliases.values())

    def newest(self) -> str | None:
        there = [v for v, known in self.versions.items() if not known["deleted"] and not known["yanked"]]
        return max([v for v in there if "-" not in v] or there, key=precedence, default=None)

    def publish(self, version: str) -> None:
        if version in self.versions:
            raise VersionExists(version)
        self.versions[version] = {"tags": set(), "yanked": False, "deleted": False}

    def point(self, alias: str, targets: dict[str, float]) -> None:
        for version in targets:
            if self.live(version)["yanked"]:
                raise Conflict(version)
        stack = self.aliases.setdefault(alias, [])
        if not stack or stack[-1] != targets:
            stack.append(targets)
            return
        self.entries -= 1  # nothing was written

    def remove(self, alias: str) -> None:
        if not self.aliases.get(alias) or not self.aliases[alias][-1]:
            raise AliasNotFound(alias)
        self.aliases[alias].append({})

    def rollback(self, alias: str) -> None:
        stack = self.aliases.get(alias)
        if not stack:
            raise AliasNotFound(alias)
        earlier = stack[:-1]
        while earlier and not earlier[-1]:
            earlier.pop()
        if not earlier or any(v["deleted"] or v["yanked"] for v in map(self.versions.__getitem__, earlier[-1])):
            raise Conflict(alias)
        self.aliases[alias] = earlier

    def yank(self, version: str, undo: bool) -> None:
        known = self.live(version)
        if not undo and self.pointed_at(version):
            raise Conflict(version)
        known["yanked"] = not undo

    def delete(self, version: str) -> None:
        known = self.live(version)
        if self.pointed_at(version):
            raise Conflict(version)
        known["deleted"] = True

    def annotate(self, version: str, add: str, remove: str) -> None:
        known = self.live(version)
        known["tags"] = (known["tags"] | {add}) - {remove}


class Histories(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.store = MemoryStore()
        self.plain = Plain()
        self.past: dict[datetime, dict[str, dict[str, float]]] = {}  # where aliases pointed when
        # A clock of our own: the digests, and so the names, of pages are the same in every run.
        self.time = datetime(2024, 5, 1, tzinfo=UTC)
        self.registries = [self.registry(i) for i in range(2)]
        for number in range(EVERY):  # so that there is a snapshot to begin with
            publish(self.registries[number % 2], MODEL, f"0.{number}.0")
            self.plain.publish(f"0.{number}.0")
        self.plain.entries = EVERY

    def registry(self, i: int) -> Registry:
        return Registry(self.store, actor=f"actor{i}", clock=self.tick)

    def tick(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time

    def both(self, plain: Callable[[], None], real: Callable[[], object]) -> None:
        """Both do it, or both refuse for the same reason and nothing is written."""
        try:
            plain()
        except ModelkeepError as expected:
            with pytest.raises(type(expected)):
                real()
        else:
            real()
            self.plain.entries += 1

    @rule(version=versions, i=which)
    def publish(self, version: str, i: int) -> None:
        self.both(lambda: self.plain.publish(version), lambda: publish(self.registries[i], MODEL, version))

    @rule(bump=bumps, i=which)
    def bump(self, bump: Any, i: int) -> None:
        releases = [tuple(map(int, v.split("."))) for v in self.plain.versions if "-" not in v]
        major, minor, patch = max(releases)
        expected = {
            "major": f"{major + 1}.0.0",
            "minor": f"{major}.{minor + 1}.0",
            "patch": f"{major}.{minor}.{patch + 1}",
        }[bump]
        assert publish(self.registries[i], MODEL, bump=bump).version == expected
        self.plain.publish(expected)
        self.plain.entries += 1

    @rule(alias=aliases, version=versions, i=which)
    def promote(self, alias: str, version: str, i: int) -> None:
        self.both(
            lambda: self.plain.point(alias, {version: 100.0}),
            lambda: self.registries[i].promote(f"{MODEL}:{version}", alias),
        )

    @rule(alias=aliases, a=versions, b=versions, share=st.integers(1, 99), i=which)
    def split(self, alias: str, a: str, b: str, share: int, i: int) -> None:
        weights = {a: 100.0} if a == b else {a: float(share), b: 100.0 - share}
        self.both(lambda: self.plain.point(alias, weights), lambda: self.registries[i].split(MODEL, alias, weights))

    @rule(alias=aliases, i=which)
    def rollback(self, alias: str, i: int) -> None:
        self.both(lambda: self.plain.rollback(alias), lambda: self.registries[i].rollback(MODEL, alias))

    @rule(alias=aliases, i=which)
    def remove_alias(self, alias: str, i: int) -> None:
        self.both(lambda: self.plain.remove(alias), lambda: self.registries[i].remove_alias(MODEL, alias))

    @rule(version=versions, undo=st.booleans(), i=which)
    def yank(self, version: str, undo: bool, i: int) -> None:
        self.both(
            lambda: self.plain.yank(version, undo), lambda: self.registries[i].yank(f"{MODEL}:{version}", undo=undo)
        )

    @rule(version=versions, i=which)
    def delete(self, version: str, i: int) -> None:
        self.both(lambda: self.plain.delete(version), lambda: self.registries[i].delete(f"{MODEL}:{version}"))

    @rule(version=versions, add=tags, remove=tags, i=which)
    def annotate(self, version: str, add: str, remove: str, i: int) -> None:
        self.both(
            lambda: self.plain.annotate(version, add, remove),
            lambda: self.registries[i].annotate(f"{MODEL}:{version}", add=(add,), remove=(remove,)),
        )

    @rule()
    def gc(self) -> None:
        gc(self.registries[0], grace=timedelta(0))

    @rule(i=which)
    def begin_anew_in_another_process(self, i: int) -> None:
        self.registries[i] = self.registry(i)

    @precondition(lambda self: self.past)
    @rule(data=st.data(), alias=aliases, i=which)
    def look_back(self, data: st.DataObject, alias: str, i: int) -> None:
        at = data.draw(st.sampled_from(sorted(self.past)))
        then = self.past[at].get(alias)
        if then is None:
            with pytest.raises(AliasNotFound):
                self.registries[i].resolve(f"{MODEL}@{alias}", at=at)
        else:
            assert self.registries[i].resolve(f"{MODEL}@{alias}", at=at).targets == then

    def snapshot_keys(self) -> list[str]:
        return sorted(info.key for info in self.store.list(f"models/{MODEL}/snapshots/"))

    @precondition(lambda self: self.snapshot_keys())
    @rule(data=st.data())
    def lose_a_snapshot(self, data: st.DataObject) -> None:
        self.store.delete(data.draw(st.sampled_from(self.snapshot_keys())))

    @precondition(lambda self: self.snapshot_keys())
    @rule(data=st.data(), flip=st.integers(1, 255))
    def damage_a_snapshot(self, data: st.DataObject, flip: int) -> None:
        key = data.draw(st.sampled_from(self.snapshot_keys()))
        changed = bytearray(self.store.get(key))
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= flip
        self.store.delete(key)
        self.store.create(key, [bytes(changed)])

    @invariant()
    def everybody_sees_the_same(self) -> None:
        aliases = {alias: stack[-1] for alias, stack in self.plain.aliases.items() if stack and stack[-1]}
        self.past[self.tick()] = aliases
        for registry in (*self.registries, Registry(self.store)):
            state = registry.ledgers.state(MODEL)
            newest = state.catalog.newest()
            assert (newest.version if newest else None) == self.plain.newest()
            assert state.aliases == aliases
            assert state.seq == self.plain.entries
            assert {r.version: (set(r.tags), r.yanked) for r in registry.versions(MODEL)} == {
                version: (known["tags"], known["yanked"])
                for version, known in self.plain.versions.items()
                if not known["deleted"]
            }

    def teardown(self) -> None:
        if hasattr(self, "store"):
            report = fsck(self.registries[0])
            assert report.ok, str(report)
            assert len(self.registries[1].history(MODEL)) == self.plain.entries


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
