"""Reading a whole store again: what is damaged, and which versions and checkpoints it touches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from modelkeep.catalog import VersionRecord
from modelkeep.checkpoint import Checkpoint
from modelkeep.entry import Annotate, Attach, Delete, Entry, Publish, Yank, damaged, decode
from modelkeep.errors import IntegrityError, ModelkeepError, RunNotFound
from modelkeep.ledger import State, fold, record_of, renewed
from modelkeep.manifest import Manifest, Piece
from modelkeep.registry import Registry
from modelkeep.report import Finding, Report, Severity, several
from modelkeep.runs import Runs
from modelkeep.sizes import human_bytes
from modelkeep.snapshots import Root
from modelkeep.storage.blobs import blob_key
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.protocol import Progress
from modelkeep.verify import UNREADABLE, check_structure, on_all_cores

Names = set[str]  # model:version, run@step
Packed = tuple[str, tuple[Piece, ...]]  # a tensor: its digest, and where its bytes lie
Item = TypeVar("Item")


def fsck(registry: Registry, *, progress: Progress | None = None) -> Report:
    """Check every ledger entry, snapshot, checkpoint, manifest, blob and packed tensor; damage never stops it.

    ``details["versions"]`` of a finding holds what it touches, as ``model:version`` and ``run@step``. Snapshots
    that are passed over are warnings, blobs that nothing refers to a note. A version that is deleted and swept away
    by a ``gc`` while this runs may show as missing blobs.
    """
    ledgers = [
        _Ledger.read(registry, model) for model in _each(list(registry.ledgers.models()), "reading ledgers", progress)
    ]
    runs = [_Run.read(registry, run) for run in _each(list(_runs(registry).names()), "reading runs", progress)]
    # Listed after the ledgers, so that every blob of a version seen there is there by now.
    contents = _Contents(registry)
    versions = [
        (ledger.model, record) for ledger in ledgers for record in ledger.records.values() if not record.deleted
    ]
    for model, record in _each(versions, "reading manifests", progress):
        contents.add(model, record)
    checkpoints = [checkpoint for run in runs for checkpoint in run.checkpoints]
    for checkpoint in _each(checkpoints, "reading checkpoints", progress):
        contents.add_checkpoint(checkpoint)
    findings = [finding for ledger in ledgers for finding in ledger.findings]
    findings += [finding for run in runs for finding in run.findings]
    findings += (*_summary(ledgers), *_summary_of_runs(runs), *contents.check(progress))
    return Report(f"fsck {registry.store.url}", tuple(findings))


def _each(items: list[Item], what: str, progress: Progress | None) -> Iterator[Item]:
    for position, item in enumerate(items):
        yield item
        if progress is not None:
            progress(what, position + 1, len(items))


def _summary(ledgers: list[_Ledger]) -> Iterator[Finding]:
    if not any(ledger.findings for ledger in ledgers):
        entries = sum(ledger.length for ledger in ledgers)
        yield Finding("ledger", Severity.OK, f"{entries:,} entries of {len(ledgers):,} models fit together")


def _summary_of_runs(runs: list[_Run]) -> Iterator[Finding]:
    if runs and not any(run.findings for run in runs):
        checkpoints = sum(len(run.checkpoints) for run in runs)
        yield Finding("checkpoint", Severity.OK, f"{checkpoints:,} checkpoints of {len(runs):,} runs can be read")


def _runs(registry: Registry) -> Runs:
    return Runs(registry.store, registry.blobs)


@dataclass(slots=True)
class _Run:
    """A run's checkpoints, as far as they can be read."""

    checkpoints: list[Checkpoint]
    findings: list[Finding]

    @classmethod
    def read(cls, registry: Registry, run: str) -> _Run:
        try:
            checkpoints, errors = _runs(registry).read(run)
        except RunNotFound:  # deleted meanwhile
            return cls([], [])
        touched = {"versions": [checkpoint.ref for checkpoint in checkpoints]}
        return cls(
            checkpoints,
            [
                Finding("checkpoint", Severity.FAILURE, str(error), f"checkpoint {number} of {run}", touched)
                for number, error in errors.items()
            ],
        )


