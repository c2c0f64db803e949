"""``modelkeep list``: every model in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelkeep.cli import shapes
from modelkeep.cli.answer import Answer, Lines, Table
from modelkeep.cli.command import command
from modelkeep.cli.wording import moment, pointings
from modelkeep.sizes import human_bytes

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("list", example="modelkeep list --store models", shape="Model[]")
def run(keep: Keep) -> Answer:
    """Every model, with its newest version and its aliases."""
    models = [shapes.Model.of(model) for model in keep.models()]
    rows = [
        (
            m.name,
            "damaged" if m.damage else m.newest or "",
            str(m.versions),
            pointings(m.aliases),
            human_bytes(m.stored),
            moment(m.updated),
        )
        for m in models
    ]
    columns = ("MODEL", "NEWEST", "VERSIONS", "ALIASES", "STORED", "UPDATED (UTC)")
    table = Table(columns, rows, right=frozenset({"VERSIONS", "STORED"}))
    return Answer(models, [table if rows else Lines("no models yet")])
