"""From a model in memory to a published version: captured, stored, rebuilt, replayed, judged, and only then named.

The order is the promise. Blobs are durable before the ledger names them; the model is rebuilt from those
very blobs and answers its golden examples before anything is published; and a failure at any step leaves
no version behind, only blobs that nothing refers to.
"""

from __future__ import annotations

import dataclasses
import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from msgspec.structs import replace

import modelkeep
from modelkeep import assets as codecs
from modelkeep import gates as judging
from modelkeep.catalog import VersionRecord
from modelkeep.entry import Publish, fitting
from modelkeep.errors import NotFaithful
from modelkeep.expressions import values_of
from modelkeep.live import environment, golden, origins, servable
from modelkeep.live.audit import audit
from modelkeep.live.capture import Captured, capture
from modelkeep.live.loading import Loaded, answer, load
from modelkeep.live.variables import array_source
from modelkeep.manifest import Lineage, Manifest, Part, Piece, canonical_json, media_of
from modelkeep.pipeline import Pipeline
from modelkeep.refs import SemVer
from modelkeep.registry import Bump, Registry
from modelkeep.report import Finding, Report, Severity
from modelkeep.storage.blobs import Blobs, TensorSource
from modelkeep.storage.protocol import Buffer, Progress

if TYPE_CHECKING:
    import keras

    from modelkeep.live.opening import Opened

PIPELINE = "pipeline.json"
WRITER = f"modelkeep {modelkeep.__version__}"

Others = Callable[[str], Mapping[str, Any] | None]
"""The values of another version, by what a gate calls it; see :func:`modelkeep.gates.judge`."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the user says of a version, beside the model itself."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    note: str | None = None
    assets: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Pipeline | None = None
    golden: Any = None
    lineage: Lineage = field(default_factory=Lineage)
    files: Mapping[str, bytes] = field(default_factory=dict)  # parts as they are, such as the curves of its training
    found: Sequence[Finding] = ()  # on the way from the file that the model was read from


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms a model is taken: what may be left out, what is let pass, and what it must meet."""

    architecture: bool = True
    allow_lambda: bool = False
    allow_non_finite: Sequence[str] = ()
    check: bool = True
    gates: Sequence[judging.Gate] = ()


@dataclass(frozen=True)
class _Gathered:
    """A version in memory: what would be written, and what it says of itself so far."""

    manifest: Manifest  # without parts and tensors
    parts: Mapping[str, Buffer]
    tensors: Sequence[TensorSource]
    objects: Mapping[str, object]
    doubts: tuple[Finding, ...]  # what may be lost, as far as can be told without rebuilding


def save(
    registry: Registry, model: keras.Model, name: str, facts: Facts, terms: Terms, **how: Unpack[Publishing]
) -> VersionRecord:
    """Publish ``model`` as the next version of ``name``.

    Raises GateRefused, NotFaithful, CannotRebuild, UnsafeContent, UsageError, VersionExists, Conflict, StorageError;
    nothing is published then.
    """
    judging.check(terms.gates)
    number = registry.next_version(name, version=how["version"], bump=how["bump"])
    gathered = _gather(model, facts, terms)

    def come_back(manifest: Manifest) -> tuple[Loaded, tuple[Finding, ...]]:
        return _come_back(manifest, registry.blobs, model, gathered.objects)

    return _publish(registry, name, number, gathered, terms, come_back, **how)


def save_servable(
    registry: Registry, opened: Opened, name: str, facts: Facts, terms: Terms, **how: Unpack[Publishing]
) -> VersionRecord:
    """Publish a file that holds no Keras model and answers all the same; as :func:`save`."""
    judging.check(terms.gates)
    number = registry.next_version(name, version=how["version"], bump=how["bump"])
    gathered = _gather_servable(opened, facts, terms)

    def come_back(manifest: Manifest) -> tuple[Loaded, tuple[Finding, ...]]:
        loaded = load(manifest, registry.blobs)
        loaded.replay(same_backend=True).raise_for_failures()
        return loaded, ()

    return _publish(registry, name, number, gathered, terms, come_back, **how)


class Publishing(TypedDict):
    """How a version is published: its number, what gates compare with, where earlier tensors lie."""

    version: str | None
    bump: Bump | None
    others: Others
    known: Mapping[str, tuple[Piece, ...]]
    reason: str | None
    progress: Progress | None


