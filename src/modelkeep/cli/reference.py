"""The reference of the command line, ``docs/cli.md``: written from the help texts and the shapes of the JSON.

``python -m modelkeep.cli.reference > docs/cli.md``
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import click
import msgspec

from modelkeep.cli import shapes
from modelkeep.cli.command import Command
from modelkeep.cli.main import COMMANDS, load, modelkeep

_WIDTH = 100  # columns of a help text
_HEAD = """\
# Command line

The help texts of `modelkeep`, and the JSON that `--json` prints. This page is written by
`python -m modelkeep.cli.reference > docs/cli.md`.

"""


def reference() -> str:
    """The whole page, as Markdown."""
    return _HEAD + "\n".join([*_texts(), *_json()])


def _texts() -> Iterator[str]:
    top = click.Context(modelkeep, info_name="modelkeep", terminal_width=_WIDTH, **modelkeep.context_settings)
    yield _text("modelkeep", modelkeep.get_help(top))
    for name in COMMANDS:
        command = load(name)
        context = click.Context(command, info_name=name, parent=top, terminal_width=_WIDTH)
        answers = f"\n`--json` prints {_linked(command.shape)}.\n" if isinstance(command, Command) else ""
        yield _text(f"modelkeep {name}", command.get_help(context)) + answers


def _text(title: str, help_text: str) -> str:
    return f"## {title}\n```text\n{help_text}\n```\n"


def _linked(shape: str) -> str:
    name = shape.removesuffix("[]")
    return f"{'a list of ' if shape.endswith('[]') else ''}[{name}](#{name.lower()})"


def _json() -> Iterator[str]:
    yield f"## JSON\n{shapes.__doc__}\n"
    for name, shape in vars(shapes).items():
        if isinstance(shape, type) and issubclass(shape, shapes.Shape) and shape is not shapes.Shape:
            yield f"### {name}\n{shape.__doc__}\n\n| field | type | meaning |\n|---|---|---|\n{''.join(_rows(shape))}"


def _rows(shape: type[shapes.Shape]) -> Iterator[str]:
    hints = get_type_hints(shape, vars(shapes), include_extras=True)
    for field in msgspec.structs.fields(shape):
        kind, meaning = hints[field.name], ""
        if get_origin(kind) is Annotated:
            kind, meta = get_args(kind)
            meaning = meta.description
        yield f"| `{field.name}` | {_type(kind)} | {meaning} |\n"


_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null", Any: "any"}


def _type(kind: Any) -> str:
    """A type in JSON's words."""
    parts = [_type(part) for part in get_args(kind)]
    match get_origin(kind):
        case types.UnionType:
            return " or ".join(parts)
        case builtins.dict:
            return f"{{{': '.join(parts)}}}"
        case builtins.list:
            return f"[{parts[0]}]"
    return _WORDS.get(kind) or f"[{kind.__name__}](#{kind.__name__.lower()})"


if __name__ == "__main__":
    sys.stdout.write(reference())
