"""Any model file looked into: read as data in a process of its own, told as a table, JSON, HTML or a drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from modelkeep.formats import forms
from modelkeep.formats.contents import Contents, ForeignTensor
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.inspecting import architecture as architectures
from modelkeep.inspecting.attribution import parameters_by_layer
from modelkeep.inspecting.drawing import draw
from modelkeep.inspecting.facts import Facts, LayerFacts, MemberFacts, ProblemFacts, Stats, TensorFacts
from modelkeep.inspecting.stats import stats_of
from modelkeep.manifest import TensorSpec
from modelkeep.report import plain
from modelkeep.safety import sandbox
from modelkeep.sizes import human_bytes

Section = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""A table: its title, the heads of its columns, its rows."""


@dataclass(frozen=True)
class Inspection:
    """What is in a model file: ``facts`` has all of it as values."""

    path: Path
    facts: Facts

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        told: dict[str, Any] = msgspec.to_builtins(self.facts)
        return {"path": str(self.path), **told}

    def to_svg(self) -> str:
        """A drawing of the graph, inputs at the top. Raises UsageError where the file tells of no network."""
        return draw(self.facts.architecture, self.path.name)

    def sections(self) -> list[Section]:
        """All of it as tables, those that would be empty left out."""
        return [section for section in _sections(self.facts) if section[2]]

    def __str__(self) -> str:
        return "\n\n".join([self.title, *(_text(section) for section in self.sections())])

    @property
    def title(self) -> str:
        """The file, its form, size and parameters, in a line."""
        facts = self.facts
        counted = f", {facts.parameters:,} parameters" if facts.tensors else ""
        return f"{self.path.name}: {facts.title}, {human_bytes(facts.size)}{counted}"

    def _repr_html_(self) -> str:
        tables = "".join(map(_html, self.sections()))
        return f"<div><strong>{escape(self.title)}</strong>{tables}</div>"


def inspect(path: str | Path, *, stats: bool = False, limits: Limits = DEFAULT) -> Inspection:
    """What is in a model file or folder of any form, without Keras, a backend, or running anything of it.

    ``stats`` also reads every tensor for its minimum, maximum, mean, NaN and infinities. Raises NotFound,
    UsageError for no model file, UnsafeContent, LimitExceeded, IntegrityError, StorageError.
    """
    # What is not there at all is said without starting a process; a checkpoint is named by what its files begin with.
    path = forms.look(Path(path)).path
    told = sandbox.call("modelkeep.inspecting.inspection:inspect_here", path, {"stats": stats}, limits)
    return Inspection(path, msgspec.convert(told, Facts))


def inspect_here(path: Path, limits: Limits, *, stats: bool) -> dict[str, Any]:
    """The facts of a file as JSON values, read in this very process: what :func:`inspect` has a child do."""
    with forms.open_contents(path, limits) as contents:
        told: dict[str, Any] = msgspec.to_builtins(facts_of(contents, stats=stats))
        return told


def facts_of(contents: Contents, *, stats: bool = False) -> Facts:
    """What an opened file tells."""
    return Facts(
        form=contents.form,
        title=forms.title_of(contents.form),
        size=contents.size,
        writer=dict(contents.writer),
        parameters=contents.parameters,
        architecture=architectures.read(contents.config, parameters_by_layer(contents)),
        compiled=architectures.compiled(contents.compile),
        tensors=tuple(_tensor(tensor, stats) for tensor in contents.tensors),
        optimizer=tuple(_tensor(tensor, stats) for tensor in contents.optimizer),
        signatures=dict(contents.signatures),
        members=tuple(MemberFacts(name=member.name, size=member.size) for member in contents.members),
        details=plain(contents.details),
        problems=tuple(ProblemFacts(rule=p.rule, message=p.message, place=p.place) for p in contents.problems),
    )


def _tensor(tensor: ForeignTensor, stats: bool) -> TensorFacts:
    found = stats_of(tensor.read()) if stats else None
    return TensorFacts(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, nbytes=tensor.nbytes, stats=found)


# --- as tables


