"""Where a training run stood after a step: one small JSON document that names a manifest, and its bytes.

Its file is sealed as an entry of a ledger is (:mod:`modelkeep.storage.envelope`), so damage to any byte is seen.
``FORMAT`` is bumped like the manifest's (see :mod:`modelkeep.manifest`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from modelkeep.errors import FormatTooNew, IntegrityError, UsageError
from modelkeep.manifest import canonical_json
from modelkeep.storage.envelope import seal, unseal

FORMAT = 1
READABLE = frozenset({1})

Reason = Literal["interval", "epoch", "time", "signal", "end", "asked"]


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One checkpoint of a run.

    ``step`` counts the steps of training since the run began (batches, or what a custom loop counts), ``epoch`` the
    epochs done, ``step_in_epoch`` the steps done in the next one. ``metrics`` may be NaN or infinite. ``manifest`` is a
    digest; ``size`` the bytes that it names in all, ``new_bytes`` those that were not in the store before.
    """

    format: int = FORMAT
    run: str
    number: int = 0  # from 1 on, in the order of writing; 0 until it is added
    step: int
    epoch: int
    step_in_epoch: int
    created: str = ""  # RFC 3339, UTC; empty until it is added
    reason: Reason
    metrics: dict[str, float] = {}
    manifest: str
    size: int
    new_bytes: int
    created_blobs: dict[str, float] = {}  # those that its write created, each with the exact time it was created with
    follows: int | None = None  # number of the checkpoint that training went on from
    finished: bool = False  # there is no more to do
    best: str | None = None  # the metric that the run keeps its best checkpoint by, as Retention.best

    @property
    def ref(self) -> str:
        """``run@step``."""
        return f"{self.run}@{self.step}"


class _Stored(msgspec.Struct):
    format: int


class _Written(Checkpoint, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As it is in JSON, which has no number that is none: such metrics are text."""

    metrics: dict[str, float | Literal["nan", "inf", "-inf"]] = {}  # type: ignore[assignment]


_decoder = msgspec.json.Decoder(_Written)
_format_decoder = msgspec.json.Decoder(_Stored)


def encode(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint's file. Raises UsageError for values that are not of their field's type."""
    values = {**msgspec.structs.asdict(checkpoint), "metrics": to_json(checkpoint.metrics)}
    body = canonical_json(values)
    try:
        _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise UsageError(f"not what a checkpoint can hold: {error}") from error
    return seal(body)[0]


def decode(data: bytes) -> Checkpoint:
    """Read a checkpoint's file.

    Raises FormatTooNew for a later format, IntegrityError for anything else that does not fit.
    """
    try:
        body = unseal(data)[0]
        number = _format_decoder.decode(body).format
        if number not in READABLE:
            raise FormatTooNew.of("this checkpoint", found=number, newest=FORMAT)
        values = msgspec.structs.asdict(_decoder.decode(body))
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise IntegrityError(f"a checkpoint cannot be read ({error})", hint="run: modelkeep fsck") from error
    return Checkpoint(**{**values, "metrics": from_json(values["metrics"])})


def to_json(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as JSON holds them: those that it lacks as ``nan``, ``inf``, ``-inf``."""
    return {name: number if math.isfinite(number) else str(float(number)) for name, number in numbers.items()}


def from_json(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that :func:`to_json` wrote."""
    return {name: float(number) for name, number in numbers.items()}


def numbered(checkpoint: Checkpoint, number: int, created: str) -> Checkpoint:
    """The same checkpoint with its number and time."""
    return replace(checkpoint, number=number, created=created)
