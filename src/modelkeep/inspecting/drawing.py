"""A network drawn as SVG: a box for each layer, an arrow for each tensor, inputs at the top.

Layers stand in rows by the longest way from an input; within a row each stands near the middle of what
feeds it (the barycenter heuristic of Sugiyama, Tagawa and Toda, 1981), and an arrow that passes a row gets
a place of its own there, so that it crosses no box.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from modelkeep.errors import UsageError
from modelkeep.inspecting.facts import Architecture, LayerFacts

_CHARACTER, _LINE, _PADDING = 6.6, 15, 8  # pixels, for 11 px monospace
_GAP_X, _GAP_Y, _MARGIN = 24, 28, 16
_PASSING = 12  # pixels that an arrow takes in a row it passes
_SWEEPS = 4
_LONGEST = 40  # characters of a line of text
_MOST = 2_000  # boxes; more than that nobody can look at
_COLOURS = {
    "InputLayer": "#d8e6f5", "Conv": "#dcefdc", "Pool": "#eaf4e2", "Dense": "#f7e6cf", "Norm": "#ebe3f4",
    "LSTM": "#f6dbe0", "GRU": "#f6dbe0", "RNN": "#f6dbe0", "Attention": "#f3efc9", "Embedding": "#d5eef0",
}  # fmt: skip
_STYLE = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:11px"


@dataclass
class _Box:
    """A layer, or the place where an arrow passes a row."""

    lines: tuple[str, ...]
    colour: str
    row: int
    feeds: list[_Box] = field(default_factory=list)
    fed_by: list[_Box] = field(default_factory=list)
    x: float = 0
    y: float = 0
    passed: float = 0  # pixels: how high the row is that an arrow passes

    @property
    def width(self) -> float:
        """In pixels."""
        return max(map(len, self.lines)) * _CHARACTER + 2 * _PADDING if self.lines else _PASSING

    @property
    def height(self) -> float:
        """In pixels."""
        return len(self.lines) * _LINE + 2 * _PADDING - 4 if self.lines else self.passed


def draw(architecture: Architecture | None, title: str) -> str:
    """The network as an SVG document. Raises UsageError where there is none, or more than a page could hold."""
    if architecture is None or not architecture.layers:
        raise UsageError(f"{title} tells of no layers, so there is nothing to draw")
    if len(architecture.layers) > _MOST:
        raise UsageError("too many layers to draw", found=len(architecture.layers), expected=f"at most {_MOST}")
    rows = _rows(architecture.layers)
    _order(rows)
    _place(rows)
    boxes = [box for row in rows for box in row]
    width = max(box.x + box.width / 2 for box in boxes) + _MARGIN
    height = max(box.y + box.height for box in boxes) + _MARGIN
    body = [*_arrows(boxes), *(line for box in boxes if box.lines for line in _drawn(box))]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0 8 4 0 8z" fill="#667"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#fff"/>',
            *body,
            "</svg>",
            "",
        ]
    )


# --- who stands in which row


def _rows(layers: Sequence[LayerFacts]) -> list[list[_Box]]:
    depths = _depths(layers)
    boxes = {layer.name: _Box(_lines(layer), _colour(layer), depths[layer.name]) for layer in layers}
    rows: list[list[_Box]] = [[] for _ in range(max(depths.values()) + 1)]
    for layer in layers:
        rows[depths[layer.name]].append(boxes[layer.name])
    for layer in layers:
        for name in layer.inputs:
            if name in boxes and depths[name] < depths[layer.name]:
                _connect(boxes[name], boxes[layer.name], rows)
    return rows


def _depths(layers: Sequence[LayerFacts]) -> dict[str, int]:
    """How far each layer is from the inputs, by the longest way. A file may claim a cycle: it is cut."""
    feeding = {layer.name: [name for name in layer.inputs if name != layer.name] for layer in layers}
    depths: dict[str, int] = {}
    waiting = list(feeding)
    while waiting:
        ready = [name for name in waiting if all(one in depths or one not in feeding for one in feeding[name])]
        for name in ready or waiting[:1]:
            depths[name] = 1 + max((depths.get(one, -1) for one in feeding[name]), default=-1)
        waiting = [name for name in waiting if name not in depths]
    return depths


def _connect(start: _Box, end: _Box, rows: list[list[_Box]]) -> None:
    """An arrow, with a place of its own in each row that it passes."""
    before = start
    for row in range(start.row + 1, end.row):
        passing = _Box((), "", row)
        rows[row].append(passing)
        before.feeds.append(passing)
        passing.fed_by.append(before)
        before = passing
    before.feeds.append(end)
    end.fed_by.append(before)


# --- where in the row


def _order(rows: list[list[_Box]]) -> None:
    for sweep in range(_SWEEPS):
        places = {id(box): index for row in rows for index, box in enumerate(row)}
        for row in rows if sweep % 2 == 0 else reversed(rows):
            near = {
                id(box): _middle(box.fed_by if sweep % 2 == 0 else box.feeds, places, places[id(box)]) for box in row
            }
            row.sort(key=lambda box: near[id(box)])
            places.update((id(box), index) for index, box in enumerate(row))


def _middle(neighbours: Sequence[_Box], places: dict[int, int], otherwise: float) -> float:
    return sum(places[id(box)] for box in neighbours) / len(neighbours) if neighbours else otherwise


def _place(rows: list[list[_Box]]) -> None:
    widest = max(sum(box.width for box in row) + _GAP_X * (len(row) - 1) for row in rows)
    y = float(_MARGIN)
    for row in rows:
        x = _MARGIN + (widest - sum(box.width for box in row) - _GAP_X * (len(row) - 1)) / 2
        height = max(box.height for box in row)
        for box in row:
            box.passed = 0 if box.lines else height
            box.x, box.y = x + box.width / 2, y + (height - box.height) / 2
            x += box.width + _GAP_X
        y += height + _GAP_Y


# --- drawn


def _lines(layer: LayerFacts) -> tuple[str, ...]:
    shape = (
        "" if layer.output_shape is None else " × ".join("?" if n is None else str(n) for n in layer.output_shape[1:])
    )
    counted = f"{layer.parameters:,} parameters" if layer.parameters else ""
    inner = sum(one.class_name != "InputLayer" for one in layer.layers)
    within = f"{inner} layers within" if inner > 1 else ""
    return tuple(_cut(line) for line in (layer.name, layer.class_name, shape, counted, within) if line)


def _cut(text: str) -> str:
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _colour(layer: LayerFacts) -> str:
    return next((colour for word, colour in _COLOURS.items() if word in layer.class_name), "#f2f2f4")


def _arrows(boxes: Sequence[_Box]) -> Iterator[str]:
    for box in boxes:
        if not box.lines:
            yield f'<path d="M{box.x:.1f} {box.y:.1f}v{box.height:.1f}" stroke="#667"/>'
        for end in box.feeds:
            x1, y1, x2, y2 = box.x, box.y + box.height, end.x, end.y
            bend = (y2 - y1) / 2
            tip = ' marker-end="url(#tip)"' if end.lines else ""
            path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
            yield f'<path d="{path}" fill="none" stroke="#667"{tip}/>'


def _drawn(box: _Box) -> Iterator[str]:
    left = box.x - box.width / 2
    yield (
        f'<rect x="{left:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="4" '
        f'fill="{box.colour}" stroke="#889"/>'
    )
    for number, line in enumerate(box.lines):
        y = box.y + _PADDING + _LINE * number + 8
        weight = ";font-weight:bold" if number == 0 else ""
        yield f'<text x="{box.x:.1f}" y="{y:.1f}" text-anchor="middle" style="{_STYLE}{weight}">{escape(line)}</text>'
