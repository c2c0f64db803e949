"""Removing blobs that no version refers to. Never on doubt: what cannot be read stops it before it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from modelkeep.errors import FormatTooNew, UsageError
from modelkeep.registry import GRACE, Registry
from modelkeep.storage.protocol import ObjectInfo, Progress

_KNOWN = frozenset({"blobs", "models"})
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
    """Remove every blob that no live version or attachment refers to and that is older than ``grace``.

    ``grace`` must be longer than any save takes from its last look at its blobs to its ledger entry: 60
    seconds and the writing of one manifest. ``roots`` maps further top folders of the store to functions that
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
    for folder, digests_of in roots.items():
        for info in registry.store.list(f"{folder}/"):
            marked.update(digests_of(registry.store.get(info.key)))
    return marked
