"""How times, aliases and metrics read in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from modelkeep.cli.answer import Table
from modelkeep.refs import short_digest
from modelkeep.sizes import human_bytes

if TYPE_CHECKING:
    from modelkeep.entry import AnyAction
    from modelkeep.version import Version


def moment(time: str) -> str:
    """``2026-11-23T19:50:07.123456Z`` → ``2026-11-23 19:50:07``."""
    return time[:19].replace("T", " ")


def pointing(weights: Mapping[str, float]) -> str:
    """``1.1.0``, or ``1.0.0 90 %, 1.1.0 10 %`` where the traffic is split."""
    if len(weights) == 1:
        return next(iter(weights))
    return ", ".join(f"{version} {share:g} %" for version, share in weights.items())


def pointings(aliases: Mapping[str, Mapping[str, float]]) -> str:
    """``production=1.1.0 staging=1.2.0``."""
    return " ".join(f"{alias}={pointing(weights)}" for alias, weights in sorted(aliases.items()))


def numbers(values: Mapping[str, Any]) -> str:
    """``accuracy=0.92 loss=0.21``; nested values as they are."""
    return " ".join(f"{name}={short(value)}" for name, value in values.items())


def short(value: Any) -> str:
    """A JSON value in few characters: numbers to six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def version_table(versions: Iterable[Version], *, name: Callable[[Version], str]) -> Table:
    """Versions as rows; ``name`` gives the first column."""
    columns = ("VERSION", "METRICS", "PARAMETERS", "SIZE", "NEW", "TAGS", "CREATED (UTC)", "DIGEST")
    rows = [
        (
            name(version) + (" (yanked)" if version.yanked else ""),
            numbers(version.metrics),
            f"{version.parameters:,}",
            human_bytes(version.size),
            human_bytes(version.new_bytes),
            " ".join(version.tags),
            moment(version.created),
            short_digest(version.digest),
        )
        for version in versions
    ]
    return Table(columns, rows, right=frozenset({"PARAMETERS", "SIZE", "NEW"}))


def event(action: AnyAction) -> str:
    """What happened, in a line: ``production → 1.1.0 (was 1.0.0)``."""
    from modelkeep.entry import Annotate, Attach, Delete, Move, Policy, Publish, Refuse, Yank

    match action:
        case Publish():
            return f"publish {action.version}"
        case Refuse():
            subject = action.version if action.alias is None else f"{action.alias} → {action.version}"
            return f"refuse {subject}: {', '.join(gate.gate for gate in action.gates if not gate.passed)}"
        case Move():
            was = f" (was {pointing(action.was)})" if action.was else ""
            return f"{action.kind} {action.alias} → {pointing(action.targets) or 'nothing'}{was}"
        case Attach():
            return f"attach {action.attachment.kind} to {action.version}"
        case Annotate():
            marks = [f"+{tag}" for tag in action.add] + [f"-{tag}" for tag in action.remove]
            note = [] if action.note is None else [f"note {action.note!r}"]
            return f"annotate {action.version} {' '.join(marks + note)}"
        case Yank():
            return f"{'unyank' if action.undo else 'yank'} {action.version}"
        case Delete():
            return f"delete {action.version}"
        case Policy(required=0):
            return f"policy {action.aliases} → none"
        case Policy():
            return f"policy {action.aliases} → signed by {action.required} of {', '.join(k.name for k in action.keys)}"
