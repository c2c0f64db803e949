"""``modelkeep yank``: keep a version from being chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelkeep.cli import shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command, reason_option, ref_argument

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("yank", example="modelkeep yank sentiment:1.1.0 --reason 'trained on the test data'", shape="Standing")
@ref_argument
@click.option("--undo", is_flag=True, help="Let it be chosen again.")
@reason_option
def run(keep: Keep, ref: str, undo: bool, reason: str | None) -> Answer:
    """Keep a version from being chosen as the newest. Its exact number still finds it."""
    version = keep.resolve(ref).ref
    keep.yank(ref, undo=undo, reason=reason)
    state = "listed" if undo else "yanked"
    return Answer(shapes.Standing(ref=version, state=state), [Lines(f"{version} {state}")])
