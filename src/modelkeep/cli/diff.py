"""``modelkeep diff``: what differs between two versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("diff", example="modelkeep diff sentiment:1.0.0 sentiment:1.1.0", shape="Diff")
@click.argument("old", metavar="REF", shell_complete=completing.refs)
@click.argument("new", metavar="REF", shell_complete=completing.refs)
def run(keep: Keep, old: str, new: str) -> Answer:
    """What differs between two versions.

    Layers, weights, metrics, metadata, environment, assets and golden outputs.
    """
    diff = keep.diff(old, new)
    return Answer(msgspec.convert(diff.to_json(), shapes.Diff), [Lines(str(diff))])
