"""``modelkeep verify``: whether a version is still what was saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelkeep.cli import completing
from modelkeep.cli.answer import Answer
from modelkeep.cli.command import command, custom_objects_option, trust_option
from modelkeep.cli.reports import answer_with

if TYPE_CHECKING:
    from modelkeep.keep import Keep
    from modelkeep.report import Report

_PATH = click.Path(path_type=Path)


@command("verify", example="modelkeep verify sentiment:1.1.0 --live", shape="Report")
@click.argument("ref", required=False, shell_complete=completing.refs)
@click.option("--live", is_flag=True, help="Also rebuild the model, compare every weight, replay the golden examples.")
@click.option("--signature", is_flag=True, help="Also ask that somebody who is trusted has signed it.")
@click.option(
    "--trust-keys",
    type=_PATH,
    metavar="FILE",
    help="Public keys, a file or a folder.  [default: $MODELKEEP_TRUSTED_KEYS, else the model's policies]",
)
@click.option("--path", type=_PATH, metavar="PATH", help="A signed file or folder instead of a version.")
@click.option(
    "--signature-file", type=_PATH, metavar="FILE", help="Its signature.  [default: model.sig in it, or PATH.sig]"
)
@custom_objects_option
@trust_option
def run(
    keep: Keep,
    *,
    ref: str | None,
    live: bool,
    signature: bool,
    trust_keys: Path | None,
    path: Path | None,
    signature_file: Path | None,
    custom_objects: dict[str, Any] | None,
    trust: Sequence[str],
) -> Answer:
    """Check that a version is what was saved.

    Looks at the ledger's chain, the manifest, every digest and the environment. Exits with 20 where a check
    fails; with 21 where a file or folder is not what was signed.
    """
    if (ref is None) == (path is None):
        raise click.UsageError("name a version, or a file or folder with --path")
    if path is not None:
        return answer_with(_verify_path(path, signature_file, trust_keys))
    asked = trust_keys or signature
    return answer_with(keep.verify(str(ref), live=live, signature=asked, custom_objects=custom_objects, trust=trust))


def _verify_path(path: Path, signature: Path | None, keys: Path | None) -> Report:
    from modelkeep.provenance import signing, trust

    return signing.verify_path(path, trust.here(keys, str(path)), signature=signature)
