"""``modelkeep sbom``: a version's bill of materials."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkeep.cli.answer import Answer, Raw
from modelkeep.cli.command import command, ref_argument

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("sbom", example="modelkeep sbom sentiment@production", shape="Bill")
@ref_argument
def run(keep: Keep, ref: str) -> Answer:
    """Print the bill of materials of a version, as CycloneDX 1.6 JSON.

    Its files with their digests, the packages it was saved with, licences, metrics.
    """
    bill = keep.sbom(ref)
    return Answer(bill, [Raw(json.dumps(bill, indent=2).encode() + b"\n")])
