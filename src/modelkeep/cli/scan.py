"""``modelkeep scan``: whether a model file is safe to open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import allow_option, file_command, limits_option
from modelkeep.errors import UnsafeContent

if TYPE_CHECKING:
    from modelkeep.formats.limits import Limits


@file_command("scan", example="modelkeep scan sentiment.keras --strict", shape="Scan[]")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@allow_option
@click.option("--strict", is_flag=True, help="Refuse what is of medium level, too: custom objects, pickles.")
@click.option("--sarif", "in_sarif", is_flag=True, help="Print a SARIF 2.1.0 log, which code hosts show.")
@limits_option
def run(paths: Sequence[Path], *, allow: Sequence[str], strict: bool, in_sarif: bool, limits: Limits) -> Answer:
    """Tell whether model files are safe to open.

    PATH is a file or folder of any form that inspect knows, or a pickle (.pkl, joblib,
    .npy of objects, .pt). Neither Keras nor a backend is needed. Critical and high
    findings refuse a file unless their rule is allowed. Exits with 21 where a file
    is refused.
    """
    import msgspec

    from modelkeep.cli import shapes
    from modelkeep.safety import sarif
    from modelkeep.safety.scanning import scan

    scans = [scan(path, limits=limits, allow=allow, strict=strict) for path in paths]
    exit_code = 0 if all(one.ok for one in scans) else UnsafeContent.exit_code
    if in_sarif:
        log = sarif.log(scans)
        return Answer(log, [Lines(json.dumps(log, indent=2))], exit_code)
    value = msgspec.convert([one.to_json() for one in scans], list[shapes.Scan])
    return Answer(value, [Lines(str(one)) for one in scans], exit_code)