def _sections(facts: Facts) -> Iterator[Section]:
    yield "", ("", ""), list(_overview(facts))
    if facts.architecture is not None:
        yield "Layers", ("LAYER", "CLASS", "OUTPUT", "DTYPE", "PARAMETERS", "SETTINGS"), list(_layers(facts))
        custom = [(one.name, one.module or "", ", ".join(one.used_by)) for one in facts.architecture.custom_objects]
        yield "Custom objects", ("NAME", "MODULE", "USED BY"), custom
    for name, signature in facts.signatures.items():
        rows = [("input", *_spec(spec)) for spec in signature.inputs]
        rows += [("output", *_spec(spec)) for spec in signature.outputs]
        yield f"Signature {name}", ("", "NAME", "SHAPE", "DTYPE"), rows
    for title, tensors in (("Tensors", facts.tensors), ("Optimizer", facts.optimizer)):
        measured = any(tensor.stats for tensor in tensors)
        columns = ("NAME", "SHAPE", "DTYPE", "BYTES", *(("MIN", "MAX", "MEAN", "NAN", "INF") if measured else ()))
        yield title, columns, [_tensor_row(tensor) for tensor in tensors]
    yield "Files within", ("NAME", "BYTES"), [(one.name, f"{one.size:,}") for one in facts.members]
    yield "Odd", ("RULE", "WHERE", "WHAT"), [(one.rule, one.place, one.message) for one in facts.problems]


def _overview(facts: Facts) -> Iterator[tuple[str, str]]:
    for key, value in facts.writer.items():
        yield f"written with {key}" if key not in ("date", "producer") else key, value
    network = facts.architecture
    if network is not None:
        yield "network", f"{network.kind} {network.name!r}"
        yield from (("input", " ".join(_spec(spec))) for spec in network.inputs)
        yield from (("output", " ".join(_spec(spec))) for spec in network.outputs)
    if facts.compiled is not None:
        settings = ", ".join(f"{key}={_short(value)}" for key, value in facts.compiled.optimizer_settings.items())
        yield "optimizer", f"{facts.compiled.optimizer}({settings})"
        yield from ((key, _short(value)) for key in ("loss", "metrics") if (value := getattr(facts.compiled, key)))
    for key, value in facts.details.items():
        if isinstance(value, str | int | float):
            yield key.replace("_", " "), _short(value)


def _layers(facts: Facts) -> Iterator[tuple[str, ...]]:
    assert facts.architecture is not None
    before: str | None = None
    for layer in facts.architecture.layers:
        for depth, one in layer.walk():
            yield (
                "  " * depth + one.name + ("" if one.trainable else " (frozen)"),
                one.class_name + (" *" if one.custom else ""),
                _shape(one.output_shape),
                one.dtype or "",
                "" if one.parameters is None else f"{one.parameters:,}",
                _told(one, before if depth == 0 else None, depth),
            )
        before = layer.name


def _told(layer: LayerFacts, before: str | None, depth: int) -> str:
    """Its settings, and what feeds it where that is not the layer above."""
    settings = [f"{key}={_short(value)}" for key, value in layer.settings.items()]
    elsewhere = layer.inputs not in ((), (before,)) and depth == 0
    return ", ".join([*settings, *([f"← {', '.join(layer.inputs)}"] if elsewhere else [])])


def _spec(spec: TensorSpec) -> tuple[str, str, str]:
    return spec.name, _shape(spec.shape), spec.dtype


def _shape(shape: Sequence[int | None] | None) -> str:
    return "" if shape is None else f"({', '.join('None' if one is None else str(one) for one in shape)})"


def _tensor_row(tensor: TensorFacts) -> tuple[str, ...]:
    row = (tensor.name, _shape(tensor.shape), tensor.dtype, f"{tensor.nbytes:,}")
    return row if tensor.stats is None else (*row, *_stats(tensor.stats, prod(tensor.shape)))


def _stats(stats: Stats, count: int) -> tuple[str, ...]:
    numbers = (stats.minimum, stats.maximum, stats.mean)
    odd = (f"{stats.nan:,}" if stats.nan else "", f"{stats.infinite:,}" if stats.infinite else "")
    return (*("" if one is None else f"{one:.4g}" for one in numbers), *odd)


def _short(value: Any) -> str:
    text = (
        f"{value:.6g}"
        if isinstance(value, float)
        else value
        if isinstance(value, str)
        else msgspec.json.encode(value).decode()
    )
    return text if len(text) <= 80 else text[:79] + "…"


def _text(section: Section) -> str:
    title, columns, rows = section
    shown = [[_printable(cell) for cell in row] for row in (([columns] if any(columns) else []) + list(rows))]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    return "\n".join([*([title] if title else []), *lines])


def _printable(text: str) -> str:
    """A name read from a file must not command the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _html(section: Section) -> str:
    title, columns, rows = section
    head = "".join(f"<th style='text-align:left'>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td style='text-align:left;white-space:pre'>{escape(_printable(cell))}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f"<h4>{escape(title)}</h4><table><tr>{head}</tr>{body}</table>"
