"""Every version of a model in order, in pages that are read only when needed."""

from __future__ import annotations

from functools import cmp_to_key

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.catalog import PAGE, Bounds, Catalog, Page, VersionRecord, next_version, precedence
from modelkeep.refs import SemVer

NOW = "2024-05-01T12:30:45.000001Z"

numbers = st.integers(0, 3)
marks = st.sampled_from(["alpha", "rc.1", "rc.2", "rc.10", "1", "10", "2", "a-b", "rc"])
versions = st.builds(
    lambda major, minor, patch, mark: f"{major}.{minor}.{patch}" + (f"-{mark}" if mark else ""),
    numbers,
    numbers,
    numbers,
    st.none() | marks,
)


def record(version: str, **changes: object) -> VersionRecord:
    fields = {"digest": "d", "size": 1, "new_bytes": 1, "seq": 1, "created": NOW, "actor": "a", **changes}
    return VersionRecord(version=version, **fields)  # type: ignore[arg-type]


def catalog(*names: str, **changes: object) -> Catalog:
    built = Catalog()
    for name in names:
        built = built.with_record(record(name, **changes))
    return built


def names(catalog: Catalog) -> list[str]:
    return [record.version for record in catalog]


@given(st.lists(versions))
def test_precedence_is_semver_s(some: list[str]) -> None:
    by_semver = cmp_to_key(lambda a, b: SemVer.parse(a).compare(SemVer.parse(b)))
    assert sorted(set(some), key=precedence) == sorted(set(some), key=by_semver)


def test_build_metadata_does_not_tell_versions_apart() -> None:
    found = catalog("1.0.0+cpu").get("1.0.0+gpu-2")
    assert found is not None
    assert found.version == "1.0.0+cpu"


@settings(deadline=None)
@given(st.permutations([f"{i // 20}.{i % 20}.0" for i in range(300)]))
def test_pages_hold_every_version_in_order_whatever_the_order_of_arrival(arrival: list[str]) -> None:
    settled = catalog(*arrival).settled()
    assert names(settled) == sorted(arrival, key=precedence)
    assert all(len(page.records) <= PAGE for page in settled.pages)
    assert all(settled.get(name) for name in arrival)
    assert settled.get("0.0.1") is None


def test_versions_that_come_in_order_fill_their_pages() -> None:
    settled = catalog(*(f"1.{i}.0" for i in range(3 * PAGE + 1))).settled()
    assert [len(page.records) for page in settled.pages] == [PAGE, PAGE, PAGE, 1]


def test_only_the_page_that_changed_is_made_anew() -> None:
    before = catalog(*(f"1.{i}.0" for i in range(3 * PAGE))).settled()
    after = before.with_record(record(f"1.{PAGE + 5}.0", yanked=True)).settled()
    assert [new is old for new, old in zip(after.pages, before.pages, strict=True)] == [True, False, True]


def test_looking_up_reads_one_page_and_appending_reads_none() -> None:
    read: list[str] = []
    full = catalog(*(f"1.{i}.0" for i in range(3 * PAGE))).settled()
    by_first = {page.bounds.first: page.records for page in full.pages}

    def load(bounds: Bounds) -> tuple[VersionRecord, ...]:
        read.append(bounds.first)
        return by_first[bounds.first]

    paged = Catalog(tuple(Page(page.bounds, load) for page in full.pages), newest_by_kind=full.newest_by_kind)
    assert paged.get("2.0.0") is None
    assert paged.with_record(record("2.0.0")).newest() == record("2.0.0")
    assert read == []
    assert paged.get("1.130.0") == record("1.130.0")
    assert read == ["1.128.0"]


changes = st.lists(st.tuples(versions, st.sampled_from(["there", "yanked", "deleted"])), max_size=40)


@given(changes, st.none() | numbers, st.none() | numbers)
def test_newest_is_the_highest_release_else_the_highest_prerelease(
    some: list[tuple[str, str]], major: int | None, minor: int | None
) -> None:
    built = Catalog()
    for name, fate in some:
        built = built.with_record(record(name, yanked=fate == "yanked", deleted=fate == "deleted"))
    minor = minor if major is not None else None
    wanted = [precedence(name) for name, fate in dict(some).items() if fate == "there"]
    within = [key for key in wanted if (major is None or key[0] == major) and (minor is None or key[1] == minor)]
    expected = max([key for key in within if key[3]] or within, default=None)
    newest = built.newest(major, minor)
    assert (newest and precedence(newest.version)) == expected


@pytest.mark.parametrize(
    ("there", "bump", "expected"),
    [
        ([], "major", "1.0.0"),
        ([], "minor", "1.0.0"),
        ([], "patch", "1.0.0"),
        ([], "prerelease", "1.0.0-dev.20240501123045"),
        (["1.2.3"], "major", "2.0.0"),
        (["1.2.3"], "minor", "1.3.0"),
        (["1.2.3"], "patch", "1.2.4"),
        (["1.2.3"], "prerelease", "1.2.4-dev.20240501123045"),
        (["1.2.4-dev.20240501123045", "1.2.3"], "prerelease", "1.2.4-dev.20240501123046"),
        (["1.2.3", "2.0.0-rc.1"], "patch", "1.2.4"),
        (["1.2.3", "2.0.0-rc.1"], "major", "2.0.0"),
        (["2.0.0", "1.9.9"], "minor", "2.1.0"),
        (["1.0.0+cpu"], "patch", "1.0.1"),
    ],
)
def test_a_bump_counts_from_the_highest_release(there: list[str], bump: str, expected: str) -> None:
    assert str(next_version(catalog(*there), bump, NOW)) == expected  # type: ignore[arg-type]


def test_a_bump_never_reuses_a_deleted_number() -> None:
    built = catalog("1.0.0").with_record(record("1.1.0", deleted=True))
    assert str(next_version(built, "minor", NOW)) == "1.2.0"
