"""One thing that happened to a model, and its bytes.

An entry's file is exactly ``{"digest":"blake3:…","entry":{…}}``: the digest is BLAKE3 of the bytes of
``entry``, and every entry names the digest of the one before it. So no byte of the past can change unseen.

``FORMAT`` is bumped like the manifest's (see :mod:`modelkeep.manifest`): add the new number to ``READABLE``,
keep the old ones, give new fields defaults, and commit a store of the last release for the tests.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime, time
from typing import Literal, NoReturn

import msgspec

from modelkeep.catalog import Attachment, Described
from modelkeep.errors import FormatTooNew, LedgerDamaged, UsageError
from modelkeep.manifest import GateResult, Manifest, canonical_json
from modelkeep.sizes import human_bytes
from modelkeep.storage.envelope import seal, unseal

FORMAT = 1
READABLE = frozenset({1})
MAX_ENTRY = 10**6  # bytes: a page of records holds 64 of them


# --- what can happen


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag_field="do"):
    """Base of everything that can happen to a model."""


class Publish(
    Described, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag_field="do", tag="publish"
):
    """A version came to be."""

    @classmethod
    def of(cls, manifest: Manifest, digest: str, *, new_bytes: int) -> Publish:
        """What the ledger tells of a manifest whose digest this is."""
        environment = manifest.environment
        return cls(
            version=manifest.version,
            digest=digest,
            size=manifest.size,
            new_bytes=new_bytes,
            kind=manifest.kind,
            parameters=manifest.parameters,
            metrics=manifest.metrics,
            metadata=manifest.metadata,
            tags=manifest.tags,
            note=manifest.note,
            parent=manifest.lineage.parent,
            allowed=manifest.lineage.allowed,
            backend=environment.backend if environment else None,
            keras=environment.packages.get("keras") if environment else None,
        )


class Refuse(Action, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag="refuse"):
    """Gates said no: to a version about to be published, or to a move of ``alias``."""

    gates: tuple[GateResult, ...]
    version: str | None = None
    alias: str | None = None


class Move(Action, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag="move"):
    """An alias was pointed elsewhere.

    ``targets`` and ``was`` map versions to their per cent of the traffic. ``beneath`` is the number of the
    move that a rollback of this one goes back to, so that going back is one read however long the history.
    """

    alias: str
    kind: Literal["promote", "split", "rollback", "remove"]
    targets: dict[str, float]
    was: dict[str, float] = {}
    beneath: int | None = None


class Attach(Action, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag="attach"):
    """Something made later was added to a version, in the place of an earlier one of the same kind."""

    version: str
    attachment: Attachment


class Annotate(Action, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag="annotate"):
    """Tags were added and removed, the note was replaced (``None`` leaves it, an empty text removes it)."""

    version: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    note: str | None = None


class Yank(Action, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag="yank"):
    """A version is no longer chosen by "newest" nor by aliases, or (``undo``) is again."""

    version: str
    undo: bool = False


class Delete(Action, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag="delete"):
    """A version is gone for good; its bytes go with the next ``gc`` and its number is never used again."""

    version: str


class TrustedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Whose signature counts: a public key, or an identity at an issuer; for which models, and how long.

    ``id`` is the hexadecimal SHA-256 of ``pem``, or of issuer and identity (see :mod:`modelkeep.provenance`).
    ``models`` are patterns of names; times are RFC 3339 in UTC.
    """

    id: str
    name: str
    pem: str | None = None
    identity: str | None = None
    issuer: str | None = None
    models: tuple[str, ...] = ("*",)
    not_before: str | None = None
    not_after: str | None = None
    revoked: bool = False


class Policy(Action, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag="policy"):
    """Aliases that fit the pattern ``aliases`` demand from now on that ``required`` of ``keys`` have signed.

    It takes the place of an earlier one of the same pattern; with ``required`` 0 there is none any more.
    """

    aliases: str
    keys: tuple[TrustedKey, ...] = ()
    required: int = 1


