"""``modelkeep policy``: whose signatures an alias demands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Table
from modelkeep.cli.command import command, reason_option

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("policy", example="modelkeep policy sentiment@production --keys trusted_keys.json", shape="Policy[]")
@click.argument("name", metavar="MODEL[@ALIAS]", shell_complete=completing.aliased)
@click.option(
    "--keys", type=click.Path(path_type=Path), metavar="FILE", help="Public keys: a file, or a folder of them."
)
@click.option("--required", type=click.IntRange(1), default=1, show_default=True, help="How many of them must sign.")
@click.option("--remove", is_flag=True, help="Demand nothing any more.")
@reason_option
def run(keep: Keep, name: str, keys: Path | None, required: int, remove: bool, reason: str | None) -> Answer:
    """Whose signatures an alias demands.

    With --keys, versions that are not signed by them are refused from now on wherever the alias
    would point at them. ALIAS may be a pattern, such as prod*. Every change is in the history.
    """
    policies = keep.policy(name, keys=keys, required=required, remove=remove, reason=reason)
    value = [shapes.Policy.of(policy) for policy in policies.values()]
    rows = [
        (
            each.aliases,
            str(each.required),
            f"{key.name} {key.id[:8]}{' (revoked)' if key.revoked else ''}",
            key.until or "",
        )
        for each in value
        for key in each.keys
    ]
    return Answer(value, [Table(("ALIASES", "NEEDS", "KEYS", "UNTIL (UTC)"), rows, right=frozenset({"NEEDS"}))])
