"""What all that happened to a model leaves: the fold of its entries. Rules over values, no I/O.

:func:`check` is the one place that says which action may follow which state, for whoever is about to write
an entry and for whoever reads one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

import msgspec

from modelkeep.catalog import Catalog, VersionRecord
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
    decode,
)
from modelkeep.errors import (
    AliasNotFound,
    AlreadyExists,
    Conflict,
    NotFound,
    UsageError,
    VersionExists,
    VersionNotFound,
)
from modelkeep.refs import alias_name, parse_digest, parse_version


class Pointing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where an alias points: per cent of the traffic by version, none once it was removed; and by which move."""

    targets: dict[str, float]
    seq: int
    beneath: int | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What all entries up to ``seq`` leave: the fold of the ledger."""

    model: str
    seq: int = 0
    head: str = ""  # digest of entry ``seq``
    time: str = ""  # of entry ``seq``
    catalog: Catalog = msgspec.field(default_factory=Catalog)
    pointings: dict[str, Pointing] = {}  # by alias, removed ones as well
    policies: dict[str, Policy] = {}  # by pattern of aliases
    live: int = 0  # versions that are not deleted
    stored: int = 0  # bytes that their saves added

    @property
    def aliases(self) -> dict[str, dict[str, float]]:
        """Every alias with its versions and their per cent."""
        return {alias: dict(p.targets) for alias, p in sorted(self.pointings.items()) if p.targets}

    def policies_for(self, alias: str) -> tuple[Policy, ...]:
        """Every policy that an alias is under."""
        return tuple(policy for pattern, policy in self.policies.items() if fnmatchcase(alias, pattern))

    def live_record(self, version: str) -> VersionRecord:
        """The record of a version that is there. Raises VersionNotFound, InvalidRef."""
        record = self.catalog.get(str(parse_version(version)))
        if record is None or record.deleted or record.version != version:
            newest = self.catalog.newest()
            raise VersionNotFound(
                f"{self.model} has no version {version}" + (", it was deleted" if record and record.deleted else ""),
                hint=f"the newest is {newest.version}; see: modelkeep versions {self.model}" if newest else None,
            )
        return record

    def pointing(self, alias: str) -> Pointing:
        """Where an alias points. Raises AliasNotFound, also once it was removed."""
        pointing = self.pointings.get(alias)
        if pointing is None or not pointing.targets:
            raise AliasNotFound(f"{self.model} has no alias {alias!r}", expected=", ".join(self.aliases) or None)
        return pointing


def check(state: State, action: AnyAction) -> None:
    """Raise what is wrong with doing ``action`` in ``state``, if anything is.

    VersionExists, VersionNotFound, AliasNotFound, Conflict (an alias points there), or UsageError.
    """
    match action:
        case Publish():
            _check_publish(state, action)
        case Move():
            _check_move(state, action)
        case Delete():
            _refuse_while_pointed_at(state, state.live_record(action.version), "deleted")
        case Yank():
            record = state.live_record(action.version)
            if not action.undo:
                _refuse_while_pointed_at(state, record, "yanked")
        case Annotate():
            state.live_record(action.version)
        case Attach():
            state.live_record(action.version)
            parse_digest(action.attachment.digest)
        case Policy():
            _check_policy(state, action)
        case Refuse():
            if not action.gates or all(gate.passed for gate in action.gates):
                raise UsageError("a refusal needs a gate that did not pass")


def _check_publish(state: State, action: Publish) -> None:
    if str(parse_version(action.version)) != action.version:
        raise UsageError("not a version as it is written", found=action.version)
    parse_digest(action.digest)
    check_free(state, action.version)


def check_free(state: State, version: str) -> None:
    """Raise VersionExists if the number was ever used."""
    there = state.catalog.get(version)
    if there is None:
        return
    newest = state.catalog.newest()
    raise VersionExists(
        f"{state.model} {there.version} "
        + ("was deleted, and a number is never used again" if there.deleted else "exists already"),
        hint=(f"the newest is {newest.version}; " if newest else "") + "give another number, or let bump= choose one",
    )


_ALIASES = re.compile(r"[A-Za-z0-9._*?-]{1,64}")
_KEY_ID = re.compile(r"[0-9a-f]{64}")


def _check_policy(state: State, action: Policy) -> None:
    name = f"{state.model}@{action.aliases}"
    if not _ALIASES.fullmatch(action.aliases):
        raise UsageError(
            "not an alias, nor a pattern of aliases",
            found=repr(action.aliases[:80]),
            expected="such as production, or *",
        )
    if action.required == 0 and action.aliases not in state.policies:
        raise AliasNotFound(f"{name} has no policy", expected=", ".join(state.policies) or None)
    ids = {key.id for key in action.keys if _KEY_ID.fullmatch(key.id) and (key.pem is None) != (key.identity is None)}
    if len(ids) != len(action.keys):
        raise UsageError(f"the keys of a policy for {name} are not keys, or not different ones")
    if not 0 <= action.required <= len(ids):
        raise UsageError(f"a policy for {name} asks for {action.required} of {len(ids)} keys")


_TARGETS = {"promote": (1, 1), "split": (1, math.inf), "rollback": (0, math.inf), "remove": (0, 0)}


def _check_move(state: State, action: Move) -> None:
    alias_name(action.alias)
    _check_base(state, action)
    fewest, most = _TARGETS[action.kind]
    if not fewest <= len(action.targets) <= most:
        raise UsageError(f"a {action.kind} cannot name {len(action.targets)} versions")
    check_weights(action.targets)
    for version in action.targets:
        if state.live_record(version).yanked:
            raise Conflict(
                f"{state.model} {version} is yanked: no alias can point at it",
                hint=f"choose another version, or: modelkeep yank {state.model}:{version} --undo",
            )


def _check_base(state: State, action: Move) -> None:
    """A move must start from where the alias is, and lie on the move that brought it there."""
    now = state.pointings.get(action.alias)
    name = f"{state.model}@{action.alias}"
    if action.was != (now.targets if now else {}):
        raise Conflict(f"{name} was moved meanwhile", found=now and now.targets, expected=action.was)
    if action.kind == "remove":
        state.pointing(action.alias)
    if action.kind != "rollback":
        if action.beneath != (now.seq if now else None):
            raise Conflict(f"{name} was moved meanwhile", found=now and now.seq, expected=action.beneath)
    elif now is None or now.beneath is None or (action.beneath or 0) >= now.beneath:
        raise Conflict(f"{name} has no earlier move to go back to")


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise UsageError unless the weights are per cent: positive, and 100 in all (within 1e-6) if any."""
    if any(not math.isfinite(weight) or weight <= 0 for weight in weights.values()):
        raise UsageError("a version's share must be positive", found=dict(weights))
    if weights and abs(math.fsum(weights.values()) - 100) > 1e-6:
        raise UsageError("shares are per cent", found=f"{math.fsum(weights.values()):g} in all", expected="100 in all")


