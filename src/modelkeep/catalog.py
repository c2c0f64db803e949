"""All versions of one model, in semantic-version order, in pages that are read only when needed.

Values only: where a page comes from is given as a function. A catalog is never changed; adding a record
gives a new one that shares every page with the old.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal

import msgspec

from modelkeep.refs import SemVer

PAGE = 64  # records: a page of plain records is about 20 kB
Kind = Literal["release", "prerelease"]
Key = tuple[Any, ...]


class Attachment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Something made later for a version: a blob, what it is, and what else is known of it."""

    kind: str
    digest: str
    size: int
    media: str = "application/octet-stream"
    info: dict[str, Any] = {}


class Described(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What listing and searching need to know of a version without reading its manifest."""

    version: str
    digest: str  # of the manifest
    size: int  # bytes of everything the version is made of
    new_bytes: int  # bytes that its save added to the store
    kind: str = "whole"
    parameters: int = 0
    metrics: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    note: str | None = None
    parent: str | None = None
    allowed: tuple[str, ...] = ()  # rules of the scan that the file it came from was let break
    backend: str | None = None
    keras: str | None = None


class VersionRecord(Described, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A version as the ledger has left it. ``seq`` is the entry that published it."""

    seq: int
    created: str  # RFC 3339, UTC: the time of that entry
    actor: str
    yanked: bool = False
    deleted: bool = False  # kept, so that its number is never used again
    attachments: tuple[Attachment, ...] = ()

    @property
    def selectable(self) -> bool:
        """Whether "the newest" may mean this one."""
        return not (self.yanked or self.deleted)


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a page without reading it."""

    first: str
    last: str
    releases: int  # selectable ones
    prereleases: int  # likewise
    digest: str = ""  # of the page as stored; empty for a page that is not stored yet


@lru_cache(maxsize=4096)
def precedence(version: str) -> Key:
    """A key that sorts versions by the precedence of https://semver.org/#spec-item-11.

    Build metadata has no say in it, so two versions that differ in nothing else have the same key.
    """
    core, dash, rest = version.partition("+")[0].partition("-")
    major, minor, patch = core.split(".")
    if not dash:
        return int(major), int(minor), int(patch), 1
    marks = tuple((0, int(mark), "") if mark.isdigit() else (1, 0, mark) for mark in rest.split("."))
    return int(major), int(minor), int(patch), 0, marks


def kind_of(version: str) -> Kind:
    """Whether a version is a release or a pre-release."""
    return "prerelease" if "-" in version.partition("+")[0] else "release"


def _key(record: VersionRecord) -> Key:
    return precedence(record.version)


class Page:
    """At most ``PAGE`` neighbouring records, read on first use."""

    __slots__ = ("_load", "_records", "bounds")

    def __init__(self, bounds: Bounds, load: Callable[[Bounds], tuple[VersionRecord, ...]]) -> None:
        self.bounds = bounds
        self._load = load
        self._records: tuple[VersionRecord, ...] | None = None

    @classmethod
    def of(cls, records: tuple[VersionRecord, ...], digest: str = "") -> Page:
        """A page of records in hand; ``digest`` once it is stored."""
        kinds = [kind_of(record.version) for record in records if record.selectable]
        first, last = records[0].version, records[-1].version
        bounds = Bounds(first, last, kinds.count("release"), kinds.count("prerelease"), digest)
        page = cls(bounds, lambda _: records)
        page._records = records
        return page

    @property
    def records(self) -> tuple[VersionRecord, ...]:
        """Every record of the page, lowest version first."""
        if self._records is None:
            self._records = self._load(self.bounds)
        return self._records


class Catalog:
    """Every version a model ever had, deleted ones as well."""

    __slots__ = ("changed", "newest_by_kind", "pages", "top")

    def __init__(
        self,
        pages: tuple[Page, ...] = (),
        *,
        changed: dict[Key, VersionRecord] | None = None,
        newest_by_kind: dict[Kind, VersionRecord | None] | None = None,
        top: str | None = None,
    ) -> None:
        self.pages = pages
        self.changed = changed or {}  # records that are newer than their pages
        self.newest_by_kind = newest_by_kind or {"release": None, "prerelease": None}
        self.top = top  # the highest release that ever was, whatever became of it

    def __iter__(self) -> Iterator[VersionRecord]:
        for page in self.settled().pages:
            yield from page.records

    def get(self, version: str) -> VersionRecord | None:
        """The record with the precedence of ``version``; at most one page is read."""
        key = precedence(version)
        if key in self.changed:
            return self.changed[key]
        position = self._position(key)
        if position < 0 or precedence(self.pages[position].bounds.last) < key:
            return None
        records = self.pages[position].records
        found = records[bisect_right(records, key, key=_key) - 1]
        return found if _key(found) == key else None

    def newest(self, major: int | None = None, minor: int | None = None) -> VersionRecord | None:
        """The highest selectable version, within ``major`` or ``major.minor`` if given.

        Pre-releases only where there is no release. Pages without a candidate are not read.
        """
        if major is None:
            return self.newest_by_kind["release"] or self.newest_by_kind["prerelease"]
        # Below every pre-release of x.y.0 lies the bare (x, y, 0): a shorter tuple sorts first.
        low: Key = (major, minor or 0, 0)
        high: Key = (major + 1, 0, 0) if minor is None else (major, minor + 1, 0)
        settled = self.settled()
        return settled._highest("release", low, high) or settled._highest("prerelease", low, high)

    def with_record(self, record: VersionRecord) -> Catalog:
        """A catalog in which ``record`` is added, or takes the place of the one it renews."""
        key, kind, top = _key(record), kind_of(record.version), self.top
        if kind == "release" and (top is None or precedence(top) < key):
            top = record.version
        grown = Catalog(
            self.pages,
            changed={**self.changed, key: record},
            newest_by_kind=self.newest_by_kind,
            top=top,
        )
        newest = self.newest_by_kind[kind]
        if record.selectable and (newest is None or _key(newest) <= key):
            grown.newest_by_kind = {**self.newest_by_kind, kind: record}
        elif newest is not None and _key(newest) == key:
            grown = grown.settled()
            grown.newest_by_kind = {**self.newest_by_kind, kind: grown._highest(kind)}
        return grown if len(grown.changed) < PAGE else grown.settled()

    def settled(self) -> Catalog:
        """The same catalog with every changed record in its page; only those pages are made anew."""
        if not self.changed:
            return self
        by_page: dict[int, dict[Key, VersionRecord]] = {}
        for key, record in self.changed.items():
            by_page.setdefault(max(self._position(key), 0), {})[key] = record
        pages: list[Page] = []
        for position in range(max(len(self.pages), 1)):
            if position not in by_page:
                pages.append(self.pages[position])
                continue
            old = self.pages[position].records if self.pages else ()
            merged = {_key(record): record for record in old} | by_page[position]
            records = tuple(merged[key] for key in sorted(merged))
            pages += _divide(records, last=position >= len(self.pages) - 1)
        return Catalog(tuple(pages), newest_by_kind=self.newest_by_kind, top=self.top)

    def _position(self, key: Key) -> int:
        """The page whose range ``key`` falls into; -1 before the first."""
        return bisect_right(self.pages, key, key=lambda page: precedence(page.bounds.first)) - 1

    def _highest(self, kind: Kind, low: Key = (), high: Key | None = None) -> VersionRecord | None:
        end = len(self.pages) if high is None else self._position(high) + 1
        for page in reversed(self.pages[:end]):
            if precedence(page.bounds.last) < low:
                return None
            if not (page.bounds.releases if kind == "release" else page.bounds.prereleases):
                continue
            for record in reversed(page.records):
                key = _key(record)
                if (
                    key >= low
                    and (high is None or key < high)
                    and record.selectable
                    and kind_of(record.version) == kind
                ):
                    return record
        return None


def _divide(records: tuple[VersionRecord, ...], *, last: bool) -> list[Page]:
    """Pages of these records: full ones where versions are appended, halves where they are put between."""
    if len(records) <= PAGE:
        return [Page.of(records)]
    size = PAGE if last else (len(records) + 1) // 2
    return [
        page for start in range(0, len(records), size) for page in _divide(records[start : start + size], last=last)
    ]


def next_version(catalog: Catalog, bump: Literal["major", "minor", "patch", "prerelease"], now: str) -> SemVer:
    """The number that a bump gives; ``now`` is RFC 3339 in UTC, to the second or finer.

    The first is 1.0.0. A bump counts from the highest release that ever was, deleted ones as well, and
    pre-releases do not move it. ``prerelease`` is the next patch with ``-dev.<YYYYMMDDhhmmss>``.
    """
    base = SemVer.parse(catalog.top) if catalog.top else None
    if bump == "major":
        return base.bump_major() if base else SemVer(1)
    if bump == "minor":
        return base.bump_minor() if base else SemVer(1)
    following = base.bump_patch() if base else SemVer(1)
    if bump == "patch":
        return following
    stamp = int("".join(filter(str.isdigit, now[:19])))
    while catalog.get(f"{following}-dev.{stamp}"):
        stamp += 1
    return following.replace(prerelease=f"dev.{stamp}")
