"""A report as a command's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from modelkeep.cli import shapes
from modelkeep.cli.answer import Answer, Lines

if TYPE_CHECKING:
    from modelkeep.report import Report


def answer_with(report: Report) -> Answer:
    """The report on stdout; the exit code of its error where a finding is a failure."""
    value = msgspec.convert(report.to_json(), shapes.Report)
    return Answer(value, [Lines(str(report))], 0 if report.ok else report.error.exit_code)
