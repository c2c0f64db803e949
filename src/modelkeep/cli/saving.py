"""The options of every command that makes a version, as the verbs of Keep take them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelkeep.cli import completing
from modelkeep.cli.command import (
    Decorated,
    custom_objects_option,
    gates_option,
    golden_option,
    named_file,
    pair,
    reason_option,
    trust_option,
)

if TYPE_CHECKING:
    from modelkeep.pipeline import Pipeline

_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--version", metavar="VERSION", help="The version's number, such as 1.2.0."),
    click.option(
        "--bump",
        type=click.Choice(["major", "minor", "patch", "prerelease"]),
        help="Which number to raise over the highest there is.",
    ),
    click.option("--metric", "metrics", type=pair, multiple=True, metavar="NAME=NUMBER", help="May be given again."),
    click.option(
        "--meta", "metadata", type=pair, multiple=True, metavar="NAME=VALUE", help="JSON or text. May be given again."
    ),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="May be given again."),
    click.option("--note", metavar="TEXT", help="A word about this version."),
    click.option(
        "--asset",
        "assets",
        type=named_file,
        multiple=True,
        metavar="NAME=FILE",
        help="A tokenizer, vocabulary, … May be given again.",
    ),
    click.option(
        "--pipeline",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="JSON file that declares the steps around the network.",
    ),
    golden_option,
    gates_option,
    click.option("--parent", metavar="REF", help="The version this one came from.", shell_complete=completing.refs),
    click.option("--data-digest", metavar="TEXT", help="What names the data it was trained on."),
    click.option(
        "--allow-non-finite", multiple=True, metavar="WEIGHT", help="Let this weight hold NaN. May be given again."
    ),
    click.option(
        "--no-check", is_flag=True, help="Do not rebuild the model and replay its examples before publishing."
    ),
    custom_objects_option,
    trust_option,
    reason_option,
]
_ARGUMENTS = (  # what each of them is called
    "version",
    "bump",
    "metrics",
    "metadata",
    "tags",
    "note",
    "assets",
    "pipeline",
    "golden",
    "gates",
    "parent",
    "data_digest",
    "allow_non_finite",
    "no_check",
    "custom_objects",
    "trust",
    "reason",
)


def saving_options(function: Decorated) -> Decorated:
    """What is said of a version that is made, and what it must meet; handed on as ``saving={argument: value}``."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _ARGUMENTS}
        return function(*args, saving=_arguments(**given), **kwargs)

    return functools.reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), run)  # type: ignore[return-value]


def _arguments(
    *,
    metrics: Iterable[tuple[str, Any]],
    metadata: Iterable[tuple[str, Any]],
    assets: Iterable[tuple[str, Path]],
    pipeline: Path | None,
    golden: Path | None,
    no_check: bool,
    **others: Any,
) -> dict[str, Any]:
    from modelkeep.cli.examples import read as examples

    arguments = {
        **others,
        "metrics": dict(metrics),
        "metadata": dict(metadata),
        "assets": _assets(assets),
        "pipeline": pipeline and _pipeline(pipeline),
        "golden": golden and examples(golden),
    }
    # A bundle is checked to the last byte anyway, and takes no such argument.
    return {**arguments, "check": False} if no_check else arguments


def _assets(files: Iterable[tuple[str, Path]]) -> dict[str, Any]:
    from modelkeep.assets import from_file

    # The front door knows what to do with a pickled tokenizer.
    return {name: path if path.suffix in (".pkl", ".pickle") else from_file(name, path) for name, path in files}


def _pipeline(path: Path) -> Pipeline:
    from modelkeep.pipeline import Pipeline

    return Pipeline.from_json(path.read_bytes())