def _refuse_while_pointed_at(state: State, record: VersionRecord, what: str) -> None:
    pointed = [f"{state.model}@{alias}" for alias, targets in state.aliases.items() if record.version in targets]
    if pointed:
        raise Conflict(
            f"{state.model} {record.version} cannot be {what} while {', '.join(pointed)} points at it",
            hint="promote another version, roll back, or remove the alias first",
        )


def fold(state: State, data: bytes) -> State:
    """The state after the entry that comes next, from the bytes of its file.

    Raises LedgerDamaged naming the model, the entry and what does not fit; FormatTooNew.
    """
    seq = state.seq + 1
    entry, digest = decode(data, state.model, seq)
    if entry.previous != state.head:
        damaged(state.model, seq, "does not follow the one before", found=entry.previous, expected=state.head or "none")
    if entry.time < state.time:
        damaged(state.model, seq, "is older than the one before", found=entry.time, expected=f"{state.time} or later")
    try:
        check(state, entry.action)
    except (UsageError, NotFound, AlreadyExists, Conflict) as error:
        damaged(state.model, seq, f"breaks a rule ({error.what})", cause=error)
    return apply(state, entry, digest)


def apply(state: State, entry: Entry, digest: str) -> State:
    """The state after an entry that fits."""
    catalog, live, stored = state.catalog, state.live, state.stored
    pointings, policies = state.pointings, state.policies
    match entry.action:
        case Publish() as action:
            record = record_of(entry, action)
            catalog, live, stored = catalog.with_record(record), live + 1, stored + record.new_bytes
        case Move() as action:
            pointing = Pointing(targets=action.targets, seq=entry.seq, beneath=action.beneath)
            pointings = {**pointings, action.alias: pointing}
        case Policy() as action:
            others = {pattern: policy for pattern, policy in policies.items() if pattern != action.aliases}
            policies = {**others, action.aliases: action} if action.required else others
        case Refuse():
            pass
        case Attach() | Annotate() | Yank() | Delete() as action:
            record = state.live_record(action.version)
            catalog = catalog.with_record(renewed(record, action))
            if isinstance(action, Delete):
                live, stored = live - 1, stored - record.new_bytes
    return State(
        model=state.model,
        seq=entry.seq,
        head=digest,
        time=entry.time,
        catalog=catalog,
        pointings=pointings,
        policies=policies,
        live=live,
        stored=stored,
    )


def renewed(record: VersionRecord, action: Attach | Annotate | Yank | Delete) -> VersionRecord:
    """The record that an entry about an existing version leaves of it."""
    match action:
        case Attach():
            others = tuple(a for a in record.attachments if a.kind != action.attachment.kind)
            return msgspec.structs.replace(record, attachments=(*others, action.attachment))
        case Annotate():
            kept = [tag for tag in (*record.tags, *action.add) if tag not in action.remove]
            note = record.note if action.note is None else action.note or None
            return msgspec.structs.replace(record, tags=tuple(dict.fromkeys(kept)), note=note)
        case Yank():
            return msgspec.structs.replace(record, yanked=not action.undo)
        case Delete():
            return msgspec.structs.replace(record, deleted=True)


def record_of(entry: Entry, action: Publish) -> VersionRecord:
    """The record that an entry which publishes leaves."""
    described = {name: getattr(action, name) for name in action.__struct_fields__}
    return VersionRecord(**described, seq=entry.seq, created=entry.time, actor=entry.actor)
