"""``modelkeep show``: one version or checkpoint whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from modelkeep.checkpoint import Checkpoint
from modelkeep.cli import chart, shapes
from modelkeep.cli.answer import Answer, Block, Lines, Raw, Table
from modelkeep.cli.command import command, ref_argument
from modelkeep.cli.wording import moment, pointing, short
from modelkeep.sizes import human_bytes

if TYPE_CHECKING:
    from modelkeep.curves import Curves
    from modelkeep.keep import Keep
    from modelkeep.manifest import Manifest, Tensor, TensorSpec, Transfer
    from modelkeep.version import Version

_CURVE = 30  # characters


@command("show", example="modelkeep show sentiment@production --at 2026-05-01", shape="Whole")
@ref_argument
@click.option("--at", metavar="TIME", help="As it was then: a date, or a date and time, such as 2026-05-01T12:00.")
@click.option("--manifest", "raw", is_flag=True, help="Print the manifest's own bytes, which its digest is of.")
def run(keep: Keep, ref: str, at: str | None, raw: bool) -> Answer:
    """One version whole, or a checkpoint (RUN@STEP).

    Its metrics, metadata, gates, inputs and outputs, assets, custom objects, environment and tensors.
    """
    checkpoint = keep.checkpoint(ref)
    if checkpoint is not None and at is not None:
        raise click.UsageError("a checkpoint does not move, so it takes no --at")
    found = keep.resolve(ref, at=at) if checkpoint is None else checkpoint
    manifest = keep.manifest(ref) if isinstance(found, Checkpoint) else found.manifest
    if raw:
        from modelkeep.manifest import encode

        return Answer(msgspec.Raw(encode(manifest)), [Raw(encode(manifest))])
    content, curves = msgspec.to_builtins(manifest), keep.curves(ref, at=at)
    if isinstance(found, Checkpoint):
        value = shapes.Whole(checkpoint=shapes.Checkpoint.of(keep.run(found.run), found), manifest=content)
    else:
        value = shapes.Whole(version=shapes.Version.of(found), manifest=content)
    return Answer(value, list(_blocks(found, manifest, curves)))


def _blocks(found: Version | Checkpoint, manifest: Manifest, curves: Curves) -> Iterator[Block]:
    """Everything there is to see, without what is empty."""
    version = None if isinstance(found, Checkpoint) else found
    yield _standing(found, manifest) if isinstance(found, Checkpoint) else _facts(found, manifest)
    sections: dict[str, Sequence[Sequence[str]]] = {
        "METRICS": _values(found.metrics),
        "CURVES": [_curve(name, curves) for name in curves.names()],
        "METADATA": _values(manifest.metadata),
        "AVERAGE OF": [(parent,) for parent in manifest.lineage.parents],
        "TRANSFERS": [(each.source, _counts(each), _pairs(each.options)) for each in manifest.lineage.transfers],
        "GATES": [(gate.gate, "held" if gate.passed else "missed", _pairs(gate.values)) for gate in manifest.gates],
        "INPUTS": _specs(manifest.signature.inputs if manifest.signature else ()),
        "OUTPUTS": _specs(manifest.signature.outputs if manifest.signature else ()),
        "ASSETS": [(asset.name, asset.kind, _pairs(asset.info)) for asset in manifest.assets],
        "CUSTOM OBJECTS": [
            (custom.name, custom.kind, f"{custom.module}.{custom.qualname}") for custom in manifest.custom_objects
        ],
        "ENVIRONMENT": _environment(manifest),
        "WEIGHTS": [
            (tensor.variable or tensor.name, tensor.dtype, _shape(tensor.shape), human_bytes(tensor.nbytes))
            for tensor in manifest.tensors
            if tensor.name.startswith("weights/")
        ],
        "OTHER TENSORS": _others(manifest.tensors),
        "ATTACHMENTS": [(each.kind, human_bytes(each.size)) for each in version.attachments] if version else [],
        "NOTICES": [(notice,) for notice in manifest.notices],
    }
    for title, rows in sections.items():
        if rows:
            yield Table((title, *[""] * (len(rows[0]) - 1)), rows)
    if version and version.weights:
        yield Lines(f"the traffic of this alias: {pointing(version.weights)}")


def _facts(version: Version, manifest: Manifest) -> Table:
    lineage = manifest.lineage
    commit = lineage.git_commit and lineage.git_commit + (" (with changes)" if lineage.git_dirty else "")
    golden = manifest.golden and f"{manifest.golden.count} examples" + (" (made up)" if manifest.golden.probe else "")
    facts = {
        "DIGEST": version.digest,
        "CREATED (UTC)": moment(version.created),
        "BY": version.actor,
        "KIND": version.kind,
        "SIZE": f"{human_bytes(version.size)} ({human_bytes(version.new_bytes)} new)",
        "PARAMETERS": f"{manifest.parameters:,} ({manifest.trainable_parameters:,} trainable)",
        "TAGS": " ".join(version.tags),
        "YANKED": "yes" if version.yanked else "",
        "NOTE": version.note,
        "PARENT": lineage.parent,
        "RUN": lineage.run,
        "SOURCE": lineage.source,
        "DATA": lineage.data_digest,
        "GIT COMMIT": commit,
        "GOLDEN": golden,
        "PIPELINE": manifest.pipeline,
        "WRITTEN BY": manifest.writer,
    }
    return Table(("REF", version.ref), [(name, text) for name, text in facts.items() if text])


def _standing(checkpoint: Checkpoint, manifest: Manifest) -> Table:
    """Where training stood."""
    begun = checkpoint.step_in_epoch
    facts = {
        "DIGEST": checkpoint.manifest,
        "CREATED (UTC)": moment(checkpoint.created),
        "STEP": str(checkpoint.step),
        "EPOCH": str(checkpoint.epoch) + (f", and {begun} steps of the next" if begun else ""),
        "REASON": checkpoint.reason,
        "FINISHED": "yes" if checkpoint.finished else "",
        "NUMBER": str(checkpoint.number) + (f", after {checkpoint.follows}" if checkpoint.follows else ""),
        "KIND": manifest.kind,
        "SIZE": f"{human_bytes(checkpoint.size)} ({human_bytes(checkpoint.new_bytes)} new)",
        "PARAMETERS": f"{manifest.parameters:,} ({manifest.trainable_parameters:,} trainable)",
        "WRITTEN BY": manifest.writer,
    }
    return Table(("REF", checkpoint.ref), [(name, text) for name, text in facts.items() if text])


def _values(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, short(value)) for name, value in values.items()]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in values.items())


def _curve(name: str, curves: Curves) -> tuple[str, str]:
    """``0.7 █▅▃▂▁▁ 0.2``: by epoch where there are some, else by step."""
    points = [point for point in curves.epochs if name in point.logs] or curves.steps
    values = [point.logs[name] for point in points if name in point.logs]
    return name, f"{short(values[0])} {chart.bars(values, _CURVE)} {short(values[-1])}"


def _counts(transfer: Transfer) -> str:
    """``12 copied (1,024 parameters), 2 missing (66 parameters)``."""
    kinds = ("copied", "partial", "mismatched", "missing", "unused")
    counts = ((kind, getattr(transfer, kind)) for kind in kinds)
    return ", ".join(
        f"{count.tensors} {kind} ({count.parameters:,} parameters)" for kind, count in counts if count.tensors
    )


def _specs(specs: Iterable[TensorSpec]) -> list[tuple[str, str, str]]:
    return [(spec.name, spec.dtype, "any" if spec.shape is None else _shape(spec.shape)) for spec in specs]


def _shape(shape: Iterable[int | None]) -> str:
    return f"({', '.join('any' if length is None else str(length) for length in shape)})"


def _environment(manifest: Manifest) -> list[tuple[str, str]]:
    environment = manifest.environment
    if environment is None:
        return []
    facts = {
        "python": environment.python,
        "backend": environment.backend,
        **environment.packages,
        "platform": environment.platform,
        "cpu": environment.cpu,
        "accelerators": ", ".join(environment.accelerators),
    }
    return [(name, text) for name, text in facts.items() if text]


def _others(tensors: Iterable[Tensor]) -> list[tuple[str, str, str]]:
    """How many tensors each other kind has, and their bytes: an optimizer alone can have thousands."""
    kinds: dict[str, list[int]] = {}
    for tensor in tensors:
        kind = tensor.name.partition("/")[0]
        if kind != "weights":
            kinds.setdefault(kind, []).append(tensor.nbytes)
    return [(kind, str(len(sizes)), human_bytes(sum(sizes))) for kind, sizes in kinds.items()]
