"""Training runs in a store: their checkpoints, added, found and pruned, and how far each run is.

An entry is created once, under the next number of its run, after everything it names is durable. Retention deletes
an entry only after a newer one is durable, and only then the blobs that the entry alone needed: those that this
run created and that nobody came to rely on since, which their time tells (:meth:`~modelkeep.storage.protocol.
ObjectStore.refresh`). All else is left to ``gc``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple, NoReturn

import msgspec

from modelkeep.checkpoint import Checkpoint, decode, encode, numbered
from modelkeep.curves import Curves
from modelkeep.entry import moment
from modelkeep.errors import (
    CheckpointNotFound,
    Conflict,
    FormatTooNew,
    IntegrityError,
    LimitExceeded,
    ModelkeepError,
    NotFound,
    ObjectExists,
    RunNotFound,
    StorageError,
)
from modelkeep.manifest import Manifest, canonical_json
from modelkeep.manifest import decode as decode_manifest
from modelkeep.refs import is_run_name, run_name
from modelkeep.registry import REFRESH_AFTER
from modelkeep.report import plain
from modelkeep.retention import Retention, best_of, split
from modelkeep.storage.blobs import Blobs, blob_key
from modelkeep.storage.envelope import seal, unseal
from modelkeep.storage.protocol import ObjectInfo, ObjectStore

TRAINING = "training/"  # parts and tensors of a checkpoint that are not the model's
CURVES = f"{TRAINING}curves.json"
OTHER_OPTIMIZERS = "optimizer/others/"  # that the model was not compiled with
At = int | Literal["last", "best"]
_OWN_FOLDERS = frozenset({"entries", "progress"})
_FILE = re.compile(r"[0-9]{12}\.json")
_BEST_BY = ("val_loss", "loss")  # where a run does not say


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a run is since its newest checkpoint.

    ``follows`` is the number of that, ``of`` the number of epochs it is to have, ``steps_per_epoch`` what each has
    where that is known, ``time`` when this was so (RFC 3339, UTC; filled in where empty), ``curves`` the JSON of
    :class:`modelkeep.curves.Curves` since the newest checkpoint.
    """

    step: int
    epoch: int
    follows: int | None = None
    of: int | None = None
    steps_per_epoch: int | None = None
    logs: dict[str, Any] = {}
    time: str = ""
    curves: dict[str, Any] = {}


@dataclass(frozen=True)
class Run:
    """A training run: its checkpoints in the order of writing, and how far it is.

    ``damaged`` are the numbers of entries that cannot be read, each with what is wrong.
    """

    name: str
    checkpoints: tuple[Checkpoint, ...]
    damaged: Mapping[int, ModelkeepError]
    progress: Progress | None
    _read_curves: Callable[[Checkpoint], Curves] = field(repr=False, compare=False)

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read; None before the first."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def best(self) -> Checkpoint | None:
        """The best one by the metric that the run keeps it by; None where none has it."""
        return best(self.checkpoints)

    @property
    def finished(self) -> bool:
        """Whether there is no more to do."""
        return self.newest is not None and self.newest.finished

    @property
    def stored(self) -> int:
        """The bytes that its checkpoints added to the store."""
        return sum(checkpoint.new_bytes for checkpoint in self.checkpoints)

    @cached_property
    def curves(self) -> Curves:
        """What it logged: up to the newest checkpoint, and since then as far as progress tells.

        Raises IntegrityError, FormatTooNew.
        """
        whole = Curves() if self.newest is None else self._read_curves(self.newest)
        if self.progress is None or not self.progress.curves:
            return whole
        with suppress(IntegrityError, FormatTooNew):  # what is not in a checkpoint yet is not promised
            return whole.extended(Curves.from_json(msgspec.json.encode(self.progress.curves)))
        return whole


