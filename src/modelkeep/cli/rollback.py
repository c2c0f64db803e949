"""``modelkeep rollback``: point an alias back at what it was before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelkeep.cli import shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import alias_argument, command, reason_option
from modelkeep.cli.wording import pointing

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("rollback", example="modelkeep rollback sentiment@production --reason 'slow on long texts'", shape="Version")
@alias_argument
@reason_option
def run(keep: Keep, alias: str, reason: str | None) -> Answer:
    """Point an alias back at what it was before.

    Called again, it goes further back.
    """
    version = keep.rollback(alias, reason=reason)
    where = pointing(version.weights) if version.weights else version.ref
    return Answer(shapes.Version.of(version), [Lines(f"{alias} → {where}")])
