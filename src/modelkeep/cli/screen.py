"""Printing: tables and colour on a terminal, plain aligned text in a pipe, JSON when asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from modelkeep.cli.answer import Answer, Lines, Raw, Table

if TYPE_CHECKING:
    from rich.console import Console

# How lines that begin so are shown: the marks of reports and diffs.
_STYLES = {"✗": "red", "!": "yellow", "·": "dim", "✓": "green", "-": "red", "~": "yellow", "+": "green"}


def show(answer: Answer, *, in_json: bool) -> None:
    """Print an answer on stdout."""
    if in_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(answer.value), indent=2))
        return
    write = _on_terminal() if sys.stdout.isatty() else lambda block: click.echo(_plain(block))
    for number, block in enumerate(answer.blocks):
        if isinstance(block, Raw):
            click.echo(block.data, nl=False)
            continue
        if number:
            click.echo()
        write(block)


def printable(text: str) -> str:
    """``text`` without characters that could steer a terminal: names and notes may come from anywhere."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _plain(block: Lines | Table) -> str:
    """Columns aligned by two spaces, nothing cut off, nothing drawn."""
    if isinstance(block, Lines):
        return printable(block.text)
    rows = [[_cell(text) for text in row] for row in (block.columns, *block.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    adjust = [str.rjust if column in block.right else str.ljust for column in block.columns]
    lines = ("  ".join(a(c, w) for a, c, w in zip(adjust, row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _cell(text: str) -> str:
    return printable(text.replace("\n", " "))


def _on_terminal() -> Callable[[Lines | Table], None]:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)

    def write(block: Lines | Table) -> None:
        if isinstance(block, Lines):
            for line in printable(block.text).split("\n"):
                console.print(line, style=_STYLES.get(line.strip()[:1]), soft_wrap=True)
        else:
            _print_table(console, block)

    return write


def _print_table(console: Console, table: Table) -> None:
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        # Folded, never cut: a ref on the screen must be one that can be copied.
        drawn.add_column(_cell(column), overflow="fold", justify="right" if column in table.right else "left")
    for row in table.rows:
        drawn.add_row(*(Text(_cell(text)) for text in row))
    console.print(drawn)
