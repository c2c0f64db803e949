"""``modelkeep history``: what happened to a model, when, by whom and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Table
from modelkeep.cli.command import command
from modelkeep.cli.wording import event, moment

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("history", example="modelkeep history sentiment@production", shape="Entry[]")
@click.argument("name", metavar="MODEL[@ALIAS]", shell_complete=completing.refs)
def run(keep: Keep, name: str) -> Answer:
    """What happened to a model or an alias, when, by whom and why."""
    entries = keep.history(name)
    rows = [
        (str(entry.seq), moment(entry.time), entry.actor, event(entry.action), entry.reason or "") for entry in entries
    ]
    table = Table(("#", "WHEN (UTC)", "WHO", "WHAT", "WHY"), rows, right=frozenset({"#"}))
    return Answer([shapes.Entry.of(entry) for entry in entries], [table])
