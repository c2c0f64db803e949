"""``modelkeep add``: a file becomes a version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import (
    command,
    custom_objects_option,
    gates_option,
    named_file,
    pair,
    reason_option,
    trust_option,
)
from modelkeep.errors import UsageError

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
@click.argument("path", type=_FILE)
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
@click.option("--golden", type=_FILE, help="Example inputs: .npy, .npz (by input name), or .json (raw input).")
@gates_option
@click.option("--parent", metavar="REF", help="The version this one came from.", shell_complete=completing.refs)
@click.option("--data-digest", metavar="TEXT", help="What names the data it was trained on.")
@click.option(
    "--allow-non-finite", multiple=True, metavar="WEIGHT", help="Let this weight hold NaN. May be given again."
)
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
    custom_objects: dict[str, Any] | None,
    trust: Sequence[str],
    reason: str | None,
) -> Answer:
    """Turn a file into a version.

    PATH is a .keras file, or a bundle (.zip) that `modelkeep export` wrote. A bundle
    keeps its model, its version and all it says of itself, so of the options it takes
    --reason alone.
    """
    added = keep.add(
        path,
        model,
        version=version,
        bump=bump,
        metrics=dict(metrics),
        metadata=dict(metadata),
        tags=tags,
        note=note,
        assets=_assets(assets),
        pipeline=pipeline and _pipeline(pipeline),
        golden=golden and _examples(golden),
        gates=gates,
        parent=parent,
        data_digest=data_digest,
        allow_non_finite=allow_non_finite,
        custom_objects=custom_objects,
        trust=trust,
        reason=reason,
    )
    return Answer(shapes.Version.of(added), [Lines(str(added))])


def _assets(files: Iterable[tuple[str, Path]]) -> dict[str, Any]:
    from modelkeep.assets import from_file

    return {name: from_file(name, path) for name, path in files}


def _pipeline(path: Path) -> Pipeline:
    from modelkeep.pipeline import Pipeline

    return Pipeline.from_json(path.read_bytes())


def _examples(path: Path) -> Any:
    """Arrays for the network's inputs, or what the pipeline takes."""
    from modelkeep.assets import from_file

    if path.suffix != ".npz":
        return from_file("golden", path)
    from tempfile import TemporaryDirectory
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(path) as archive, TemporaryDirectory() as folder:
            arrays = {Path(name).stem: from_file(name, archive.extract(name, folder)) for name in archive.namelist()}
    except BadZipFile as error:
        raise UsageError(f"{path} is no .npz file: {error}", hint="write it with numpy.savez") from error
    return arrays if len(arrays) > 1 else next(iter(arrays.values()), None)
