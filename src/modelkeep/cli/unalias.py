"""``modelkeep unalias``: remove an alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelkeep.cli import shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import alias_argument, command, reason_option

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("unalias", example="modelkeep unalias sentiment@staging", shape="Alias")
@alias_argument
@reason_option
def run(keep: Keep, alias: str, reason: str | None) -> Answer:
    """Remove an alias; the version it pointed at stays."""
    keep.unalias(alias, reason=reason)
    return Answer(shapes.Alias(alias=alias, versions={}), [Lines(f"{alias} removed")])
