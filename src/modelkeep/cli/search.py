"""``modelkeep search``: the versions for which a condition holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command
from modelkeep.cli.wording import version_table

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("search", example="modelkeep search 'accuracy > 0.9 and size < 50 MB'", shape="Version[]")
@click.argument("condition")
@click.argument("model", required=False, shell_complete=completing.models)
def run(keep: Keep, condition: str, model: str | None) -> Answer:
    """The versions for which a condition holds.

    Of every model, or of MODEL alone. CONDITION compares metrics, metadata, size, params, tags and
    times, in the language of gates.
    """
    versions = keep.search(condition, model)
    table = version_table(versions, name=lambda version: version.ref)
    return Answer([shapes.Version.of(version) for version in versions], [table if versions else Lines("none")])
