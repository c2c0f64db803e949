"""``modelkeep delete``: remove a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelkeep.cli import shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command, reason_option, ref_argument

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("delete", example="modelkeep delete sentiment:1.0.0 --reason 'licence of the data ran out'", shape="Standing")
@ref_argument
@reason_option
def run(keep: Keep, ref: str, reason: str | None) -> Answer:
    """Remove a version for good. Its number is never used again; its bytes go with the next gc."""
    version = keep.resolve(ref).ref
    keep.delete(ref, reason=reason)
    return Answer(shapes.Standing(ref=version, state="deleted"), [Lines(f"{version} deleted")])