@dataclass(slots=True)
class _Ledger:
    """A model's ledger, read to its end whatever it holds."""

    model: str
    length: int
    records: dict[str, VersionRecord] = field(default_factory=dict)  # as far as they can be known
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def read(cls, registry: Registry, model: str) -> _Ledger:
        snapshots = registry.ledgers.snapshots(model)
        # Read before the entries, so that each was folded up to an entry that is there by now.
        roots = {key: snapshots.root(key) for key in snapshots.roots()}
        there = registry.ledgers.listed(model)
        ledger = cls(model, there[-1] if there else 0)
        if not there:
            ledger._fail("ledger", model, "has no entry, though there are snapshots")
        states = ledger._fold_all(registry, {root.seq for root in roots.values() if root})
        for key, root in roots.items():
            ledger.findings += ledger._check_root(registry, key, root, states)
        return ledger

    def _fold_all(self, registry: Registry, wanted: set[int]) -> dict[int, State]:
        """The states at the wanted entries. From the first damage on, entries are still checked one by one."""
        states: dict[int, State] = {}
        state: State | None = State(model=self.model)
        previous: str | None = ""
        for seq in range(1, self.length + 1):
            before, previous = previous, None
            try:
                data = registry.ledgers.data(self.model, seq)
                entry, previous = decode(data, self.model, seq)
                self._learn(entry)
                if state is not None:
                    state = fold(state, data)
                elif before not in (None, entry.previous):
                    damaged(self.model, seq, "does not follow the one before", found=entry.previous, expected=before)
            except UNREADABLE as error:
                state = None
                self._fail("ledger", f"entry {seq} of {self.model}", str(error))
            if state is not None and seq in wanted:
                states[seq] = state
        return states

    def _learn(self, entry: Entry) -> None:
        match entry.action:
            case Publish() as action:
                self.records[action.version] = record_of(entry, action)
            case (Attach() | Annotate() | Yank() | Delete()) as action if action.version in self.records:
                self.records[action.version] = renewed(self.records[action.version], action)

    def _check_root(
        self, registry: Registry, key: str, root: Root | None, states: dict[int, State]
    ) -> Iterator[Finding]:
        snapshots = registry.ledgers.snapshots(self.model)
        if root is None:
            if key in snapshots.roots():  # else it was cleared away meanwhile
                yield Finding("snapshot", Severity.WARNING, "cannot be read, and is passed over", key)
        elif root.seq > self.length:
            self._fail("ledger", self.model, f"ends at entry {self.length}, but a snapshot was made of {root.seq}")
        elif root.seq in states:
            lost = [bounds.digest for bounds in root.pages if snapshots.page(bounds.digest) is None]
            if states[root.seq].head != root.head:
                yield Finding("snapshot", Severity.WARNING, "is of another ledger, and is passed over", key)
            elif lost:
                yield Finding("snapshot", Severity.WARNING, f"{len(lost)} of its pages are lost: slow, not wrong", key)
            elif _content(snapshots.state(root)) != _content(states[root.seq]):
                message = "says something else than the entries it was made of; delete it"
                yield Finding("snapshot", Severity.FAILURE, message, key, self._touched())

    def _fail(self, check: str, subject: str, message: str) -> None:
        self.findings.append(Finding(check, Severity.FAILURE, message, subject, self._touched()))

    def _touched(self) -> dict[str, list[str]]:
        return {"versions": [f"{self.model}:{version}" for version in self.records]}


def _content(state: State) -> tuple[object, ...]:
    catalog = state.catalog
    return state.pointings, state.policies, state.live, state.stored, catalog.top, catalog.newest_by_kind, list(catalog)


