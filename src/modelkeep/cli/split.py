"""``modelkeep split``: let an alias share its traffic between versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import alias_argument, command, pair, reason_option
from modelkeep.cli.wording import pointing

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("split", example="modelkeep split sentiment@production 1.0.0=90 1.1.0=10", shape="Alias")
@alias_argument
@click.argument(
    "shares", nargs=-1, required=True, type=pair, metavar="VERSION=PERCENT...", shell_complete=completing.shares
)
@reason_option
def run(keep: Keep, alias: str, shares: Sequence[tuple[str, Any]], reason: str | None) -> Answer:
    """Share the traffic of an alias between versions."""
    weights = keep.split(alias, dict(shares), reason=reason)
    return Answer(shapes.Alias(alias=alias, versions=weights), [Lines(f"{alias} → {pointing(weights)}")])