def _publish(
    registry: Registry,
    name: str,
    number: SemVer,
    gathered: _Gathered,
    terms: Terms,
    come_back: Callable[[Manifest], tuple[Loaded, tuple[Finding, ...]]],
    *,
    version: str | None,
    bump: Bump | None,
    others: Others,
    known: Mapping[str, tuple[Piece, ...]],
    reason: str | None,
    progress: Progress | None,
) -> VersionRecord:
    _judge_early(registry, name, number, gathered, terms.gates, others)
    started = time.monotonic()
    manifest, new_bytes = _store(gathered, registry.blobs, known, progress)
    back: list[Loaded] = []
    lost = gathered.doubts
    if terms.check and manifest.kind != "weights":
        rebuilt, lost = come_back(manifest)
        back.append(rebuilt)
    manifest = replace(manifest, notices=(*manifest.notices, *_notices(lost)))

    def loaded() -> Loaded:
        if not back:
            back.append(load(manifest, registry.blobs, objects=gathered.objects))
        return back[0]

    def build(number: SemVer) -> Manifest:
        candidate = replace(manifest, model=name, version=str(number), created=now())
        judged = _judge(name, number, terms.gates, values_of(candidate), others, loaded)
        judged.raise_for_failures()
        return replace(candidate, gates=judging.results(judged))

    return registry.publish(
        name, build, version=version, bump=bump, new_bytes=new_bytes, fresh_since=started, reason=reason
    )


def _judge_early(
    registry: Registry, name: str, number: SemVer, gathered: _Gathered, gates: Sequence[judging.Gate], others: Others
) -> None:
    """Refuse by its numbers what would be refused anyway, before a byte is written."""
    size = sum(tensor.nbytes for tensor in gathered.tensors) + sum(map(len, gathered.parts.values()))
    values = {**values_of(gathered.manifest), "model": name, "version": str(number), "size": size}
    report = _judge(name, number, [gate for gate in gates if isinstance(gate, str)], values, others, None)
    if not report.ok:
        registry.refuse(name, report, version=str(number))
        report.raise_for_failures()


def _judge(
    name: str,
    number: SemVer,
    gates: Sequence[judging.Gate],
    values: Mapping[str, Any],
    others: Others,
    load: Callable[[], Loaded] | None,
) -> Report:
    return judging.judge(f"{name}:{number} is refused", gates, values, versions=others, load=load or _nothing)


def _nothing() -> None:
    """What text gates load."""


def _gather(model: keras.Model, facts: Facts, terms: Terms) -> _Gathered:
    """Everything the version will hold, read from the live model; nothing is written yet."""
    captured = capture(model, architecture=terms.architecture, allow_lambda=terms.allow_lambda)
    examples = _examples(model, captured, facts, terms)
    facts = dataclasses.replace(facts, lineage=origins.lineage(model, facts.lineage))
    doubts = audit(model, architecture=terms.architecture)
    found = (*captured.findings, *golden.non_finite(model, allow=terms.allow_non_finite), *examples.findings)
    _refuse("this model cannot be kept as it is", (*doubts, *found))
    return _with_facts(
        facts,
        Manifest(
            model="draft",
            version="0.0.0",  # until the ledger gives it
            created=now(),
            writer=WRITER,
            kind=captured.kind,
            parameters=captured.parameters,
            trainable_parameters=captured.trainable_parameters,
            environment=environment.here(captured.custom_objects),
            signature=captured.signature,
            golden=examples.golden,
            custom_objects=captured.custom_objects,
            notices=_notices((*facts.found, *found)),
        ),
        captured.parts,
        captured.tensors,
        examples,
        objects=captured.objects,
        doubts=doubts,
    )


def _gather_servable(opened: Opened, facts: Facts, terms: Terms) -> _Gathered:
    """The files of a servable form, mapped, and what its engine answers."""
    assert opened.engine is not None
    given = servable.gather(opened.contents, opened.engine, facts.golden)
    _refuse("this model cannot be kept as it is", given.recorded.findings)
    return _with_facts(
        facts,
        Manifest(
            model="draft",
            version="0.0.0",
            created=now(),
            writer=WRITER,
            kind="servable",
            parameters=opened.contents.parameters,
            environment=environment.here(()),
            signature=given.signature,
            golden=given.recorded.golden,
            notices=_notices((*facts.found, *given.recorded.findings)),
        ),
        {name: _mapped(file) for name, file in given.parts.items()},
        (),
        given.recorded,
    )


