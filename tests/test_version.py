"""A version as the library hands it out."""

from __future__ import annotations

import pytest

from modelkeep.keep import Keep
from modelkeep.registry import Registry
from modelkeep.storage import marker
from modelkeep.storage.memory import MemoryStore
from small_versions import publish


@pytest.fixture
def keep() -> Keep:
    store = MemoryStore()
    marker.ensure(store)
    publish(Registry(store), "m", metrics={"accuracy": 0.5, "by_class": {"a": 1}})
    return Keep(store)


def test_changing_what_a_version_says_changes_nothing_else(keep: Keep) -> None:
    metrics = keep.resolve("m").metrics
    metrics["by_class"]["a"] = 2
    assert keep.resolve("m").metrics == {"accuracy": 0.5, "by_class": {"a": 1}}


def test_versions_can_be_put_into_a_set(keep: Keep) -> None:
    assert {keep.resolve("m"), keep.resolve("m:1.0.0")} == set(keep.versions("m"))
