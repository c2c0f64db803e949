"""``modelkeep transfer``: weights moved into another network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import allow_option, command, pair_of_text
from modelkeep.cli.saving import saving_options
from modelkeep.errors import UsageError

if TYPE_CHECKING:
    import keras

    from modelkeep.keep import Keep
    from modelkeep.live.correspondence import Match
    from modelkeep.live.transfer import OnMismatch


@command(
    "transfer",
    example="modelkeep transfer sentiment@production topics.keras --exclude head --freeze --name topics",
    shape="Transferred",
)
@click.argument("source", metavar="SOURCE", shell_complete=completing.refs)
@click.argument("target", metavar="TARGET", shell_complete=completing.refs)
@click.option("--to", type=click.Path(path_type=Path), help="Write the result as this file; its ending tells the form.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option("--name", metavar="MODEL", help="Publish the result as a version of this model.")
@click.option(
    "--rename",
    type=pair_of_text,
    multiple=True,
    metavar="OLD=NEW",
    help="What the target calls a layer of the source; OLD is a regular expression. May be given again.",
)
@click.option(
    "--include", multiple=True, metavar="PATTERN", help="Fill these layers of the target alone. May be given again."
)
@click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="Leave these layers of the target. May be given again."
)
@click.option("--freeze", is_flag=True, help="Make what was copied whole untrainable.")
@click.option(
    "--on-mismatch",
    type=click.Choice(["refuse", "skip", "slice", "pad"]),
    default="refuse",
    show_default=True,
    help="What to do where shapes differ.",
)
@click.option(
    "--match",
    type=click.Choice(["auto", "path", "name", "structure"]),
    default="auto",
    show_default=True,
    help="How layers find each other.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@allow_option
@saving_options
def run(
    keep: Keep,
    source: str,
    target: str,
    *,
    to: Path | None,
    overwrite: bool,
    name: str | None,
    rename: Sequence[tuple[str, str]],
    include: Sequence[str],
    exclude: Sequence[str],
    freeze: bool,
    on_mismatch: OnMismatch,
    match: Match,
    dry_run: bool,
    allow: Sequence[str],
    saving: dict[str, Any],
) -> Answer:
    """Move weights into another network, and account for each.

    SOURCE is a version, a checkpoint of a run (run@1200), or a file of any form that
    holds weights; TARGET a version or a model file. Patterns are regular expressions of
    one or several whole names, such as block_1.* or encoder/dense. Where a shape differs,
    nothing is done unless --on-mismatch says what.
    """
    if not dry_run and to is None and name is None:
        raise UsageError("where does the result go?", hint="give --to FILE, --name MODEL, or --dry-run")
    objects = {"custom_objects": saving.pop("custom_objects"), "trust": saving.pop("trust")}
    model, saving = _target(keep, target, allow, objects, saving)
    done = keep.transfer(
        source,
        model,
        rename=dict(rename),
        include=include,
        exclude=exclude,
        freeze=freeze,
        on_mismatch=on_mismatch,
        match=match,
        dry_run=dry_run,
        allow=allow,
    )
    lines = [Lines(str(done))]
    told = {**done.to_json(), "version": None, "path": None}
    if to is not None and not dry_run:
        from modelkeep import files

        files.save(model, to, overwrite=overwrite)
        told["path"] = str(to)
        lines.append(Lines(f"→ {to}"))
    if name is not None and not dry_run:
        version = keep.save(model, name, **saving)
        told["version"] = msgspec.to_builtins(shapes.Version.of(version))
        lines.append(Lines(str(version)))
    code = 0 if done.report.ok else done.report.error.exit_code
    return Answer(msgspec.convert(told, shapes.Transferred), lines, exit_code=code)


def _target(
    keep: Keep, target: str, allow: Sequence[str], objects: Mapping[str, Any], saving: dict[str, Any]
) -> tuple[keras.Model, dict[str, Any]]:
    """The model to fill, and what is said of the version that comes of it: what goes with a version goes along."""
    if Path(target).exists():
        from modelkeep import files

        return files.load(target, allow=allow, **objects).model, saving
    loaded = keep.load(target, **objects)
    return loaded.model, {
        **saving,
        "assets": {**loaded.assets, **saving["assets"]},
        "pipeline": saving["pipeline"] or loaded.pipeline,
        "parent": saving["parent"] or target,
    }
