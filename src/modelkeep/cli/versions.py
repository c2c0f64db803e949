"""``modelkeep versions``: every version of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer
from modelkeep.cli.command import command
from modelkeep.cli.wording import version_table

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("versions", example="modelkeep versions sentiment", shape="Version[]")
@click.argument("model", shell_complete=completing.models)
def run(keep: Keep, model: str) -> Answer:
    """Every version of a model, in the order of their numbers."""
    versions = keep.versions(model)
    table = version_table(versions, name=lambda version: str(version.version))
    return Answer([shapes.Version.of(version) for version in versions], [table])