_decode_progress = msgspec.json.Decoder(Progress).decode


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune, or a deletion, did, or would do.

    ``damaged`` are the numbers of entries that cannot be read: they stay, and as long as they do, no blob goes.
    """

    kept: tuple[Checkpoint, ...]
    dropped: tuple[Checkpoint, ...]
    removed_blobs: int
    removed_bytes: int
    damaged: tuple[int, ...] = ()
    dry_run: bool = False


class _Created(NamedTuple):
    """A blob with the time it was created with."""

    digest: str
    created: float
    size: int


class Runs:
    """The training runs of one store. Each process that trains a run has an object of its own."""

    def __init__(
        self, store: ObjectStore, blobs: Blobs, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._newest: dict[str, int] = {}  # numbers that this process knows of: whatever is above is another's
        self._needs: dict[str, frozenset[str]] = {}  # blobs by manifest

    @property
    def url(self) -> str:
        """How a person names the store."""
        return self._store.url

    # --- asking

    def names(self) -> Iterator[str]:
        """The name of every run, sorted within each folder."""
        yield from self._below("")

    def _below(self, prefix: str) -> Iterator[str]:
        parts = set(self._store.folders(f"checkpoints/{prefix}"))
        if prefix and parts & _OWN_FOLDERS:
            yield prefix[:-1]
        for part in sorted(parts):
            if is_run_name(f"{prefix}{part}"):
                yield from self._below(f"{prefix}{part}/")

    def numbers(self, run: str) -> list[int]:
        """The numbers of all entries there are, in order, whether they can be read or not."""
        return _numbers(self._store, f"checkpoints/{run_name(run)}/entries/")

    def entry(self, run: str, number: int) -> Checkpoint:
        """One entry. Raises CheckpointNotFound, IntegrityError, FormatTooNew."""
        try:
            found = decode(self._store.get(_entry_key(run, number)))
        except NotFound as error:
            raise CheckpointNotFound(f"{run} has no checkpoint number {number}", hint=_see(run)) from error
        except IntegrityError as error:
            _damaged(run, number, "cannot be read", error)
        if (found.run, found.number) != (run, number):
            _damaged(run, number, f"is entry {found.number} of {found.run!r}")
        return found

    def checkpoints(self, run: str) -> list[Checkpoint]:
        """Every checkpoint of a run, in the order of writing. Raises RunNotFound, IntegrityError, FormatTooNew."""
        checkpoints, errors = self.read(run)
        _raise_if_any(errors)
        return checkpoints

    def read(self, run: str) -> tuple[list[Checkpoint], dict[int, ModelkeepError]]:
        """The checkpoints of a run that can be read, and the errors of those that cannot, by number.

        Raises RunNotFound.
        """
        self._must_be_there(run)
        found: dict[int, Checkpoint] = {}
        errors: dict[int, ModelkeepError] = {}
        listed: list[int] | None = None
        while listed != (there := self.numbers(run)):  # the run may go on: what was deleted has a newer one after it
            for number in set(there) - found.keys() - errors.keys():
                with suppress(CheckpointNotFound):
                    try:
                        found[number] = self.entry(run, number)
                    except (IntegrityError, FormatTooNew) as error:
                        errors[number] = error
            listed = there
        return [found[n] for n in there if n in found], {n: errors[n] for n in there if n in errors}

    def run(self, name: str) -> Run:
        """All there is to tell of a run. Raises RunNotFound."""
        checkpoints, errors = self.read(name)
        return Run(name, tuple(checkpoints), errors, self.progress(name), self.curves)

    def find(self, run: str, at: At = "last") -> Checkpoint:
        """The checkpoint after a step, the newest (``last``), or the best by the metric the run keeps it by.

        Where a step was trained again after going back, the newest of its checkpoints. Training that goes on from
        here expects the run to itself from now on: :meth:`add` takes a number above those there now for another's.
        Raises RunNotFound, CheckpointNotFound; IntegrityError, FormatTooNew where an entry that matters is unreadable.
        """
        self._newest[run] = max(self.numbers(run), default=0)
        checkpoints, errors = self.read(run)
        found = _find(checkpoints, at)
        for number, error in errors.items():
            # It may be the one that was asked for: only a newer one of the very step, or the newest, is certain.
            if at == "best" or found is None or number > found.number:
                raise error
        if found is None:
            asked = (
                f"after step {at}" if isinstance(at, int) else "yet" if at == "last" else "whose metric tells the best"
            )
            raise CheckpointNotFound(f"{run} has no checkpoint {asked}", hint=_see(run))
        return found

    def manifest(self, checkpoint: Checkpoint) -> Manifest:
        """What a checkpoint is made of, checked to be its own. Raises BlobMissing, IntegrityError, FormatTooNew."""
        manifest = decode_manifest(self._blobs.get(checkpoint.manifest))
        if (manifest.model, manifest.version) != (checkpoint.run, version_of(checkpoint.step)):
            raise IntegrityError(
                f"the manifest of {checkpoint.ref} is another's",
                found=f"{manifest.model}:{manifest.version}",
                hint="run: modelkeep fsck",
            )
        return manifest

    def curves(self, checkpoint: Checkpoint) -> Curves:
        """What a run had logged by then; nothing where it logged nothing. Raises IntegrityError, FormatTooNew."""
        part = next((part for part in self.manifest(checkpoint).parts if part.name == CURVES), None)
        return Curves() if part is None else Curves.from_json(self._blobs.get(part.digest))

    def digests(self, checkpoint: Checkpoint) -> frozenset[str]:
        """Every blob that a checkpoint needs. Raises BlobMissing, IntegrityError, FormatTooNew."""
        return self._blobs_of(checkpoint) | {checkpoint.manifest}

    def _blobs_of(self, checkpoint: Checkpoint) -> frozenset[str]:
        if checkpoint.manifest not in self._needs:
            self._needs[checkpoint.manifest] = self.manifest(checkpoint).blobs()
        return self._needs[checkpoint.manifest]

    def _must_be_there(self, run: str) -> None:
        if not any(self._files(run)):
            raise RunNotFound(f"no training run {run!r} in {self._store.url}", hint="see: modelkeep checkpoints")

    def _files(self, run: str) -> Iterator[ObjectInfo]:
        """All that the run itself has, and not what runs whose names begin with its name have."""
        for folder in sorted(_OWN_FOLDERS):
            yield from self._store.list(f"checkpoints/{run_name(run)}/{folder}/")

    # --- adding

    def add(self, draft: Checkpoint, *, fresh_since: float | None = None) -> Checkpoint:
        """Create the entry of a checkpoint whose manifest and blobs are durable; it gets its number and time here.

        ``fresh_since`` is a ``time.monotonic()`` since which every blob was written or refreshed: if that is long ago,
        or not given, those that this checkpoint did not create are refreshed before. Raises Conflict where another
        process has added a checkpoint since this one looked (:meth:`find`) or added its own last one, or where a
        blob is gone; nothing was added then. Raises UsageError, IntegrityError, StorageError.
        """
        run = run_name(draft.run)
        newest = max(self.numbers(run), default=0)
        known = self._newest.setdefault(run, newest)
        if newest > known:
            _other_process(run, newest)
        self._require(draft, fresh=fresh_since is not None and time.monotonic() - fresh_since <= REFRESH_AFTER)
        added = numbered(draft, known + 1, moment(self._clock()))
        self._create(added)
        newest = max(self.numbers(run), default=0)
        if newest > added.number:  # others were so fast that they had deleted the one of this number already
            self._store.delete(_entry_key(run, added.number))
            _other_process(run, newest)
        self._newest[run] = added.number
        return added

    def _create(self, added: Checkpoint) -> None:
        try:
            self._store.create(_entry_key(added.run, added.number), [encode(added)])
        except ObjectExists as error:
            _other_process(added.run, added.number, error)
        except StorageError:
            with suppress(ModelkeepError):  # where it is there all the same, the next one is no conflict with it
                if self.entry(added.run, added.number) == added:
                    self._newest[added.run] = added.number
            raise

    def _require(self, draft: Checkpoint, *, fresh: bool) -> None:
        """Raise Conflict unless all is there. What it created itself keeps the time by which it is deleted."""
        needed = self.digests(draft)
        own = needed & draft.created_blobs.keys()
        gone = [digest for digest in sorted(needed if fresh else own) if not self._blobs.exists(digest)]
        gone += [] if fresh else self._blobs.refresh(sorted(needed - own))
        if gone:
            raise Conflict(
                f"a gc, or whoever deleted checkpoints, removed blobs of {draft.ref} before it was added",
                found=f"{len(gone)} missing, the first {gone[0]}",
                hint="let gc keep a grace longer than a checkpoint takes to write",
            )

    # --- deleting

    def prune(self, run: str, retention: Retention, *, dry_run: bool = False) -> Pruned:
        """Delete the checkpoints that ``retention`` lets go, and what they alone needed. The newest always stays.

        Raises RunNotFound, StorageError.
        """
        checkpoints, errors = self.read(run)
        kept, dropped = split(checkpoints, retention)
        if errors and dropped and max(errors) > kept[-1].number:
            kept, dropped = checkpoints, []  # the newest is not whole: then all others may be what is left
        return self._drop(kept, dropped, errors, dry_run)

    def delete(self, run: str, step: int | None = None, *, dry_run: bool = False) -> Pruned:
        """Delete every checkpoint after a step, or with None the run, and what they alone needed.

        Raises RunNotFound, CheckpointNotFound, StorageError.
        """
        checkpoints, errors = self.read(run)
        if step is None:
            pruned = self._drop([], checkpoints, {}, dry_run)
            for info in [] if dry_run else list(self._files(run)):
                self._store.delete(info.key)
            return pruned
        dropped = [checkpoint for checkpoint in checkpoints if checkpoint.step == step]
        if not dropped:
            _raise_if_any(errors)
            raise CheckpointNotFound(f"{run} has no checkpoint after step {step}", hint=_see(run))
        return self._drop([c for c in checkpoints if c.step != step], dropped, errors, dry_run)

    def _drop(
        self, kept: Sequence[Checkpoint], dropped: Sequence[Checkpoint], errors: Mapping[int, Exception], dry_run: bool
    ) -> Pruned:
        """Entries go first: killed anywhere, none is left whose blobs are gone."""
        damaged = {*errors, *(c.number for c in kept if dropped and not self._is_readable(c))}
        ours = [] if damaged else list(self._created_only_for(dropped, kept))
        if not dry_run:
            for checkpoint in dropped:
                self._store.delete(_entry_key(checkpoint.run, checkpoint.number))
                self._needs.pop(checkpoint.manifest, None)
            ours = [blob for blob in ours if self._blobs.delete_created(blob.digest, blob.created)]
        size = sum(blob.size for blob in ours)
        return Pruned(tuple(kept), tuple(dropped), len(ours), size, tuple(sorted(damaged)), dry_run)

    def _is_readable(self, checkpoint: Checkpoint) -> bool:
        try:
            self._blobs_of(checkpoint)
        except (IntegrityError, FormatTooNew, LimitExceeded):
            return False
        return True

    def _created_only_for(self, dropped: Iterable[Checkpoint], kept: Iterable[Checkpoint]) -> Iterator[_Created]:
        """The blobs that the dropped ones created, that none of the others names, and that nobody refreshed since."""
        needed = {digest for checkpoint in kept for digest in self.digests(checkpoint)}
        created = {digest: time for checkpoint in dropped for digest, time in checkpoint.created_blobs.items()}
        for digest in sorted(created.keys() - needed):
            for info in self._store.list(blob_key(digest)):
                if info.modified <= created[digest]:
                    yield _Created(digest, created[digest], info.size)

    # --- how far it is

    def progress(self, run: str) -> Progress | None:
        """What was written last of how far a run is; None where nothing was, or it cannot be read."""
        folder = f"checkpoints/{run_name(run)}/progress/"
        listed: list[int] | None = None
        while listed != (there := _numbers(self._store, folder)):  # it may have been written anew meanwhile
            for number in reversed(there):
                with suppress(NotFound, ValueError, msgspec.DecodeError, RecursionError):  # deleted, or damaged
                    values = _decode_progress(unseal(self._store.get(f"{folder}{number:012d}.json"))[0])
                    return msgspec.structs.replace(values, logs=_numbers_again(values.logs))
            listed = there
        return None

    def put_progress(self, run: str, progress: Progress) -> None:
        """Write how far a run is, in the place of what was written before. Raises StorageError."""
        folder = f"checkpoints/{run_name(run)}/progress/"
        there = _numbers(self._store, folder)
        filled = msgspec.structs.replace(progress, time=progress.time or moment(self._clock()))
        data = seal(canonical_json(plain(msgspec.to_builtins(filled))))[0]
        with suppress(ObjectExists):  # another process writes too: its checkpoints will tell
            self._store.create(f"{folder}{max(there, default=0) + 1:012d}.json", [data])
        for number in there:
            self._store.delete(f"{folder}{number:012d}.json")


def model_of(manifest: Manifest) -> Manifest:
    """The model alone out of a checkpoint's manifest: without what only its training goes on from."""
    theirs = (TRAINING, OTHER_OPTIMIZERS)
    return msgspec.structs.replace(
        manifest,
        parts=tuple(part for part in manifest.parts if not part.name.startswith(TRAINING)),
        tensors=tuple(tensor for tensor in manifest.tensors if not tensor.name.startswith(theirs)),
    )


