"""Every read and write of names: versions published and resolved, aliases moved, history asked.

All of it is decided over a model's state and written as one ledger entry, which either is created or is
not; so every method here either takes effect wholly or raises and leaves the store as it was.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, NoReturn, get_args

from modelkeep.catalog import Attachment, VersionRecord, next_version, precedence
from modelkeep.entry import (
    Annotate,
    AnyAction,
    Attach,
    Delete,
    Entry,
    Move,
    Policy,
    Publish,
    Refuse,
    Yank,
    damaged,
    moment,
)
from modelkeep.errors import (
    AliasNotFound,
    BlobMissing,
    Conflict,
    FormatTooNew,
    GateRefused,
    IntegrityError,
    LedgerDamaged,
    UsageError,
    VersionNotFound,
)
from modelkeep.ledger import State, check_free, check_weights, record_of
from modelkeep.ledgers import Ledgers
from modelkeep.manifest import MAX_MANIFEST, Manifest, decode, encode
from modelkeep.refs import (
    ByAlias,
    ByDigest,
    Exact,
    Newest,
    Ref,
    SemVer,
    Step,
    Within,
    alias_name,
    model_name,
    parse_ref,
    parse_version,
)
from modelkeep.version import Version

if TYPE_CHECKING:
    from modelkeep.storage.blobs import Blobs
    from modelkeep.storage.protocol import ObjectInfo, ObjectStore

Bump = Literal["major", "minor", "patch", "prerelease"]
Moment = str | date | datetime
Guard = Callable[["Registry", str, str, tuple[Policy, ...], VersionRecord], object]
GRACE = timedelta(hours=24)  # younger blobs are not collected, since a save may be about to name them
REFRESH_AFTER = 60.0  # seconds since a save last looked at its blobs; much less than any sensible grace

_BLOB_KEY = re.compile(r"blobs/([0-9a-f]{2})/\1[0-9a-f]{62}")


@dataclass(frozen=True, slots=True)
class Resolved:
    """The version a ref selects. By an alias: which, and every version behind it with its per cent."""

    model: str
    record: VersionRecord
    alias: str | None = None
    targets: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model in a listing. ``stored`` is the bytes that its versions' saves added to the store.

    Where the ledger is damaged or of a later format, ``damage`` says how, and nothing else is known but the name.
    """

    name: str
    newest: Version | None = None
    versions: int = 0
    aliases: Mapping[str, Mapping[str, float]] | None = None
    stored: int = 0
    updated: str = ""
    damage: LedgerDamaged | FormatTooNew | None = None