class _Contents:
    """The blobs of a store, and what refers to them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._there = {digest: info.size for digest, info in registry.blob_objects()}
        self._users: dict[str, Names] = defaultdict(set)  # by blob
        self._tensors: dict[Packed, Names] = defaultdict(set)
        self._unreadable: dict[str, str] = {}  # manifests, by digest
        self._misfits: list[Finding] = []  # what manifests say that does not fit together
        self._checkpoints: dict[str, set[tuple[str, int]]] = defaultdict(set)  # run and numbers, by name

    def add(self, model: str, record: VersionRecord) -> None:
        """Count what a version refers to, and look whether its manifest makes sense."""
        name = f"{model}:{record.version}"
        for attachment in record.attachments:
            self._users[attachment.digest].add(name)
        self._add(name, record.digest, lambda: self._registry.manifest(model, record))

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Likewise for a checkpoint."""
        self._checkpoints[checkpoint.ref].add((checkpoint.run, checkpoint.number))
        self._add(checkpoint.ref, checkpoint.manifest, lambda: _runs(self._registry).manifest(checkpoint))

    def _add(self, name: str, digest: str, read: Callable[[], Manifest]) -> None:
        self._users[digest].add(name)
        try:
            manifest = read()
        except UNREADABLE as error:
            self._unreadable[digest] = str(error)
            return
        for digest in manifest.blobs():
            self._users[digest].add(name)
        for tensor in manifest.tensors:
            self._tensors[tensor.digest, tensor.pieces].add(name)
        for misfit in check_structure(manifest, self._there):
            self._misfits.append(replace(misfit, subject=f"{name} {misfit.subject}", details={"versions": [name]}))

    def check(self, progress: Progress | None) -> Iterator[Finding]:
        """What is wrong with the blobs and with the tensors in packs, then how many there are."""
        there = self._there
        wrong = self._unreadable | {digest: "is missing" for digest in self._users if digest not in there}
        wrong |= _problems(on_all_cores("checking blobs", there, self._registry.blobs.check, progress))
        self._forget_deleted()
        exists = self._registry.blobs.exists
        wrong = {digest: wrong[digest] for digest in wrong if self._users.get(digest) or exists(digest)}
        yield from (self._finding("blob", digest, wrong[digest], self._users.get(digest)) for digest in sorted(wrong))
        yield from self._misfits

        inside = {tensor: size for tensor, size in self._inside() if not wrong.keys() & _blobs_of(tensor)}
        bad = _problems(on_all_cores("checking tensors", inside, self._check_tensor, progress))
        yield from (self._finding("tensor", tensor[0], bad[tensor], self._tensors[tensor]) for tensor in sorted(bad))

        if not wrong and not bad and not self._misfits:
            yield Finding("blob", Severity.OK, f"{len(there):,} blobs, {human_bytes(sum(there.values()))}, are whole")
        unused = there.keys() - self._users.keys()
        if unused:
            size = human_bytes(sum(there[digest] for digest in unused))
            yield Finding("blob", Severity.NOTE, f"{len(unused):,} blobs, {size}, are referred to by no version")

    def _forget_deleted(self) -> None:
        """Runs go on deleting checkpoints, and their blobs with them: that is no damage."""
        runs = {run for numbers in self._checkpoints.values() for run, _ in numbers}
        there = {(run, number) for run in runs for number in _runs(self._registry).numbers(run)}
        gone = {name for name, numbers in self._checkpoints.items() if not numbers & there}
        for users in (*self._users.values(), *self._tensors.values()):
            users -= gone

    def _inside(self) -> Iterator[tuple[Packed, int]]:
        """Tensors that are not one whole blob, whose own digest says all, with their sizes."""
        for digest, pieces in self._tensors:
            if pieces != (Piece(blob=digest, size=self._there.get(digest, -1)),):
                yield (digest, pieces), sum(piece.size for piece in pieces)

    def _check_tensor(self, tensor: Packed) -> int:
        digest, pieces = tensor
        found = digest_of(*(self._registry.store.get_range(blob_key(p.blob), p.offset, p.size) for p in pieces))
        if found != digest:
            raise IntegrityError(f"its bytes have the digest {found}")
        return sum(piece.size for piece in pieces)

    def _finding(self, check: str, digest: str, problem: str, users: Names | None) -> Finding:
        if not users:
            # A save that has the same bytes would rely on it.
            return Finding(check, Severity.WARNING, f"{problem}; no version refers to it: delete it", digest)
        names = sorted(users)
        return Finding(check, Severity.FAILURE, f"{problem}; needed by {several(names)}", digest, {"versions": names})


def _blobs_of(tensor: Packed) -> Names:
    return {piece.blob for piece in tensor[1]}


def _problems(checked: Mapping[Item, int | ModelkeepError]) -> dict[Item, str]:
    return {item: str(error) for item, error in checked.items() if not isinstance(error, int)}
