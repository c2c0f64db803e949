"""``modelkeep gc``: remove the bytes that no version needs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import click
import msgspec

from modelkeep.cli import shapes
from modelkeep.cli.answer import Answer, Table
from modelkeep.cli.command import command
from modelkeep.sizes import human_bytes

if TYPE_CHECKING:
    from modelkeep.keep import Keep

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration(text: str) -> timedelta:
    """``90s``, ``30m``, ``24h``, ``7d`` or ``2w``."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if not found:
        raise click.BadParameter(f"{text!r} is not a duration such as 90s, 30m, 24h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


@command("gc", example="modelkeep gc --dry-run", shape="Swept")
@click.option("--dry-run", is_flag=True, help="Say what would go, and let it stay.")
@click.option(
    "--grace",
    type=duration,
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="Spare what is younger: a save may be under way.",
)
def run(keep: Keep, dry_run: bool, grace: timedelta) -> Answer:
    """Remove the blobs that no version needs any more."""
    swept = keep.gc(grace=grace, dry_run=dry_run)
    counts = {
        "would be removed" if dry_run else "removed": (swept.removed, swept.removed_bytes),
        "too young": (swept.young, swept.young_bytes),
        "needed": (swept.kept, swept.kept_bytes),
    }
    rows = [(what, str(blobs), human_bytes(size)) for what, (blobs, size) in counts.items()]
    table = Table(("", "BLOBS", "SIZE"), rows, right=frozenset({"BLOBS", "SIZE"}))
    return Answer(msgspec.convert(swept, shapes.Swept, from_attributes=True), [table])
