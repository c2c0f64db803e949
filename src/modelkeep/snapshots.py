"""Folded ledgers kept as a cache: a wrong or missing one costs time, never truth.

``models/<name>/snapshots/<seq>.json`` is a root: the fold at that entry, in the same envelope as an entry,
with the versions left out. They lie in ``snapshots/pages/<digest>.json``, at most 64 to a page in
semantic-version order; a page that did not change is shared by the roots that name it. Whoever creates each
eighth entry writes the next root and the pages that changed, and clears away what is older.

A root counts only if its digest holds, it is this model's, and the entry it was folded up to is the ledger's.
Everything else is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache

import msgspec

from modelkeep.catalog import Bounds, Catalog, Page, VersionRecord, precedence
from modelkeep.entry import Policy
from modelkeep.errors import IntegrityError, ModelkeepError, NotFound, ObjectExists, StorageError
from modelkeep.ledger import Pointing, State
from modelkeep.storage.envelope import seal, unseal
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.protocol import ObjectInfo, ObjectStore

EVERY = 8  # entries from one snapshot to the next
FORMAT = 1  # of roots and pages; another number is passed over like anything that does not fit
KEPT = 2  # roots: the newest, and one for whoever listed them just before
PAGE_GRACE = 60.0  # seconds an unused page stays, for readers of a root that was just replaced


class Root(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A state, its versions named by page."""

    format: int
    model: str
    seq: int
    head: str
    time: str
    pointings: dict[str, Pointing] = {}
    policies: dict[str, Policy] = {}
    live: int = 0
    stored: int = 0
    top: str | None = None
    release: VersionRecord | None = None
    prerelease: VersionRecord | None = None
    pages: tuple[Bounds, ...] = ()


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode_root = msgspec.json.Decoder(Root).decode
_decode_page = msgspec.json.Decoder(tuple[VersionRecord, ...]).decode


class Snapshots:
    """The snapshots of one model. ``replay(model, seq)`` gives its state at an entry from the entries alone."""

    def __init__(self, store: ObjectStore, model: str, replay: Callable[[str, int], State]) -> None:
        self._store = store
        self._model = model
        self._prefix = f"models/{model}/snapshots/"
        self._replay = replay

    def states(self) -> Iterator[State]:
        """The states of all roots that can be read, the newest first, their pages yet unread.

        Whether they are of this ledger is for the reader to see.
        """
        for key in reversed(self.roots()):
            root = self.root(key)
            if root is not None:
                yield self.state(root)

    def exist(self) -> bool:
        """Whether there is any root or page, readable or not."""
        return next(self._store.list(self._prefix), None) is not None

    def roots(self) -> list[str]:
        """The keys of all roots, oldest first."""
        # Every root's name begins with a zero; listing by it leaves the pages out.
        return sorted(info.key for info in self._store.list(self._prefix + "0"))

    def root(self, key: str) -> Root | None:
        """The root under a key, unless it is unreadable, of another format or another model."""
        try:
            root = _decode_root(unseal(self._store.get(key))[0])
        except (NotFound, StorageError, IntegrityError, ValueError, msgspec.DecodeError, RecursionError):
            return None
        named = (root.format, root.model, self._root_key(root.seq))
        return root if named == (FORMAT, self._model, key) else None

    def state(self, root: Root) -> State:
        """The state that a root holds; its pages are read on use, or from the entries where they are lost."""

        @cache
        def replayed() -> tuple[VersionRecord, ...]:
            return tuple(self._replay(self._model, root.seq).catalog)

        def load(bounds: Bounds) -> tuple[VersionRecord, ...]:
            stored = self.page(bounds.digest)
            if stored is not None:
                return stored
            low, high = precedence(bounds.first), precedence(bounds.last)
            return tuple(record for record in replayed() if low <= precedence(record.version) <= high)

        return State(
            model=root.model,
            seq=root.seq,
            head=root.head,
            time=root.time,
            pointings=root.pointings,
            policies=root.policies,
            live=root.live,
            stored=root.stored,
            catalog=Catalog(
                tuple(Page(bounds, load) for bounds in root.pages),
                newest_by_kind={"release": root.release, "prerelease": root.prerelease},
                top=root.top,
            ),
        )

    def page(self, digest: str) -> tuple[VersionRecord, ...] | None:
        """The records of a page; None where it is lost."""
        key = self._page_key(digest)
        try:
            data = self._store.get(key)
            if digest_of(data) == digest:
                return _decode_page(data)
        except (NotFound, StorageError, IntegrityError, msgspec.DecodeError, RecursionError):
            return None
        # It would be read in vain for ever: whoever writes the next root writes a page that is not there.
        with suppress(StorageError):
            self._store.delete(key)
        return None

    def write(self, state: State) -> State:
        """Store a state, and clear away what is older; the same state, its pages stored.

        Never raises: what was to be remembered stands in the ledger already.
        """
        with suppress(ModelkeepError):
            there = {info.key: info for info in self._store.list(self._prefix)}
            pages = tuple(self._stored(page, there) for page in state.catalog.settled().pages)
            catalog = Catalog(pages, newest_by_kind=state.catalog.newest_by_kind, top=state.catalog.top)
            state = msgspec.structs.replace(state, catalog=catalog)
            root = Root(
                format=FORMAT,
                model=state.model,
                seq=state.seq,
                head=state.head,
                time=state.time,
                pointings=state.pointings,
                policies=state.policies,
                live=state.live,
                stored=state.stored,
                top=catalog.top,
                release=catalog.newest_by_kind["release"],
                prerelease=catalog.newest_by_kind["prerelease"],
                pages=tuple(page.bounds for page in pages),
            )
            self._store.create(self._root_key(root.seq), [seal(_encode(root))[0]])
            self._clear(root, there)
        return state

    def _stored(self, page: Page, there: dict[str, ObjectInfo]) -> Page:
        if page.bounds.digest and self._page_key(page.bounds.digest) in there:
            return page
        data = _encode(page.records)
        digest = digest_of(data)
        try:
            self._store.create(self._page_key(digest), [data])
        except ObjectExists:
            self._store.refresh(self._page_key(digest))
        return Page.of(page.records, digest)

    def _clear(self, newest: Root, there: dict[str, ObjectInfo]) -> None:
        pages = {key for key in there if key.startswith(self._prefix + "pages/")}
        roots = sorted((key for key in there if key not in pages), reverse=True)
        older = [key for key in roots if key < self._root_key(newest.seq)]
        for key in older[KEPT - 1 :]:
            self._store.delete(key)
        kept = [newest, *(self.root(key) for key in roots if key not in older[KEPT - 1 :])]
        used = {self._page_key(bounds.digest) for root in kept if root for bounds in root.pages}
        long_ago = self._store.now() - PAGE_GRACE
        for key in pages - used:
            if there[key].modified < long_ago:
                self._store.delete(key, unless_younger_than=long_ago)

    def _root_key(self, seq: int) -> str:
        return f"{self._prefix}{seq:012d}.json"

    def _page_key(self, digest: str) -> str:
        return f"{self._prefix}pages/{digest.removeprefix('blake3:')}.json"