class Registry:
    """The names in a store. Safe to use from many threads, processes and machines at once.

    ``guard(registry, model, alias, policies, record)`` raises GateRefused where a version does not meet the
    policies that an alias is under; without one, whatever is under a policy is refused.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        actor: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        guard: Guard | None = None,
    ) -> None:
        self.store = store
        self._guard = guard or _refuse_unguarded
        self.ledgers = Ledgers(store, actor=actor, clock=clock)

    @cached_property
    def blobs(self) -> Blobs:
        """The store's blobs."""
        from modelkeep.storage.blobs import Blobs  # listing and resolving do without, and must start fast

        return Blobs(self.store)

    # --- publishing

    def next_version(self, model: str, *, version: str | None = None, bump: Bump | None = None) -> SemVer:
        """The number that :meth:`publish` would take now.

        ``version`` if it is free, lower ones than the newest as well; else the one that ``bump`` gives (see
        :func:`modelkeep.catalog.next_version`; ``minor`` when nothing is asked for).
        Raises VersionExists, UsageError when both are given or no such bump is known, InvalidRef.
        """
        return self._number(self.ledgers.state_or_new(model_name(model)), version, bump)

    def _number(self, state: State, version: str | None, bump: Bump | None) -> SemVer:
        if version is None:
            if bump not in (None, *get_args(Bump)):
                raise UsageError("no such bump", found=repr(bump), expected=", ".join(get_args(Bump)))
            return next_version(state.catalog, bump or "minor", self.ledgers.now())
        if bump is not None:
            raise UsageError("version and bump are two ways to say the same", found=f"{version!r} and {bump!r}")
        number = parse_version(version)
        check_free(state, str(number))
        return number

    def publish(
        self,
        model: str,
        build: Callable[[SemVer], Manifest],
        *,
        version: str | None = None,
        bump: Bump | None = None,
        new_bytes: int = 0,
        fresh_since: float | None = None,
        reason: str | None = None,
    ) -> VersionRecord:
        """Make a manifest, whose blobs are in the store, a version.

        ``build`` makes the manifest for a number; it is called again with the next one when another writer
        took the number first. If it raises GateRefused, the refusal and its numbers are recorded, nothing
        is published, and the error goes on. ``new_bytes`` is what the blobs added to the store.
        ``fresh_since`` is a ``time.monotonic()`` since which every blob was written or refreshed: if that is
        long ago, or not given, all are refreshed before the entry is written, so that a gc at the same
        moment leaves them.

        Raises what :meth:`next_version` raises, GateRefused, Conflict where a gc took a blob away or other
        writers were first too often, StorageError.
        """
        last_look = -math.inf if fresh_since is None else fresh_since
        action: Publish

        def decide(state: State) -> Publish:
            nonlocal action, last_look
            number = self._number(state, version, bump)
            try:
                manifest = build(number)
            except GateRefused as error:
                self.refuse(model, error.report, version=str(number))
                raise
            if (manifest.model, manifest.version) != (model, str(number)):
                found = f"{manifest.model}:{manifest.version}"
                raise UsageError("a manifest of another version", found=found, expected=f"{model}:{number}")
            if time.monotonic() - last_look > REFRESH_AFTER:
                last_look = time.monotonic()
                self._refresh(manifest)
            digest, written = self.blobs.add(encode(manifest))
            action = Publish.of(manifest, digest, new_bytes=new_bytes + written)
            return action

        entry = self.ledgers.append(model_name(model), decide, reason=reason)
        return record_of(entry, action)

    def _refresh(self, manifest: Manifest) -> None:
        gone = self.blobs.refresh(sorted(manifest.blobs()))
        if gone:
            raise Conflict(
                f"a gc removed blobs of {manifest.model}:{manifest.version} before it was published",
                found=f"{len(gone)} missing, the first {gone[0]}",
                hint="save again; let gc keep a grace longer than a save takes",
            )

    def refuse(self, model: str, report: object, *, version: str | None = None, alias: str | None = None) -> None:
        """Record that gates said no, with their numbers, to a version or to the move of an alias to it."""
        from modelkeep.gates import results  # likewise
        from modelkeep.report import Report

        if isinstance(report, Report):
            action = Refuse(gates=results(report), version=version, alias=alias)
            self.ledgers.append(model_name(model), lambda _: action)

    # --- asking

    def resolve(self, ref: str | Ref, *, at: Moment | None = None) -> Resolved:
        """The version that a ref selects; with ``at``, that it selected then (see :func:`modelkeep.entry.moment`).

        An alias that splits its traffic resolves to the version with the largest share, the newer of equals;
        the others are in ``targets``. Yanked versions are found by number and digest only. What was resolved
        ``at`` a time may be deleted since.

        Raises ModelNotFound, VersionNotFound, AliasNotFound, InvalidRef, LedgerDamaged.
        """
        ref = ref if isinstance(ref, Ref) else parse_ref(ref)
        if isinstance(ref.selector, Step):
            raise _no_version(ref)  # rather than that there is no such model
        state = self.ledgers.state(ref.model) if at is None else self.ledgers.state_at(ref.model, moment(at))
        return self._select(state, ref)

    def _select(self, state: State, ref: Ref) -> Resolved:
        match ref.selector:
            case Newest():
                return Resolved(ref.model, _found(state, ref, state.catalog.newest()))
            case Within(major, minor):
                return Resolved(ref.model, _found(state, ref, state.catalog.newest(major, minor)))
            case Exact(version):
                return Resolved(ref.model, state.live_record(str(version)))
            case ByDigest(prefix):
                return Resolved(ref.model, self._by_digest(state, prefix))
            case Step():
                raise _no_version(ref)
            case ByAlias(alias):
                targets = state.pointing(alias).targets
                return Resolved(ref.model, state.live_record(largest_share(targets)), alias, targets)

    def _by_digest(self, state: State, prefix: str) -> VersionRecord:
        """By way of the manifest, which names its version: no page but that version's is read."""
        found: dict[str, VersionRecord] = {}
        for digest, info in self.blob_objects(prefix):
            if info.size > MAX_MANIFEST:
                continue
            try:
                manifest = decode(self.blobs.get(digest))
            except (IntegrityError, FormatTooNew):
                continue  # a tensor or another part, not a manifest
            record = state.catalog.get(manifest.version) if manifest.model == state.model else None
            if record is not None and record.digest == digest and not record.deleted:
                found[digest] = record
        # Where the manifest is lost or damaged, the ledger knows the version all the same.
        found = found or {record.digest: record for record in state.catalog if _has_digest(record, prefix)}
        if len(found) > 1:
            raise VersionNotFound(
                f"{prefix} begins the digest of {len(found)} versions of {state.model}", hint="give more of it"
            )
        if not found:
            raise VersionNotFound(f"{state.model} has no version whose digest begins with {prefix}")
        return found.popitem()[1]

    def manifest(self, model: str, record: VersionRecord) -> Manifest:
        """What a version says of itself, checked to be the one the ledger names.

        Raises BlobMissing, IntegrityError, FormatTooNew.
        """
        manifest = decode(self.blobs.get(record.digest))
        if (manifest.model, manifest.version) != (model, record.version):
            raise IntegrityError(
                f"the manifest of {model}:{record.version} is another version's",
                found=f"{manifest.model}:{manifest.version}",
                hint="run: modelkeep fsck",
            )
        return manifest

    def blob_objects(self, prefix: str = "blake3:") -> Iterator[tuple[str, ObjectInfo]]:
        """Every blob in the store whose digest begins so, in no order."""
        start = prefix.removeprefix("blake3:")
        for info in self.store.list(f"blobs/{start[:2]}/{start}" if start else "blobs/"):
            if _BLOB_KEY.fullmatch(info.key):
                yield "blake3:" + info.key.rpartition("/")[2], info

    def version(self, model: str, record: VersionRecord, targets: Mapping[str, float] | None = None) -> Version:
        """A record as the library hands it out; ``targets`` of the alias that selected it, if one did."""
        return Version.of(model, record, partial(self.manifest, model, record), weights=targets)

    def versions(self, model: str) -> list[VersionRecord]:
        """Every version that is not deleted, lowest first. Raises ModelNotFound, LedgerDamaged."""
        return [record for record in self.ledgers.state(model).catalog if not record.deleted]

    def records(self, model: str | None = None) -> Iterator[tuple[str, VersionRecord]]:
        """Model name and record of every version that is not deleted, of one model or of all: what search reads."""
        for name in self.ledgers.models() if model is None else [model_name(model)]:
            for record in self.versions(name):
                yield name, record

    def models(self) -> list[ModelSummary]:
        """Every model, by name. No page of versions is read."""
        return [self._summary(name) for name in sorted(self.ledgers.models())]

    def _summary(self, name: str) -> ModelSummary:
        try:
            state = self.ledgers.state(name)
        except (LedgerDamaged, FormatTooNew) as damage:
            return ModelSummary(name, damage=damage)
        newest = state.catalog.newest()
        version = None if newest is None else self.version(name, newest)
        return ModelSummary(name, version, state.live, state.aliases, state.stored, state.time)

    def history(self, model: str, alias: str | None = None) -> list[Entry]:
        """What happened to a model, or to one of its aliases (refused moves as well), oldest first.

        Every entry read is checked against all before it. Raises ModelNotFound, AliasNotFound, LedgerDamaged.
        """
        entries = list(self.ledgers.entries(model))
        if alias is None:
            return entries
        found = [entry for entry in entries if _is_about(alias, entry.action)]
        if not found:
            raise AliasNotFound(f"{model} never had an alias {alias!r}", hint=f"see: modelkeep show {model}")
        return found

    # --- moving aliases

    def promote(
        self,
        ref: str | Ref,
        alias: str,
        *,
        judge: Callable[[VersionRecord], object] | None = None,
        reason: str | None = None,
    ) -> Entry:
        """Point an alias at the version a ref selects now; the entry that does, or did so already.

        ``judge`` and the alias' policies may raise GateRefused: then that is recorded, the alias stays, and the
        error goes on. Raises what :meth:`resolve` raises, Conflict where the version is yanked or where somebody
        else moved the alias since this call looked.
        """
        ref = ref if isinstance(ref, Ref) else parse_ref(ref)
        alias_name(alias)  # before anything is judged, or recorded as refused
        state = self.ledgers.state(ref.model)
        record = self._select(state, ref).record
        try:
            if judge is not None:
                judge(record)
        except GateRefused as error:
            self.refuse(ref.model, error.report, version=record.version, alias=alias)
            raise
        return self._point(state, alias, "promote", {record.version: 100.0}, reason)

    def split(self, model: str, alias: str, weights: Mapping[str, float], *, reason: str | None = None) -> Entry:
        """Share an alias' traffic between versions, by whole version numbers, in per cent that add up to 100.

        Raises UsageError for other weights, VersionNotFound, Conflict and GateRefused as :meth:`promote`.
        """
        shares = {str(parse_version(version)): _share(weight) for version, weight in weights.items()}
        check_weights(shares)
        return self._point(self.ledgers.state(model), alias, "split", shares, reason)

    def rollback(self, model: str, alias: str, *, reason: str | None = None) -> Entry:
        """Point an alias at what it pointed at before its last move; again, and it goes further back.

        A time without the alias is passed over: a rollback never takes it away.

        Raises AliasNotFound; Conflict where there is nothing further back, where a version back there was
        deleted or yanked, or where somebody else moved the alias since this call looked; GateRefused where
        a version back there does not meet a policy of the alias.
        """
        state = self.ledgers.state(model)
        now = state.pointings.get(alias_name(alias)) or state.pointing(alias)
        earlier = self._beneath(model, alias, now.beneath)
        while not earlier.targets:
            earlier = self._beneath(model, alias, earlier.beneath)
        try:
            return self._move(state, alias, "rollback", earlier.targets, earlier.beneath, reason)
        except VersionNotFound as error:
            raise Conflict(
                f"{model}@{alias} cannot go back: {error.what}", hint="promote a version that is there"
            ) from error

    def _beneath(self, model: str, alias: str, seq: int | None) -> Move:
        """The move of an alias that another one lies on."""
        if seq is None:
            raise Conflict(
                f"{model}@{alias} has no earlier move to go back to", hint=f"see: modelkeep history {model}@{alias}"
            )
        earlier = self.ledgers.entry(model, seq).action
        if not isinstance(earlier, Move) or earlier.alias != alias:
            damaged(model, seq, f"is not a move of {alias!r}, though a later one says so")
        return earlier

    def remove_alias(self, model: str, alias: str, *, reason: str | None = None) -> Entry:
        """Take an alias away; a rollback brings it back. Raises AliasNotFound, Conflict as :meth:`promote`."""
        state = self.ledgers.state(model)
        return self._move(state, alias, "remove", {}, state.pointing(alias).seq, reason)

    def _point(
        self, state: State, alias: str, kind: Literal["promote", "split"], targets: dict[str, float], reason: str | None
    ) -> Entry:
        now = state.pointings.get(alias_name(alias))
        if now is not None and now.targets == targets:
            self._demand(state, alias, targets)
            return self.ledgers.entry(state.model, now.seq)  # a second move would make a rollback go nowhere
        return self._move(state, alias, kind, targets, now.seq if now else None, reason)

    def _move(
        self,
        seen: State,
        alias: str,
        kind: Literal["promote", "split", "rollback", "remove"],
        targets: dict[str, float],
        beneath: int | None,
        reason: str | None,
    ) -> Entry:
        was = seen.pointings.get(alias)
        action = Move(alias=alias, kind=kind, targets=targets, was=was.targets if was else {}, beneath=beneath)

        def decide(state: State) -> AnyAction:
            if state.pointings.get(alias) != was:
                raise Conflict(
                    f"somebody else moved {state.model}@{alias} at this moment; this {kind} did nothing",
                    hint=f"look again: modelkeep history {state.model}@{alias}",
                )
            self._demand(state, alias, targets)
            return action

        return self.ledgers.append(seen.model, decide, reason=reason)

    def _demand(self, state: State, alias: str, targets: Mapping[str, float]) -> None:
        """Raise GateRefused, and record it, unless every version meets the policies that the alias is under."""
        policies = state.policies_for(alias)
        for version in targets if policies else ():
            try:
                self._guard(self, state.model, alias, policies, state.live_record(version))
            except GateRefused as error:
                self.refuse(state.model, error.report, version=version, alias=alias)
                raise

    def policies(self, model: str) -> dict[str, Policy]:
        """The policies of a model by the pattern of aliases they are for. Raises ModelNotFound, LedgerDamaged."""
        return dict(self.ledgers.state(model_name(model)).policies)

    def set_policy(self, model: str, policy: Policy, *, reason: str | None = None) -> Entry:
        """Demand signatures from now on, or (``required`` 0) no longer; aliases stay where they point.

        Raises UsageError for keys that are none, AliasNotFound where there is no policy to take away.
        """
        return self.ledgers.append(model_name(model), lambda _: policy, reason=reason)

    # --- saying more of a version

    def annotate(
        self,
        ref: str | Ref,
        *,
        add: tuple[str, ...] = (),
        remove: tuple[str, ...] = (),
        note: str | None = None,
        reason: str | None = None,
    ) -> Entry:
        """Add and remove tags, and replace the note (an empty one removes it). Raises like :meth:`resolve`."""
        at = self.resolve(ref)
        return self._about(at, Annotate(version=at.record.version, add=add, remove=remove, note=note), reason)

    def attach(self, ref: str | Ref, attachment: Attachment, *, reason: str | None = None) -> Entry:
        """Add something made later, whose blob is in the store; it replaces an earlier one of its kind.

        Raises like :meth:`resolve`, and BlobMissing.
        """
        at = self.resolve(ref)
        if self.blobs.refresh([attachment.digest]):
            raise BlobMissing(f"no blob {attachment.digest} to attach", hint="put it into the store first")
        return self._about(at, Attach(version=at.record.version, attachment=attachment), reason)

    def yank(self, ref: str | Ref, *, undo: bool = False, reason: str | None = None) -> Entry:
        """Let a version be found by number and digest only; ``undo`` takes that back.

        Raises like :meth:`resolve`, and Conflict while an alias points at it.
        """
        at = self.resolve(ref)
        return self._about(at, Yank(version=at.record.version, undo=undo), reason)

    def delete(self, ref: str | Ref, *, reason: str | None = None) -> Entry:
        """Remove a version, named by its whole number or by digest. ``gc`` frees its bytes later.

        Raises UsageError for any other ref, Conflict while an alias points at it, and like :meth:`resolve`.
        """
        ref = ref if isinstance(ref, Ref) else parse_ref(ref)
        if not isinstance(ref.selector, Exact | ByDigest):
            raise UsageError(
                "only a version named exactly can be deleted", found=str(ref), expected=f"such as {ref.model}:1.2.0"
            )
        at = self.resolve(ref)
        return self._about(at, Delete(version=at.record.version), reason)

    def _about(self, at: Resolved, action: AnyAction, reason: str | None) -> Entry:
        return self.ledgers.append(at.model, lambda _: action, reason=reason)


