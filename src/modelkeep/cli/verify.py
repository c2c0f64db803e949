"""``modelkeep verify``: whether a version is still what was saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from modelkeep.cli.answer import Answer
from modelkeep.cli.command import command, custom_objects_option, ref_argument, trust_option
from modelkeep.cli.reports import answer_with

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("verify", example="modelkeep verify sentiment:1.1.0 --live", shape="Report")
@ref_argument
@click.option("--live", is_flag=True, help="Also rebuild the model, compare every weight, replay the golden examples.")
@custom_objects_option
@trust_option
def run(keep: Keep, ref: str, live: bool, custom_objects: dict[str, Any] | None, trust: Sequence[str]) -> Answer:
    """Check that a version is what was saved.

    Looks at the ledger's chain, the manifest, every digest and the environment. Exits with 20 where a check fails.
    """
    return answer_with(keep.verify(ref, live=live, custom_objects=custom_objects, trust=trust))
