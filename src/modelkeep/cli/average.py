"""``modelkeep average``: a version out of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command
from modelkeep.cli.saving import saving_options

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command(
    "average",
    example="modelkeep average sentiment:1.0.0 sentiment:1.1.0 --name sentiment --bump minor",
    shape="Averaged",
)
@click.argument("refs", metavar="REF|FILE...", nargs=-1, required=True, shell_complete=completing.refs)
@click.option("--name", metavar="MODEL", required=True, help="The model to publish the average as a version of.")
@click.option(
    "--weight",
    "weights",
    type=float,
    multiple=True,
    metavar="NUMBER",
    help="How much a model counts; given once for each, in their order.",
)
@click.option(
    "--ema",
    type=float,
    metavar="DECAY",
    help="Exponential moving average, the last being the latest: the share of it that stays at each model.",
)
@saving_options
def run(
    keep: Keep,
    refs: Sequence[str],
    *,
    name: str,
    weights: Sequence[float],
    ema: float | None,
    saving: Mapping[str, Any],
) -> Answer:
    """Average models of one architecture into a version.

    Each is a version, a checkpoint of a run (run@1200) or a model file; all count alike
    unless --weight or --ema says otherwise. Its lineage names them. Assets, pipeline and
    golden inputs are those of the first that has any, where no other has different ones.
    """
    averaged = keep.average(refs, weights or None, ema=ema, name=name, **saving)
    assert averaged.version is not None  # it has a name
    told = shapes.Averaged(
        version=shapes.Version.of(averaged.version),
        parents=list(averaged.parents),
        weights=list(averaged.weights),
        report=shapes.Report(**averaged.report.to_json()),
    )
    return Answer(told, [Lines(str(averaged.version)), Lines(str(averaged.report))])
