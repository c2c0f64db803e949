"""Every error that modelkeep raises, and the exit code each one becomes on the command line.

The tree, grouped by what a handler would do about it::

    ModelkeepError
    ├── UsageError (ValueError)            2   the call itself is wrong: correct it
    │   └── InvalidRef                     2
    ├── NotFound (LookupError)            10   name something else
    │   ├── StoreNotFound                 10
    │   ├── ModelNotFound                 10
    │   ├── VersionNotFound               10
    │   ├── AliasNotFound                 10
    │   ├── RunNotFound                   10
    │   └── CheckpointNotFound            10
    ├── AlreadyExists                     11   choose another name or number
    │   └── VersionExists                 11
    ├── Conflict                          12   somebody else was first: look again, then retry
    ├── IntegrityError                    20   stored bytes are not what was recorded
    │   ├── BlobMissing                   20
    │   ├── LedgerDamaged                 20
    │   └── NotFaithful                   20   the rebuilt model does not answer like the original
    ├── UnsafeContent                     21   refused before anything was run
    │   └── LimitExceeded                 21
    ├── CannotLoad                        22   something outside the store is missing
    │   ├── CannotRebuild (TypeError)     22
    │   ├── MissingCustomObjects          22
    │   └── FormatTooNew                  22
    ├── GateRefused                       23   not good enough
    ├── MissingExtra (ImportError)        30   pip install something
    └── StorageError (OSError)            31   the disk or the network said no
        └── ObjectExists                  31   a create lost the race (callers turn it into meaning)

A message says what happened, what was found against what was expected, and the next step.
``str(error)`` is the whole text; the parts stay readable as attributes.
"""

from __future__ import annotations

from typing import ClassVar, Self


class ModelkeepError(Exception):
    """Base of every error modelkeep raises on purpose.

    ``found``, ``expected`` and ``hint`` become "found …, expected …" and the next step in the message.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    report: object = None  # the report behind it, where there is one

    def __init__(
        self,
        what: str,
        *,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.found = found
        self.expected = expected
        self.hint = hint
        super().__init__(self._text())

    def _text(self) -> str:
        compared = ", ".join(
            f"{word} {value}"
            for word, value in (("found", self.found), ("expected", self.expected))
            if value is not None
        )
        text = f"{self.what}: {compared}" if compared else self.what
        return f"{text}\n  → {self.hint}" if self.hint else text

    def __str__(self) -> str:
        # OSError and KeyError parents would print an errno pair or a repr instead.
        return self._text()


class UsageError(ModelkeepError, ValueError):
    """The call cannot be right whatever the store holds."""

    code = "usage"
    exit_code = 2


class InvalidRef(UsageError):
    """A text that does not parse as a model name, version, alias, digest or ref."""

    code = "invalid-ref"


class NotFound(ModelkeepError, LookupError):
    """What was named is not there."""

    code = "not-found"
    exit_code = 10


class StoreNotFound(NotFound):
    """The folder or bucket is not a modelkeep store."""

    code = "store-not-found"


class ModelNotFound(NotFound):
    """No model of that name in the store."""

    code = "model-not-found"


class VersionNotFound(NotFound):
    """The model has no such version, or it was deleted."""

    code = "version-not-found"


class AliasNotFound(NotFound):
    """The model has no such alias, or it had none at the time asked for."""

    code = "alias-not-found"


class RunNotFound(NotFound):
    """No training run of that name in the store."""

    code = "run-not-found"


class CheckpointNotFound(NotFound):
    """The run has no such checkpoint, or retention deleted it."""

    code = "checkpoint-not-found"


class AlreadyExists(ModelkeepError):
    """A name that is taken; versions are never overwritten."""

    code = "already-exists"
    exit_code = 11


class VersionExists(AlreadyExists):
    """That version number was published (or deleted) before; numbers are never reused."""

    code = "version-exists"


class Conflict(ModelkeepError):
    """Another writer changed what this decision was based on, so nothing was done."""

    code = "conflict"
    exit_code = 12


class IntegrityError(ModelkeepError):
    """Bytes in the store differ from what was recorded about them."""

    code = "integrity"
    exit_code = 20


class BlobMissing(IntegrityError):
    """A blob that a manifest names is not in the store."""

    code = "blob-missing"


class LedgerDamaged(IntegrityError):
    """A ledger entry is unreadable, altered or missing, or the chain does not fit together."""

    code = "ledger-damaged"


class NotFaithful(IntegrityError):
    """A model rebuilt from what was captured differs from the original: state or answers."""

    code = "not-faithful"


class UnsafeContent(ModelkeepError):
    """Content that could run code, reach outside its file, or exhaust the machine."""

    code = "unsafe"
    exit_code = 21


class LimitExceeded(UnsafeContent):
    """Foreign bytes larger, deeper or more numerous than the documented limit."""

    code = "limit-exceeded"


class CannotLoad(ModelkeepError):
    """The bytes are whole, but something needed to bring the model to life is missing."""

    code = "cannot-load"
    exit_code = 22


class CannotRebuild(CannotLoad, TypeError):
    """A class that cannot be rebuilt from its config; names the class and the method to add."""

    code = "cannot-rebuild"


class MissingCustomObjects(CannotLoad):
    """Custom classes or functions the model needs and the caller did not give."""

    code = "missing-custom-objects"


class FormatTooNew(CannotLoad):
    """Written by a later modelkeep in a format this one does not know."""

    code = "format-too-new"

    @classmethod
    def of(cls, what: str, *, found: int, newest: int) -> Self:
        """By the format number of ``what``, and the newest that this modelkeep reads."""
        return cls(
            f"{what} was written in a format that this modelkeep does not know",
            found=f"format {found}",
            expected=f"at most {newest}",
            hint="pip install --upgrade modelkeep",
        )


class GateRefused(ModelkeepError):
    """One or more gates were not met; ``report`` holds each with its numbers."""

    code = "gate-refused"
    exit_code = 23

    def __init__(self, what: str, *, report: object = None, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.report = report


class MissingExtra(ModelkeepError, ImportError):
    """An optional dependency is not installed; the message holds the pip line."""

    code = "missing-extra"
    exit_code = 30


class StorageError(ModelkeepError, OSError):
    """The storage below refused: disk full, read-only, I/O error, network."""

    code = "storage"
    exit_code = 31


class ObjectExists(StorageError):
    """``create`` of a key that is already there."""

    code = "object-exists"
