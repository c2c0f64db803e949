"""Removing blobs that no version and no checkpoint refers to. Never on doubt: what cannot be read stops it first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from modelkeep.errors import BlobMissing, CheckpointNotFound, FormatTooNew, UsageError
from modelkeep.registry import GRACE, Registry
from modelkeep.runs import Runs
from modelkeep.storage.protocol import ObjectInfo, Progress

_KNOWN = frozenset({"blobs", "models", "checkpoints"})
Roots = Mapping[str, Callable[[bytes], Iterable[str]]]


@dataclass(frozen=True, slots=True)
class Swept:
    """What ``gc`` found and did. ``young`` blobs are unreferenced, but younger than the grace period."""

    kept: int
    kept_bytes: int
    young: int
    young_bytes: int
    removed: int
    removed_bytes: int
    dry_run: bool


def gc(
    registry: Registry,
    *,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    roots: Roots = MappingProxyType({}),
    progress: Progress | None = None,
) -> Swept:
    """Remove every blob that no live version, attachment or checkpoint refers to and that is older than ``grace``.

    ``grace`` must be longer than any save, or writing of a checkpoint, takes from its last look at its blobs to its
    entry: 60 seconds and the writing of one manifest. ``roots`` maps further top folders of the store to functions that
    give the digests a document there refers to.

    Raises LedgerDamaged, BlobMissing, IntegrityError or FormatTooNew where anything that may refer to blobs
    cannot be read; nothing was removed then.
    """
    if grace < timedelta(0):
        raise UsageError("a grace period cannot be negative", found=grace)
    store = registry.store
    # The age limit is fixed before anything is read. A version published after its model was marked has blobs
    # that were written or refreshed less than a grace before its entry, so after this limit; and a delete
    # that races with such a refresh loses.
    limit = store.now() - grace.total_seconds()
    _refuse_unknown_folders(registry, roots)
    marked = _mark(registry, roots, progress)
    blobs = list(registry.blob_objects())
    kept = [info for digest, info in blobs if digest in marked]
    unused = [info for digest, info in blobs if digest not in marked]
    old = [info for info in unused if info.modified <= limit]
    removed = [info for info in _each(old, progress) if dry_run or store.delete(info.key, unless_younger_than=limit)]
    return Swept(
        kept=len(kept),
        kept_bytes=_size(kept),
        young=len(unused) - len(old),
        young_bytes=_size(unused) - _size(old),
        removed=len(removed),
        removed_bytes=_size(removed),
        dry_run=dry_run,
    )


def _each(blobs: list[ObjectInfo], progress: Progress | None) -> Iterator[ObjectInfo]:
    for position, info in enumerate(blobs):
        yield info
        if progress:
            progress("removing blobs", position + 1, len(blobs))


def _size(blobs: list[ObjectInfo]) -> int:
    return sum(info.size for info in blobs)


def _refuse_unknown_folders(registry: Registry, roots: Roots) -> None:
    unknown = set(registry.store.folders("")) - _KNOWN - set(roots)
    if unknown:
        raise FormatTooNew(
            f"{registry.store.url} holds something this modelkeep does not know, which may need any of its blobs",
            found=", ".join(sorted(unknown)),
            hint="pip install --upgrade modelkeep; or move it away if it is not modelkeep's",
        )


def _mark(registry: Registry, roots: Roots, progress: Progress | None) -> set[str]:
    """Every digest that is referred to."""
    marked: set[str] = set()
    models = list(registry.ledgers.models())
    for position, model in enumerate(models):
        registry.ledgers.state(model)  # raises where a snapshot shows that the ledger was cut
        # By the entries alone: a wrong snapshot must not cost a blob.
        for record in registry.ledgers.replay(model).catalog:
            if not record.deleted:
                marked |= {record.digest} | registry.manifest(model, record).blobs()
                marked.update(attachment.digest for attachment in record.attachments)
        if progress:
            progress("marking models", position + 1, len(models))
    marked |= _mark_checkpoints(Runs(registry.store, registry.blobs))
    for folder, digests_of in roots.items():
        for info in registry.store.list(f"{folder}/"):
            marked.update(digests_of(registry.store.get(info.key)))
    return marked


def _mark_checkpoints(runs: Runs) -> set[str]:
    """What checkpoints refer to, while runs go on adding and deleting them."""
    marked: set[str] = set()
    listed: set[tuple[str, int]] | None = None
    # Of a listing that others change meanwhile, what was added just before a deletion may be missing: it is
    # complete where the next one says the same.
    while listed != (there := {(run, number) for run in runs.names() for number in runs.numbers(run)}):
        for run, number in there - (listed or set()):
            with suppress(CheckpointNotFound):
                marked |= _needed(runs, run, number)
        listed = there
    return marked


def _needed(runs: Runs, run: str, number: int) -> frozenset[str]:
    checkpoint = runs.entry(run, number)
    try:
        return runs.digests(checkpoint)
    except BlobMissing:
        runs.entry(run, number)  # deleted meanwhile, and its manifest with it?
        raise
