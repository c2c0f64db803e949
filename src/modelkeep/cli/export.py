"""``modelkeep export``: a version in another form, to carry elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelkeep.cli import shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command, custom_objects_option, of_option, ref_argument, trust_option
from modelkeep.sizes import human_bytes

if TYPE_CHECKING:
    from modelkeep.keep import Keep


@command("export", example="modelkeep export sentiment@production saved_model --to serving/1", shape="Exported")
@ref_argument
@click.argument("form", metavar="[FORM]", default="bundle")
@click.option("--to", required=True, type=click.Path(path_type=Path), help="Where to write it.")
@of_option
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@custom_objects_option
@trust_option
def run(
    keep: Keep,
    ref: str,
    form: str,
    to: Path,
    *,
    of: str | None,
    overwrite: bool,
    custom_objects: dict[str, Any] | None,
    trust: Sequence[str],
) -> Answer:
    """Write a version in another form.

    FORM is bundle, a .zip that `modelkeep add` takes into another store, or one that
    others read: keras, h5, weights_h5, legacy_weights_h5, safetensors, npz, json,
    saved_model, onnx, litert, openvino, zip, tar.gz, tar.zst. All but a bundle are opened again and have to
    answer the golden examples as the version does.
    """
    version = keep.resolve(ref).ref
    options = {} if of is None else {"of": of}
    exported = keep.export(
        version, form, to=to, overwrite=overwrite, custom_objects=custom_objects, trust=trust, **options
    )
    size = _size(to)
    report = shapes.Report(**exported.report.to_json())
    told = shapes.Exported(ref=version, form=form, path=str(to), size=size, report=report)
    lines = [Lines(f"{version} → {to}  {human_bytes(size)}")]
    return Answer(told, [*lines, Lines(str(exported.report))] if exported.report.findings else lines)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
