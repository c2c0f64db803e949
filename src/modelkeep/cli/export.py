"""``modelkeep export``: a version in one file, to carry elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelkeep.cli import shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command, ref_argument
from modelkeep.sizes import human_bytes

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("export", example="modelkeep export sentiment@production bundle --to sentiment.zip", shape="Exported")
@ref_argument
@click.argument("form", metavar="[FORM]", type=click.Choice(["bundle"]), default="bundle")
@click.option("--to", required=True, type=click.Path(path_type=Path), help="Where to write it.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
def run(keep: Keep, ref: str, form: str, to: Path, overwrite: bool) -> Answer:
    """Write a version as one file.

    FORM is bundle: a .zip that `modelkeep add` takes into another store.
    """
    version = keep.resolve(ref).ref
    path = keep.export(version, form, to=to, overwrite=overwrite)
    size = path.stat().st_size
    exported = shapes.Exported(ref=version, form=form, path=str(path), size=size)
    return Answer(exported, [Lines(f"{version} → {path}  {human_bytes(size)}")])
