"""``modelkeep publish``: a checkpoint becomes a version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command
from modelkeep.cli.saving import saving_options

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command(
    "publish",
    example="modelkeep publish sentiment-run@best sentiment --bump minor --gate 'val_accuracy >= 0.85'",
    shape="Version",
)
@click.argument("checkpoint", metavar="RUN@STEP", shell_complete=completing.checkpoints)
@click.argument("model", shell_complete=completing.models)
@saving_options
def run(keep: Keep, checkpoint: str, model: str, *, saving: Mapping[str, Any]) -> Answer:
    """Turn a checkpoint into a version.

    RUN@last is the newest, RUN@best the best. Its tensors are in the store already, so
    it costs a few kilobytes. Its metrics are those of the checkpoint unless --metric
    gives others; what the run logged goes with it, and it tells which run it is from.
    """
    # None: as the checkpoint says.
    published = keep.publish(checkpoint, model, **{**saving, "metrics": saving["metrics"] or None})
    return Answer(shapes.Version.of(published), [Lines(str(published))])
