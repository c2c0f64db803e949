"""``modelkeep promote``: point an alias at a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command, gates_option, reason_option, ref_argument

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("promote", example="modelkeep promote sentiment:1.1.0 production --gate 'accuracy >= 0.85'", shape="Version")
@ref_argument
@click.argument("alias", shell_complete=completing.aliases)
@gates_option
@reason_option
def run(keep: Keep, ref: str, alias: str, gates: Sequence[str], reason: str | None) -> Answer:
    """Point an alias, such as production, at a version."""
    version = keep.promote(ref, alias, gates=gates, reason=reason)
    return Answer(shapes.Version.of(version), [Lines(f"{version.model}@{alias} → {version.ref}")])