def _is_about(alias: str, action: AnyAction) -> bool:
    if isinstance(action, Policy):
        return fnmatchcase(alias, action.aliases)
    return isinstance(action, Move | Refuse) and action.alias == alias


def _refuse_unguarded(registry: Registry, model: str, alias: str, *_: object) -> NoReturn:
    raise GateRefused(
        f"{model}@{alias} demands signatures, and nothing here can check them", hint="use modelkeep.open(…), which does"
    )


def _share(weight: float) -> float:
    try:
        return float(weight)
    except (TypeError, ValueError, OverflowError):
        raise UsageError("a version's share must be a number", found=repr(weight), expected="per cent") from None


def _has_digest(record: VersionRecord, prefix: str) -> bool:
    return record.digest.startswith(prefix) and not record.deleted


def largest_share(targets: Mapping[str, float]) -> str:
    """The version that a split alias stands for: of equal shares the newer."""
    return max(targets, key=lambda version: (targets[version], precedence(version)))


def _no_version(ref: Ref) -> VersionNotFound:
    return VersionNotFound(
        f"{ref} is a checkpoint of a training run, and no version", hint=f"make it one: modelkeep publish {ref} NAME"
    )


def _found(state: State, ref: Ref, record: VersionRecord | None) -> VersionRecord:
    if record is None:
        what = "no version" if isinstance(ref.selector, Newest) else f"no version within {str(ref.selector)[1:]}"
        yanked = " that is not yanked" if state.live else ""
        raise VersionNotFound(f"{ref.model} has {what}{yanked}", hint=f"see: modelkeep versions {ref.model}")
    return record
