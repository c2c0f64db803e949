"""``modelkeep checkpoints``: the training runs of the store, and what is kept of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
import msgspec

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Block, Lines, Table
from modelkeep.cli.command import command
from modelkeep.cli.standing import standing
from modelkeep.cli.wording import checkpoint_table, epochs, moment, state
from modelkeep.sizes import human_bytes

if TYPE_CHECKING:
    from modelkeep.keep import Keep
    from modelkeep.runs import Pruned, Run


@command("checkpoints", example="modelkeep checkpoints sentiment-run --prune --keep-last 3 --dry-run", shape="Run[]")
@click.argument("name", metavar="[RUN]", required=False, shell_complete=completing.runs)
@click.option("--prune", is_flag=True, help="Delete what none of the next three keeps; the newest always stays.")
@click.option("--keep-last", type=click.IntRange(min=1), metavar="NUMBER", help="So many of the newest.  [default: 1]")
@click.option(
    "--keep-best", metavar="METRIC", help="The best, such as val_loss; max:score where the name does not tell."
)
@click.option(
    "--keep-every", type=click.IntRange(min=1), metavar="NUMBER", help="Those whose step, or epoch, is a multiple."
)
@click.option("--delete", metavar="STEP|all", help="Delete the checkpoint after this step, or the whole run.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and let it stay.")
def run(
    keep: Keep,
    name: str | None,
    *,
    prune: bool,
    keep_last: int | None,
    keep_best: str | None,
    keep_every: int | None,
    delete: str | None,
    dry_run: bool,
) -> Answer:
    """The training runs, or the checkpoints of one."""
    keeping = {"keep_last": keep_last, "keep_best": keep_best, "keep_every": keep_every}
    _check(name, prune, delete, dry_run, given=any(keeping.values()))
    if name is None:
        return _all(keep.runs())
    found = keep.run(name)
    before = shapes.Run.of(found)
    if prune:
        return _removal(found, before, keep.prune(name, **keeping, dry_run=dry_run))  # type: ignore[arg-type]
    if delete is not None:
        step = None if delete == "all" else int(delete)
        return _removal(found, before, keep.delete_run(name, step, dry_run=dry_run))
    blocks: list[Block] = [checkpoint_table(found, found.checkpoints)] if found.checkpoints else []
    blocks += [Lines(f"✗ {error}") for error in found.damaged.values()]
    return Answer([before], blocks or [Lines("no checkpoints yet")])


def _check(name: str | None, prune: bool, delete: str | None, dry_run: bool, *, given: bool) -> None:
    """Nothing is deleted by an option that was meant otherwise."""
    if prune and delete is not None:
        raise click.UsageError("--prune and --delete are two things; give one")
    if given and not prune:
        raise click.UsageError("--keep-last, --keep-best and --keep-every say what --prune keeps; give --prune, too")
    if dry_run and not prune and delete is None:
        raise click.UsageError("--dry-run is of --prune or --delete")
    if name is None and (prune or delete is not None):
        raise click.UsageError("say of which RUN")
    if delete is not None and delete != "all" and not delete.isdecimal():
        raise click.UsageError(f"--delete {delete}: it takes a step, such as 1200, or all")


def _all(runs: Iterable[Run]) -> Answer:
    runs = list(runs)
    rows = []
    for each in runs:
        stands = standing(each)
        newest = each.newest.created if each.newest else ""
        row = (each.name, state(stands), str(stands.step), epochs(stands), str(len(each.checkpoints)))
        rows.append((*row, human_bytes(each.stored), moment(newest)))
    columns = ("RUN", "STATE", "STEP", "EPOCH", "CHECKPOINTS", "STORED", "NEWEST (UTC)")
    table = Table(columns, rows, right=frozenset({"STEP", "CHECKPOINTS", "STORED"}))
    return Answer([shapes.Run.of(each) for each in runs], [table if rows else Lines("no training runs yet")])


def _removal(found: Run, before: shapes.Run, pruned: Pruned) -> Answer:
    blocks: list[Block] = [checkpoint_table(found, pruned.dropped)] if pruned.dropped else []
    word = "would go" if pruned.dry_run else "deleted"
    size = human_bytes(pruned.removed_bytes)
    blocks.append(Lines(f"{word}: {len(pruned.dropped)} of {len(before.checkpoints)} checkpoints, {size}"))
    if pruned.damaged:
        numbers = ", ".join(map(str, pruned.damaged))
        blocks.append(Lines(f"! number {numbers} cannot be read, so no bytes go; run: modelkeep fsck"))
    return Answer([msgspec.structs.replace(before, removed=shapes.Removed.of(pruned))], blocks)
