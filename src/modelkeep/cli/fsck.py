"""``modelkeep fsck``: whether the whole store is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelkeep.cli.answer import Answer
from modelkeep.cli.command import command
from modelkeep.cli.reports import answer_with

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("fsck", example="modelkeep fsck --store models", shape="Report")
def run(keep: Keep) -> Answer:
    """Check the whole store.

    Reads every blob and every ledger again and checks digests and chains; says what is damaged and which
    versions that touches, and goes on. Exits with 20 where anything is damaged.
    """
    return answer_with(keep.fsck())