AnyAction = Publish | Refuse | Move | Attach | Annotate | Yank | Delete | Policy


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One thing that happened: its place in the chain, when, who, why, and what."""

    format: int
    model: str
    seq: int  # from 1
    previous: str  # digest of the entry before, empty for the first
    time: str  # RFC 3339 in UTC to the microsecond, never before the previous entry's
    actor: str
    action: AnyAction
    reason: str | None = None


# --- bytes

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z")
_decode_entry = msgspec.json.Decoder(Entry).decode


class _Numbered(msgspec.Struct):
    format: int


_decode_number = msgspec.json.Decoder(_Numbered).decode


def entry_key(model: str, seq: int) -> str:
    """Where entry ``seq`` of a model lies in the store."""
    return f"models/{model}/ledger/{seq:012d}.json"


def fitting(value: Entry | AnyAction) -> bytes:
    """The JSON of an entry, or of an action that is to become one. Raises UsageError where it is too large."""
    body = canonical_json(value)
    if len(body) > MAX_ENTRY:
        raise UsageError(
            "too much to write into the ledger, which every listing reads",
            found=human_bytes(len(body)),
            expected=f"at most {human_bytes(MAX_ENTRY)}",
            hint="keep it as an asset, and name that in the metadata",
        )
    return body


def encode(entry: Entry) -> bytes:
    """The bytes of an entry's file. Raises UsageError for values without a JSON form, of another type, or too large."""
    body = fitting(entry)
    try:
        _decode_entry(body)
    except msgspec.ValidationError as error:
        raise UsageError(f"not what the ledger can hold: {error}") from error
    return seal(body)[0]


def decode(data: bytes, model: str, seq: int) -> tuple[Entry, str]:
    """Read the file of entry ``seq`` of ``model``; its digest comes along.

    Raises LedgerDamaged for bytes, or a model or number, that do not fit; FormatTooNew for a later format.
    """
    try:
        body, digest = unseal(data)
        entry = _decode_body(body)
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        damaged(model, seq, f"cannot be read ({error})", cause=error)
    if (entry.model, entry.seq) != (model, seq):
        damaged(model, seq, "is another entry", found=f"entry {entry.seq} of {entry.model!r}")
    if not _TIME.fullmatch(entry.time):
        damaged(model, seq, "has no proper time", found=repr(entry.time), expected="RFC 3339, UTC, microseconds")
    return entry, digest


def _decode_body(body: bytes) -> Entry:
    try:
        entry = _decode_entry(body)
        number = entry.format
    except msgspec.ValidationError:
        number = _decode_number(body).format
        if number in READABLE:
            raise
    if number not in READABLE:
        raise FormatTooNew.of("this ledger", found=number, newest=FORMAT)
    return entry


def damaged(
    model: str,
    seq: int,
    what: str,
    *,
    found: object = None,
    expected: object = None,
    cause: BaseException | None = None,
) -> NoReturn:
    """Raise LedgerDamaged about entry ``seq`` of ``model``."""
    raise LedgerDamaged(
        f"entry {seq} of the ledger of {model!r} {what}",
        found=found,
        expected=expected,
        hint="run: modelkeep fsck; then restore that entry's file from a copy of the store",
    ) from cause


# --- time


def moment(at: str | date | datetime) -> str:
    """A point in time as the ledger writes it: RFC 3339 in UTC, to the microsecond.

    A time without a zone is UTC; a date without a time is the end of that day in UTC.
    Raises UsageError for text that is not ISO 8601, and what is neither text nor time.
    """
    try:
        when = _read_moment(at) if isinstance(at, str) else at
        if not isinstance(when, datetime):
            when = datetime.combine(when, time.max)
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        raise UsageError(
            "not a point in time",
            found=repr(at),
            expected="ISO 8601, such as 2024-05-01 or 2024-05-01T12:30:00+02:00",
        ) from None
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def _read_moment(text: str) -> date | datetime:
    with suppress(ValueError):
        return date.fromisoformat(text)  # first: datetime's takes a date, too, but means its beginning
    return datetime.fromisoformat(text)
