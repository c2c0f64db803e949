"""What verbs answer: reports of findings, and diffs. Each prints, is JSON, and shows in a notebook."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from html import escape
from typing import Any, Literal

from modelkeep.errors import IntegrityError, ModelkeepError

_WIDEST = 40  # characters; a longer first column is not worth aligning to


class Severity(StrEnum):
    """How much a finding matters. ``failure`` alone makes a report fail."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILURE = "failure"


_SYMBOLS = {Severity.FAILURE: "✗", Severity.WARNING: "!", Severity.NOTE: "·", Severity.OK: "✓"}
_WORST_FIRST = tuple(_SYMBOLS)


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question: which check, about what, how bad, and the numbers behind it."""

    check: str  # stable, kebab-case: "tensor-digest"
    severity: Severity
    message: str
    subject: str = ""  # what it is about: a tensor, a blob, an entry
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "check": self.check,
            "severity": str(self.severity),
            "message": self.message,
            "subject": self.subject,
            "details": plain(self.details),
        }


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
        return self._of(Severity.FAILURE)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings somebody should look at."""
        return self._of(Severity.WARNING)

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity is severity)

    @property
    def summary(self) -> str:
        """Such as ``1 failure, 2 warnings, 14 ok``."""
        counts = ((severity, len(self._of(severity))) for severity in _WORST_FIRST)
        return ", ".join(_counted(count, severity) for severity, count in counts if count) or "nothing to say"

    def _worst_first(self) -> list[Finding]:
        return [f for severity in _WORST_FIRST for f in self._of(severity)]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def extended(self, more: Iterable[Finding]) -> Report:
        """The same report with more findings."""
        return replace(self, findings=(*self.findings, *more))

    def raise_for_failures(self) -> None:
        """Raise the report's error, naming every failure, unless :attr:`ok`. The error holds it as ``report``."""
        if self.ok:
            return
        lines = [f"  - {_one_line(f.subject) + ': ' if f.subject else ''}{_indented(f.message)}" for f in self.failures]
        error = self.error("\n".join([f"{_one_line(self.title)}: {len(lines)} failed", *lines]))
        error.report = self
        raise error

    def __str__(self) -> str:
        """The title and its summary, then a line for each finding, the worst first."""
        rows = [(f"{_SYMBOLS[f.severity]} {f.check}", f.subject, f.message) for f in self._worst_first()]
        return "\n".join([f"{_one_line(self.title)}: {self.summary}", *_aligned(rows)])

    def to_json(self) -> dict[str, Any]:
        """As JSON values: ``title``, ``ok`` and ``findings`` in the order they were made."""
        return {"title": self.title, "ok": self.ok, "findings": [f.to_json() for f in self.findings]}

    def _repr_html_(self) -> str:
        rows = [(_SYMBOLS[f.severity], f.check, f.subject, f.message) for f in self._worst_first()]
        return _html(f"{self.title}: {self.summary}", [("", rows)])


def _counted(count: int, severity: Severity) -> str:
    plural = "s" if count > 1 and severity is not Severity.OK else ""
    return f"{count} {severity}{plural}"


ChangeKind = Literal["added", "removed", "changed"]
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: what happened to ``subject``, its value before and after, and a remark."""

    kind: ChangeKind
    subject: str
    old: Any = None
    new: Any = None
    remark: str = ""

    def __str__(self) -> str:
        """Before and after, and the remark."""
        values = {"added": _shown(self.new), "removed": _shown(self.old)}
        text = values.get(self.kind, f"{_shown(self.old)} → {_shown(self.new)}")
        if self.old is None and self.new is None:
            text = ""
        return f"{text}  {self.remark}".strip() if self.remark else text

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "old": plain(self.old),
            "new": plain(self.new),
            "remark": self.remark,
        }


@dataclass(frozen=True, slots=True)
class Section:
    """The differences of one kind of thing, and how many of them stayed the same."""

    name: str
    changes: tuple[Change, ...] = ()
    same: int = 0

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two versions, section by section. True when anything does."""

    old: str
    new: str
    sections: tuple[Section, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return any(self.sections)

    def __getitem__(self, name: str) -> Section:
        """The section of that name; empty where nothing was compared."""
        return next((section for section in self.sections if section.name == name), Section(name))

    def __iter__(self) -> Iterator[Section]:
        return iter(self.sections)

    def __str__(self) -> str:
        """The two names, then each section that has changes."""
        lines = [self._title()]
        for section in filter(None, self.sections):
            rows = [(f"  {_SIGNS[change.kind]} {change.subject}", str(change)) for change in section]
            lines += ["", _one_line(section.name), *_aligned(rows)]
            if section.same:
                lines.append(f"    {section.same} the same")
        return "\n".join(lines)

    def _title(self) -> str:
        return _one_line(f"{self.old} → {self.new}") + ("" if self else ": no difference")

    def to_json(self) -> dict[str, Any]:
        """As JSON values: ``old``, ``new`` and ``sections``, by name, each with ``changes`` and ``same``."""
        sections = {
            section.name: {"changes": [change.to_json() for change in section], "same": section.same}
            for section in self.sections
        }
        return {"old": self.old, "new": self.new, "different": bool(self), "sections": sections}

    def _repr_html_(self) -> str:
        tables = [
            (section.name, [(_SIGNS[change.kind], change.subject, str(change)) for change in section])
            for section in filter(None, self.sections)
        ]
        return _html(self._title(), tables)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns of equal width, empty ones left out; a text of many lines hangs below its own column."""
    safe = [(*map(_one_line, before), _printable(last)) for *before, last in rows]
    columns = [column for column in zip(*safe, strict=True) if any(column)]
    widths = [max((len(cell) for cell in column if len(cell) <= _WIDEST), default=0) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        *before, last = row
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(before, widths, strict=False))
        lines.append((start + last.replace("\n", "\n" + " " * len(start))).rstrip())
    return lines


def _printable(text: str) -> str:
    """Control characters escaped: a name read from a file must not command the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _one_line(text: str) -> str:
    return _printable(text).replace("\n", "\\n")


def _indented(text: str) -> str:
    return _printable(text).replace("\n", "\n    ")


def _shown(value: Any) -> str:
    """A JSON value as short text: numbers to six digits, text without quotes, long values cut."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            text = f"[{', '.join(map(_shown, value))}]"
        case Mapping():
            text = f"{{{', '.join(f'{key}: {_shown(inner)}' for key, inner in value.items())}}}"
        case _:
            text = str(value)
    return text if len(text) <= 200 else text[:199] + "…"


def several(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def plain(value: Any) -> Any:
    """JSON values only; what has no JSON form (NaN among it) becomes its text."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(inner) for inner in value]
    return str(value)


def _html(title: str, tables: Sequence[tuple[str, Sequence[tuple[str, ...]]]]) -> str:
    """A caption and rows for each table; every text escaped, so that no name can bring markup along."""
    body = []
    for caption, rows in tables:
        if caption:
            body.append(f"<h4>{escape(_printable(caption))}</h4>")
        cells = (
            "".join(f"<td style='text-align:left;white-space:pre-wrap'>{escape(_printable(cell))}</td>" for cell in row)
            for row in rows
        )
        body.append(f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>")
    return f"<div><strong>{escape(_printable(title))}</strong>{''.join(body)}</div>"
