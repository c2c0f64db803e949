"""What verbs answer: findings, gathered in a report that prints, is JSON, and shows in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelkeep.errors import IntegrityError, ModelkeepError


class Severity(StrEnum):
    """How much a finding matters. ``failure`` alone makes a report fail."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question: which check, about what, how bad, and the numbers behind it."""

    check: str  # stable, kebab-case: "tensor-digest"
    severity: Severity
    message: str
    subject: str = ""  # what it is about: a tensor, a blob, an entry
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings about one subject, in the order they were made."""

    title: str
    findings: tuple[Finding, ...] = ()
    error: type[ModelkeepError] = IntegrityError

    @property
    def ok(self) -> bool:
        """No finding is a failure."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that make the report fail."""
        return tuple(f for f in self.findings if f.severity is Severity.FAILURE)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def raise_for_failures(self) -> None:
        """Raise the report's error, naming every failure, unless :attr:`ok`."""
        if self.ok:
            return
        lines = "".join(f"\n  - {f.subject + ': ' if f.subject else ''}{f.message}" for f in self.failures)
        raise self.error(f"{self.title}: {len(self.failures)} failed{lines}")
