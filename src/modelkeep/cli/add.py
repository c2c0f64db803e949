"""``modelkeep add``: a file becomes a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import allow_option, command, skip_option
from modelkeep.cli.saving import saving_options

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command(
    "add",
    example="modelkeep add sentiment.keras sentiment --bump minor --metric accuracy=0.92 --gate 'accuracy >= 0.85'",
    shape="Version",
)
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("model", required=False, shell_complete=completing.models)
@click.option(
    "--architecture",
    metavar="REF|FILE",
    help="The network, where PATH holds weights alone.",
    shell_complete=completing.refs,
)
@click.option("--allow-lambda", is_flag=True, help="Keep lambdas by name; they must be given again to load it.")
@allow_option
@skip_option
@saving_options
def run(
    keep: Keep,
    path: Path,
    model: str | None,
    *,
    architecture: str | None,
    allow_lambda: bool,
    allow: Sequence[str],
    skip: Sequence[str],
    saving: Mapping[str, Any],
) -> Answer:
    """Turn a file into a version.

    PATH is a model file or folder of any form that `modelkeep inspect` knows, or a
    bundle that `modelkeep export` wrote. It is scanned first. A bundle keeps its model,
    its version and all it says of itself, so of the options it takes --allow and
    --reason alone.
    """
    added = keep.add(
        path, model, architecture=architecture, allow_lambda=allow_lambda, allow=allow, skip=skip, **saving
    )
    return Answer(shapes.Version.of(added), [Lines(str(added))])