def _mapped(file: Path) -> Buffer:
    """The bytes of a file, read as they are written into the store."""
    with file.open("rb") as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)) if file.stat().st_size else b""


def _with_facts(
    facts: Facts,
    manifest: Manifest,
    own_parts: Mapping[str, Buffer],
    own_tensors: Sequence[TensorSource],
    examples: golden.Recorded,
    *,
    objects: Mapping[str, object] | None = None,
    doubts: tuple[Finding, ...] = (),
) -> _Gathered:
    """What was read from the model, with all that the user says of it."""
    packed = [codecs.pack(name, value) for name, value in facts.assets.items()]
    parts: dict[str, Buffer] = {**own_parts, **facts.files}
    arrays: dict[str, Any] = {}
    for asset in packed:
        parts.update(asset.parts)
        arrays.update(asset.tensors)
    if facts.pipeline is not None:
        facts.pipeline.check_assets(facts.assets)
        parts[PIPELINE] = facts.pipeline.to_json()
    parts.update(examples.parts)
    arrays.update(examples.arrays)
    manifest = replace(
        manifest,
        metrics=dict(facts.metrics),
        metadata=dict(facts.metadata),
        tags=tuple(sorted(set(facts.tags))),
        note=facts.note,
        lineage=facts.lineage,
        assets=tuple(asset.asset for asset in packed),
        pipeline=None if facts.pipeline is None else PIPELINE,
    )
    # Metrics and metadata without a JSON form, or too large, are refused here, before anything is written.
    canonical_json(manifest)
    fitting(Publish.of(manifest, "", new_bytes=0))
    tensors = (*own_tensors, *(array_source(name, array) for name, array in arrays.items()))
    return _Gathered(manifest, parts, tensors, objects or {}, doubts)


def _examples(model: keras.Model, captured: Captured, facts: Facts, terms: Terms) -> golden.Recorded:
    """The golden examples with the answers the model gives now; made up from its signature if none are given."""
    if facts.golden is None:
        # Nothing would be compared with them: they are for the check.
        return golden.probe(model, captured.signature) if terms.check else golden.Recorded(None)
    predict = partial(answer, model, facts.pipeline, facts.assets)
    return golden.record(predict, facts.golden, allow=terms.allow_non_finite)


def _store(
    gathered: _Gathered, blobs: Blobs, known: Mapping[str, tuple[Piece, ...]], progress: Progress | None
) -> tuple[Manifest, int]:
    """Write all of it, durably; tells the manifest and the bytes that were not there before."""
    written = blobs.write(gathered.tensors, known=known, progress=progress)
    parts = []
    new_bytes = written.new_bytes
    for name, data in sorted(gathered.parts.items()):
        digest, added = blobs.add(data)
        new_bytes += added
        parts.append(Part(name=name, digest=digest, size=len(data), media=media_of(name)))
    return replace(gathered.manifest, parts=tuple(parts), tensors=written.tensors), new_bytes


def _come_back(
    manifest: Manifest, blobs: Blobs, model: keras.Model, objects: Mapping[str, object]
) -> tuple[Loaded, tuple[Finding, ...]]:
    """The model rebuilt from the blobs just written, after it gave the answers of the one in memory.

    Also what it lost on the way that no answer depends on. Where the answers differ, that is told as the reason.
    """
    loaded = load(manifest, blobs, objects=objects)
    lost = audit(model, loaded.model)
    _refuse("the model does not come back as it is", lost)
    report = loaded.replay(same_backend=True)
    if not report.ok:
        reasons = (dataclasses.replace(finding, severity=Severity.FAILURE) for finding in lost)
        _refuse("the rebuilt model does not answer as the original did", (*report.findings, *reasons))
    return loaded, lost


def _refuse(title: str, findings: Sequence[Finding]) -> None:
    Report(title, tuple(findings), NotFaithful).raise_for_failures()


def _notices(findings: Sequence[Finding]) -> tuple[str, ...]:
    """What was found and let pass, as the manifest tells it."""
    passed = (f for f in findings if f.severity in (Severity.NOTE, Severity.WARNING))
    return tuple(": ".join(filter(None, (f.check, f.subject, f.message))) for f in passed)


def now() -> str:
    """The time as a manifest has it: RFC 3339, UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
