"""``modelkeep add``: a file becomes a version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import (
    allow_option,
    command,
    custom_objects_option,
    gates_option,
    golden_option,
    named_file,
    pair,
    reason_option,
    skip_option,
    trust_option,
)

if TYPE_CHECKING:
    from modelkeep.keep import Keep
    from modelkeep.pipeline import Pipeline
    from modelkeep.registry import Bump

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@command(
    "add",
    example="modelkeep add sentiment.keras sentiment --bump minor --metric accuracy=0.92 --gate 'accuracy >= 0.85'",
    shape="Version",
)
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("model", required=False, shell_complete=completing.models)
@click.option("--version", metavar="VERSION", help="The version's number, such as 1.2.0.")
@click.option(
    "--bump",
    type=click.Choice(["major", "minor", "patch", "prerelease"]),
    help="Which number to raise over the highest there is.",
)
@click.option("--metric", "metrics", type=pair, multiple=True, metavar="NAME=NUMBER", help="May be given again.")
@click.option(
    "--meta", "metadata", type=pair, multiple=True, metavar="NAME=VALUE", help="JSON or text. May be given again."
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="May be given again.")
@click.option("--note", metavar="TEXT", help="A word about this version.")
@click.option(
    "--asset",
    "assets",
    type=named_file,
    multiple=True,
    metavar="NAME=FILE",
    help="A tokenizer, vocabulary, … May be given again.",
)
@click.option("--pipeline", type=_FILE, help="JSON file that declares the steps around the network.")
@golden_option
@gates_option
@click.option("--parent", metavar="REF", help="The version this one came from.", shell_complete=completing.refs)
@click.option("--data-digest", metavar="TEXT", help="What names the data it was trained on.")
@click.option(
    "--allow-non-finite", multiple=True, metavar="WEIGHT", help="Let this weight hold NaN. May be given again."
)
@click.option(
    "--architecture",
    metavar="REF|FILE",
    help="The network, where PATH holds weights alone.",
    shell_complete=completing.refs,
)
@click.option("--allow-lambda", is_flag=True, help="Keep lambdas by name; they must be given again to load it.")
@click.option("--no-check", is_flag=True, help="Do not rebuild the model and replay its examples before publishing.")
@allow_option
@skip_option
@custom_objects_option
@trust_option
@reason_option
def run(
    keep: Keep,
    path: Path,
    model: str | None,
    *,
    version: str | None,
    bump: Bump | None,
    metrics: Sequence[tuple[str, Any]],
    metadata: Sequence[tuple[str, Any]],
    tags: Sequence[str],
    note: str | None,
    assets: Sequence[tuple[str, Path]],
    pipeline: Path | None,
    golden: Path | None,
    gates: Sequence[str],
    parent: str | None,
    data_digest: str | None,
    allow_non_finite: Sequence[str],
    architecture: str | None,
    allow_lambda: bool,
    no_check: bool,
    allow: Sequence[str],
    skip: Sequence[str],
    custom_objects: dict[str, Any] | None,
    trust: Sequence[str],
    reason: str | None,
) -> Answer:
    """Turn a file into a version.

    PATH is a model file or folder of any form that `modelkeep inspect` knows, or a
    bundle that `modelkeep export` wrote. It is scanned first. A bundle keeps its model,
    its version and all it says of itself, so of the options it takes --allow and
    --reason alone.
    """
    from modelkeep.cli.examples import read as examples

    # A bundle is checked to the last byte anyway, and takes no such argument.
    unchecked: dict[str, Any] = {"check": False} if no_check else {}
    added = keep.add(
        path,
        model,
        architecture=architecture,
        allow=allow,
        skip=skip,
        version=version,
        bump=bump,
        metrics=dict(metrics),
        metadata=dict(metadata),
        tags=tags,
        note=note,
        assets=_assets(assets),
        pipeline=pipeline and _pipeline(pipeline),
        golden=golden and examples(golden),
        gates=gates,
        parent=parent,
        data_digest=data_digest,
        allow_non_finite=allow_non_finite,
        allow_lambda=allow_lambda,
        custom_objects=custom_objects,
        trust=trust,
        reason=reason,
        **unchecked,
    )
    return Answer(shapes.Version.of(added), [Lines(str(added))])


def _assets(files: Iterable[tuple[str, Path]]) -> dict[str, Any]:
    from modelkeep.assets import from_file

    # The front door knows what to do with a pickled tokenizer.
    return {name: path if path.suffix in (".pkl", ".pickle") else from_file(name, path) for name, path in files}


def _pipeline(path: Path) -> Pipeline:
    from modelkeep.pipeline import Pipeline

    return Pipeline.from_json(path.read_bytes())
