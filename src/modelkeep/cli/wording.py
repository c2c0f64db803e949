"""How times, aliases and metrics read in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from modelkeep.cli.answer import Table
from modelkeep.refs import short_digest
from modelkeep.sizes import human_bytes

if TYPE_CHECKING:
    from modelkeep.checkpoint import Checkpoint
    from modelkeep.cli.standing import Standing
    from modelkeep.entry import AnyAction
    from modelkeep.runs import Run
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


def checkpoint_table(run: Run, checkpoints: Iterable[Checkpoint]) -> Table:
    """Checkpoints of a run as rows; it knows which of them is the best."""
    columns = ("CHECKPOINT", "EPOCH", "METRICS", "SIZE", "NEW", "REASON", "CREATED (UTC)", "")
    rows = [
        (
            checkpoint.ref,
            f"{checkpoint.epoch} +{checkpoint.step_in_epoch}" if checkpoint.step_in_epoch else str(checkpoint.epoch),
            numbers(checkpoint.metrics),
            human_bytes(checkpoint.size),
            human_bytes(checkpoint.new_bytes),
            checkpoint.reason,
            moment(checkpoint.created),
            " ".join(marks(run, checkpoint)),
        )
        for checkpoint in checkpoints
    ]
    return Table(columns, rows, right=frozenset({"SIZE", "NEW"}))


def marks(run: Run, checkpoint: Checkpoint) -> list[str]:
    """What a checkpoint is within its run: ``best``, ``last``, ``finished``."""
    is_it = {
        "best": run.best is not None and checkpoint.number == run.best.number,
        "last": run.newest is not None and checkpoint.number == run.newest.number,
        "finished": checkpoint.finished,
    }
    return [mark for mark, holds in is_it.items() if holds]


def epochs(standing: Standing) -> str:
    """``3``, or ``3 of 20`` where it is known how many there will be."""
    return str(standing.epoch) if standing.of is None else f"{standing.epoch} of {standing.of}"


def state(standing: Standing) -> str:
    """``training``, ``finished``, or ``silent since 2026-11-23 19:50:07``."""
    return f"silent since {moment(standing.heard)}" if standing.state == "silent" else standing.state


def span(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``: not more exact than one can wait."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


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
