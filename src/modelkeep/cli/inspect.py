"""``modelkeep inspect``: what is in a model file, without running it."""

from __future__ import annotations

from pathlib import Path

import click

from modelkeep.cli.answer import Answer, Block, Lines, Table
from modelkeep.cli.command import file_command

_NUMBERS = frozenset({"PARAMETERS", "BYTES", "MIN", "MAX", "MEAN", "NAN", "INF"})


@file_command("inspect", example="modelkeep inspect old_model.h5 --svg graph.svg", shape="Inspection")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--stats", is_flag=True, help="Read every tensor for its minimum, maximum, mean and NaN.")
@click.option("--svg", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Draw the graph here.")
@click.option("--overwrite", is_flag=True, help="Replace the drawing that is there.")
def run(path: Path, *, stats: bool, svg: Path | None, overwrite: bool) -> Answer:
    """Tell what is in a model file, without running it.

    PATH is a file or folder of any form: .keras, .h5, weights, SavedModel, TensorFlow
    checkpoint, ONNX, LiteRT, OpenVINO, architecture JSON, a bundle, or an archive of
    one. Neither Keras nor a backend is needed. A star marks a class that is not
    Keras' own.
    """
    from modelkeep.inspecting.inspection import inspect

    found = inspect(path, stats=stats)
    blocks: list[Block] = [Lines(found.title)]
    for title, columns, rows in found.sections():
        if title:
            blocks.append(Lines(title))
        blocks.append(Table(columns, rows, right=_NUMBERS) if any(columns) else Lines(_pairs(rows)))
    if svg is not None:
        _write(svg, found.to_svg(), overwrite=overwrite)
        blocks.append(Lines(f"drawn: {svg}"))
    return Answer(found.to_json(), blocks)


def _pairs(rows: object) -> str:
    pairs = [tuple(row) for row in rows]  # type: ignore[attr-defined]
    width = max(len(key) for key, _ in pairs)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in pairs)


def _write(path: Path, text: str, *, overwrite: bool) -> None:
    import os

    from modelkeep.formats.durable import new_file

    with new_file(path, overwrite=overwrite) as file:
        os.write(file, text.encode())