def version_of(step: int) -> str:
    """What the manifest of a checkpoint has in the place of a version's number."""
    return f"0.0.0-step.{step}"


def _find(checkpoints: Sequence[Checkpoint], at: At) -> Checkpoint | None:
    if at == "last":
        return checkpoints[-1] if checkpoints else None
    if at == "best":
        return best(checkpoints)
    return next((checkpoint for checkpoint in reversed(checkpoints) if checkpoint.step == at), None)


def best(checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """The best by the metric that the newest says, else by validation loss, else by loss; None where none has it."""
    wanted = checkpoints[-1].best if checkpoints else None
    metrics = _BEST_BY if wanted is None else (wanted,)
    return next(filter(None, (best_of(checkpoints, metric) for metric in metrics)), None)


def _numbers(store: ObjectStore, folder: str) -> list[int]:
    names = (info.key.removeprefix(folder) for info in store.list(folder))
    return sorted(int(name[:12]) for name in names if _FILE.fullmatch(name))


def _entry_key(run: str, number: int) -> str:
    return f"checkpoints/{run}/entries/{number:012d}.json"


def _numbers_again(logs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(value) if value in ("nan", "inf", "-inf") else value for name, value in logs.items()}


def _raise_if_any(errors: Mapping[int, ModelkeepError]) -> None:
    for error in errors.values():
        raise error


def _see(run: str) -> str:
    return f"see: modelkeep checkpoints {run}"


def _damaged(run: str, number: int, what: str, cause: BaseException | None = None) -> NoReturn:
    raise IntegrityError(
        f"checkpoint number {number} of {run!r} {what}",
        hint=f"restore {_entry_key(run, number)} from a copy of the store, or delete that file",
    ) from cause


def _other_process(run: str, number: int, cause: BaseException | None = None) -> NoReturn:
    raise Conflict(
        f"another process trains {run!r}, too: it added checkpoint number {number}; this one added nothing",
        hint="end one of the two, or give this one a run of its own name; then start again: it goes on from the newest",
    ) from cause
