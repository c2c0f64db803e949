"""``modelkeep convert``: a model file in another form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import (
    allow_option,
    custom_objects_option,
    file_command,
    form_option,
    golden_option,
    of_option,
    pair_of_text,
    skip_option,
    trust_option,
)


@file_command("convert", example="modelkeep convert old_model.h5 model.keras", shape="Report")
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@form_option
@of_option
@click.option(
    "--architecture",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The network, where SRC holds weights alone.",
)
@click.option(
    "--name",
    "names",
    type=pair_of_text,
    multiple=True,
    metavar="TENSOR=WEIGHT",
    help="What the model calls a tensor of a TensorFlow checkpoint. May be given again.",
)
@golden_option
@allow_option
@skip_option
@custom_objects_option
@trust_option
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
def run(
    source: Path,
    target: Path,
    *,
    form: str | None,
    of: str | None,
    architecture: Path | None,
    names: Sequence[tuple[str, str]],
    golden: Path | None,
    allow: Sequence[str],
    skip: Sequence[str],
    custom_objects: dict[str, Any] | None,
    trust: Sequence[str],
    overwrite: bool,
) -> Answer:
    """Open a model file of any form and write it in another.

    SRC is scanned first. DST is opened again and has to answer as SRC does before it
    gets its name; its form is told by its ending, or by --format.
    """
    from modelkeep import files
    from modelkeep.cli.examples import read as examples

    report = files.convert(
        source,
        target,
        format=form,
        options={} if of is None else {"of": of},
        architecture=architecture,
        names=dict(names) or None,
        golden=golden and examples(golden),
        allow=allow,
        skip=skip,
        custom_objects=custom_objects,
        trust=trust,
        overwrite=overwrite,
    )
    return Answer(report.to_json(), [Lines(str(report))], exit_code=0 if report.ok else report.error.exit_code)
