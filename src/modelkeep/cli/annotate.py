"""``modelkeep annotate``: change a version's tags and note."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from modelkeep.cli import shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command, reason_option, ref_argument

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("annotate", example="modelkeep annotate sentiment:1.1.0 --tag reviewed --note 'best so far'", shape="Version")
@ref_argument
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Add a tag. May be given again.")
@click.option("--untag", multiple=True, metavar="TAG", help="Take a tag away. May be given again.")
@click.option("--note", metavar="TEXT", help="Replace the note; '' removes it.")
@reason_option
def run(
    keep: Keep, ref: str, tags: Sequence[str], untag: Sequence[str], note: str | None, reason: str | None
) -> Answer:
    """Change a version's tags and note. What it is made of never changes."""
    version = keep.annotate(ref, tags=tags, untag=untag, note=note, reason=reason)
    return Answer(shapes.Version.of(version), [Lines(f"{version.ref}  tags: {', '.join(version.tags) or 'none'}")])
