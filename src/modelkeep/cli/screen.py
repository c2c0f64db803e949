"""Printing: tables and colour on a terminal, plain aligned text in a pipe, JSON when asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from modelkeep.cli import chart
from modelkeep.cli.answer import Answer, Chart, Frame, Frames, Lines, Raw, Table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

CHART_HEIGHT = 8
CHART_WIDTH = 100  # at most

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
        if isinstance(block, Frames):
            with suppress(KeyboardInterrupt):  # that is how one stops looking
                (_redraw if sys.stdout.isatty() else _print_changes)(block.frames)
            continue
        write(block)


def printable(text: str) -> str:
    """``text`` without characters that could steer a terminal: names and notes may come from anywhere."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _print_changes(frames: Iterable[Frame]) -> None:
    last = None
    for frame in frames:
        if frame.line != last:
            click.echo(_cell(frame.line))
        last = frame.line


def _redraw(frames: Iterable[Frame]) -> None:
    from rich.console import Group
    from rich.live import Live

    with Live(console=_console(), auto_refresh=False, vertical_overflow="crop") as live:
        for frame in frames:
            spaced = [part for block in frame.blocks for part in ("", *_drawn(live.console, block))][1:]
            live.update(Group(*spaced), refresh=True)


def _plain(block: Lines | Table | Chart) -> str:
    """Columns aligned by two spaces, nothing cut off, nothing drawn."""
    if isinstance(block, Lines):
        return printable(block.text)
    if isinstance(block, Chart):
        return "\n".join(chart.draw(block.line, block.marks, width=CHART_WIDTH, height=CHART_HEIGHT))
    rows = [[_cell(text) for text in row] for row in (block.columns, *block.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    adjust = [str.rjust if column in block.right else str.ljust for column in block.columns]
    lines = ("  ".join(a(c, w) for a, c, w in zip(adjust, row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _cell(text: str) -> str:
    return printable(text.replace("\n", " "))


def _on_terminal() -> Callable[[Lines | Table | Chart], None]:
    console = _console()

    def write(block: Lines | Table | Chart) -> None:
        for part in _drawn(console, block):
            # A line longer than the terminal is one line still when it is copied.
            console.print(part, soft_wrap=isinstance(block, Lines))

    return write


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _drawn(console: Console, block: Lines | Table | Chart) -> Iterable[RenderableType]:
    from rich.text import Text

    if isinstance(block, Lines):
        return [Text(line, _STYLES.get(line.strip()[:1], "")) for line in printable(block.text).split("\n")]
    if isinstance(block, Chart):
        width = min(CHART_WIDTH, console.width)
        lines = [Text(line) for line in chart.draw(block.line, block.marks, width=width, height=CHART_HEIGHT)]
        for line in lines:
            line.highlight_regex(chart.MARK, "yellow")
        return lines
    return [_table(block)]


def _table(table: Table) -> RenderableType:
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        # Folded, never cut: a ref on the screen must be one that can be copied.
        drawn.add_column(_cell(column), overflow="fold", justify="right" if column in table.right else "left")
    for row in table.rows:
        drawn.add_row(*(Text(_cell(text)) for text in row))
    return drawn
