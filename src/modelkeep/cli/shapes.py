"""The JSON that ``--json`` prints, field by field. In time fields are added; none is renamed or taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from modelkeep.checkpoint import to_json
from modelkeep.cli import wording
from modelkeep.cli.standing import standing
from modelkeep.curves import numbers

if TYPE_CHECKING:
    from modelkeep.checkpoint import Checkpoint as KeptCheckpoint
    from modelkeep.entry import Entry as LedgerEntry
    from modelkeep.entry import Policy as LedgerPolicy
    from modelkeep.registry import ModelSummary
    from modelkeep.runs import Pruned
    from modelkeep.runs import Run as KeptRun
    from modelkeep.version import Version as KeptVersion


class Shape(msgspec.Struct, kw_only=True):
    """Base of what is printed."""


def says(text: str) -> msgspec.Meta:
    """What a field means, for the reference."""
    return msgspec.Meta(description=text)


class Model(Shape):
    """A model: a named line of versions."""

    name: str
    newest: Annotated[str | None, says("the version that the bare name selects")]
    versions: Annotated[int, says("how many there are")]
    aliases: Annotated[dict[str, dict[str, float]], says("alias → version → per cent of the traffic")]
    stored: Annotated[int, says("bytes that its versions added to the store")]
    updated: Annotated[str, says("RFC 3339, UTC")]
    damage: Annotated[str | None, says("where its ledger is damaged, how; nothing else is known then")]

    @classmethod
    def of(cls, model: ModelSummary) -> Model:
        """From what Keep tells of a model."""
        return cls(
            name=model.name,
            newest=str(model.newest.version) if model.newest else None,
            versions=model.versions,
            aliases={alias: dict(weights) for alias, weights in (model.aliases or {}).items()},
            stored=model.stored,
            updated=model.updated,
            damage=str(model.damage) if model.damage else None,
        )


class Version(Shape):
    """A version."""

    ref: Annotated[str, says("`model:version`")]
    model: str
    version: str
    digest: Annotated[str, says("of the manifest: the version's identity")]
    kind: Annotated[
        str, says("`whole`; `weights` where no architecture was kept; `servable` where there is no Keras model")
    ]
    size: Annotated[int, says("bytes of everything it is made of")]
    new_bytes: Annotated[int, says("bytes that its save added to the store")]
    parameters: int
    metrics: dict[str, Any]
    metadata: dict[str, Any]
    tags: list[str]
    note: str | None
    created: Annotated[str, says("RFC 3339, UTC")]
    actor: Annotated[str, says("who published it")]
    yanked: bool
    attachments: Annotated[list[str], says("what was added to it later, such as `signature:<key id>`")]
    weights: Annotated[
        dict[str, float] | None, says("where an alias that is split selected it: version → per cent, else null")
    ]

    @classmethod
    def of(cls, version: KeptVersion) -> Version:
        """From what Keep hands out."""
        return cls(
            ref=version.ref,
            model=version.model,
            version=str(version.version),
            digest=version.digest,
            kind=version.kind,
            size=version.size,
            new_bytes=version.new_bytes,
            parameters=version.parameters,
            metrics=dict(version.metrics),
            metadata=dict(version.metadata),
            tags=list(version.tags),
            note=version.note,
            created=version.created,
            actor=version.actor,
            yanked=version.yanked,
            attachments=[attachment.kind for attachment in version.attachments],
            weights=None if version.weights is None else dict(version.weights),
        )


class Whole(Shape, kw_only=True):
    """A version, or a checkpoint, with everything it says of itself."""

    version: Annotated[Version | None, says("null where it is a checkpoint")] = None
    checkpoint: Annotated[Checkpoint | None, says("null where it is a version")] = None
    manifest: Annotated[dict[str, Any], says("as `--manifest` prints it")]


class Checkpoint(Shape):
    """Where a training run stood after a step."""

    ref: Annotated[str, says("`run@step`")]
    number: Annotated[int, says("its place among those of the run, from 1")]
    step: Annotated[int, says("steps of training since the run began")]
    epoch: Annotated[int, says("epochs done")]
    step_in_epoch: Annotated[int, says("steps done in the next one")]
    metrics: Annotated[dict[str, float | str], says("numbers; `nan`, `inf` and `-inf` as text")]
    size: Annotated[int, says("bytes of everything it is made of")]
    new_bytes: Annotated[int, says("bytes that it added to the store")]
    created: Annotated[str, says("RFC 3339, UTC")]
    reason: Annotated[str, says("`interval`, `epoch`, `time`, `signal`, `end` or `asked`")]
    digest: Annotated[str, says("of its manifest")]
    best: Annotated[bool, says("by the metric that the run keeps its best by")]
    last: bool

    @classmethod
    def of(cls, run: KeptRun, checkpoint: KeptCheckpoint) -> Checkpoint:
        """From what Keep tells of a run."""
        marks = wording.marks(run, checkpoint)
        return cls(
            ref=checkpoint.ref,
            number=checkpoint.number,
            step=checkpoint.step,
            epoch=checkpoint.epoch,
            step_in_epoch=checkpoint.step_in_epoch,
            metrics=to_json(checkpoint.metrics),
            size=checkpoint.size,
            new_bytes=checkpoint.new_bytes,
            created=checkpoint.created,
            reason=checkpoint.reason,
            digest=checkpoint.manifest,
            best="best" in marks,
            last="last" in marks,
        )


class Removed(Shape):
    """What was deleted of a run, or would be."""

    dry_run: Annotated[bool, says("nothing was")]
    checkpoints: Annotated[list[str], says("`run@step`")]
    bytes: Annotated[int, says("that this gave back; what others rely on is left to `gc`")]

    @classmethod
    def of(cls, pruned: Pruned) -> Removed:
        """From what Keep did."""
        return cls(
            dry_run=pruned.dry_run,
            checkpoints=[checkpoint.ref for checkpoint in pruned.dropped],
            bytes=pruned.removed_bytes,
        )


class Run(Shape):
    """A training run."""

    name: str
    state: Annotated[str, says("`training`, `silent` where it has told nothing for half a minute, or `finished`")]
    heard: Annotated[str, says("when it was heard of last: RFC 3339, UTC")]
    step: int
    epoch: Annotated[int, says("epochs done")]
    epochs: Annotated[int | None, says("how many there will be, if it told")]
    share: Annotated[float | None, says("how much of it is done, from 0 to 1, if that is known")]
    steps_per_second: float | None
    seconds_left: float | None
    logs: Annotated[dict[str, float | str], says("its newest numbers; `nan`, `inf` and `-inf` as text")]
    stored: Annotated[int, says("bytes that its checkpoints added to the store")]
    checkpoints: Annotated[list[Checkpoint], says("in the order of writing; before any were removed")]
    damaged: Annotated[dict[str, str], says("entries that cannot be read: number → what is wrong")]
    removed: Annotated[Removed | None, says("where checkpoints were")] = None

    @classmethod
    def of(cls, run: KeptRun) -> Run:
        """From what Keep tells of a run."""
        stands = standing(run)
        return cls(
            name=run.name,
            state=stands.state,
            heard=stands.heard,
            step=stands.step,
            epoch=stands.epoch,
            epochs=stands.of,
            share=stands.share,
            steps_per_second=stands.rate,
            seconds_left=stands.left,
            logs=to_json(numbers(stands.logs)),
            stored=run.stored,
            checkpoints=[Checkpoint.of(run, checkpoint) for checkpoint in run.checkpoints],
            damaged={str(number): str(error) for number, error in run.damaged.items()},
        )


class Watched(Shape):
    """A training run and what it logged."""

    run: Run
    curves: Annotated[
        dict[str, Any],
        says("`steps`, thinned, and `epochs`: columns `step` and `epoch`, and `logs` by name; null where none was"),
    ]


class Entry(Shape):
    """One thing that happened to a model."""

    number: Annotated[int, says("its place in the ledger, from 1")]
    time: Annotated[str, says("RFC 3339, UTC")]
    actor: str
    reason: str | None
    action: Annotated[dict[str, Any], says("`do` is publish, refuse, move, attach, annotate, yank, delete or policy")]

    @classmethod
    def of(cls, entry: LedgerEntry) -> Entry:
        """From the ledger."""
        action: dict[str, Any] = msgspec.to_builtins(entry.action)
        return cls(number=entry.seq, time=entry.time, actor=entry.actor, reason=entry.reason, action=action)


class Finding(Shape):
    """The answer to one question."""

    check: Annotated[str, says("what was asked, such as `tensor-digest`")]
    severity: Annotated[str, says("`ok`, `note`, `warning` or `failure`")]
    message: str
    subject: Annotated[str, says("what it is about: a tensor, a blob, an entry")]
    details: dict[str, Any]


class Report(Shape):
    """All answers about one subject."""

    title: str
    ok: Annotated[bool, says("no finding is a failure; else the exit code tells, too")]
    findings: list[Finding]


class Change(Shape):
    """One difference."""

    kind: Annotated[str, says("`added`, `removed` or `changed`")]
    subject: str
    old: Any
    new: Any
    remark: str


class Section(Shape):
    """The differences of one kind of thing."""

    changes: list[Change]
    same: Annotated[int, says("how many are the same")]


class Diff(Shape):
    """What differs between two versions."""

    old: str
    new: str
    different: bool
    sections: Annotated[dict[str, Section], says("architecture, weights, metrics, …")]


class Alias(Shape):
    """Where an alias points."""

    alias: Annotated[str, says("`model@alias`")]
    versions: Annotated[dict[str, float], says("version → per cent of the traffic; empty when the alias is gone")]


class Exported(Shape):
    """A file made from a version."""

    ref: Annotated[str, says("`model:version`")]
    form: str
    path: str
    size: Annotated[int, says("bytes")]
    report: Annotated[Report, says("the replay: the largest difference of each output")]


class Averaged(Shape):
    """A version that is an average of models."""

    version: Version
    parents: Annotated[list[str], says("the models it is of, with their digests")]
    weights: Annotated[list[float], says("how much each of them counts; they add up to 1")]
    report: Report


class Outcome(Shape):
    """What a transfer made of one tensor of the source, one weight of the target, or a pair of them."""

    fate: Annotated[str, says("`copied`, `partial`, `mismatched`, `missing`, `unused`, `excluded`: its list")]
    parameters: Annotated[int, says("numbers that were copied, else those that were not")]
    source: Annotated[str | None, says("what the source calls it")]
    tensor: Annotated[str | None, says("its name in the source's file")]
    source_shape: list[int] | None
    source_dtype: str | None
    target: Annotated[str | None, says("what the target calls it")]
    shape: list[int] | None
    dtype: str | None
    rule: Annotated[str | None, says("what paired them: `path`, `name` or `structure`")]
    note: Annotated[str, says("why it is left, or how it was made to fit")]


class Transferred(Shape):
    """What a transfer did, and where its result went."""

    source: str
    model: str
    ok: Annotated[bool, says("nothing refuses it; else the exit code tells, too")]
    dry_run: bool
    copied: list[Outcome]
    partial: Annotated[list[Outcome], says("sliced, padded, or row by row")]
    mismatched: Annotated[list[Outcome], says("of another shape or dtype; left as they were")]
    missing: Annotated[list[Outcome], says("weights that the source has nothing for")]
    unused: Annotated[list[Outcome], says("tensors that went nowhere")]
    excluded: Annotated[list[Outcome], says("weights that were not to be touched")]
    frozen: Annotated[list[str], says("layers that are untrainable now")]
    findings: list[Finding]
    path: Annotated[str | None, says("the file that was written")]
    version: Annotated[Version | None, says("the version that was published")]


class Inspection(Shape):
    """What is in a model file."""

    path: str
    form: Annotated[str, says("`keras`, `h5`, `saved_model`, `onnx`, …")]
    title: str
    size: Annotated[int, says("bytes on disk")]
    writer: Annotated[dict[str, str], says("`keras`, `tensorflow`, `backend`, `date`, `producer`")]
    parameters: int
    architecture: Annotated[dict[str, Any] | None, says("layers, inputs, outputs, custom objects")] = None
    compiled: Annotated[dict[str, Any] | None, says("optimizer, loss, metrics")] = None
    tensors: Annotated[list[dict[str, Any]], says("name, dtype, shape, nbytes, and stats if asked for")] = []
    optimizer: Annotated[list[dict[str, Any]], says("its tensors")] = []
    signatures: Annotated[dict[str, Any], says("inputs and outputs by signature")] = {}
    members: Annotated[list[dict[str, Any]], says("files within: name and size")] = []
    details: Annotated[dict[str, Any], says("what this form alone tells")] = {}
    problems: Annotated[list[dict[str, Any]], says("what is odd; `modelkeep scan` judges it")] = []


class ScanFinding(Shape):
    """One place where a file breaks a rule of the scan."""

    rule: Annotated[str, says("its id, as `--allow` takes it; docs/guide/scanning.md has all")]
    level: Annotated[str, says("`critical`, `high`, `medium` or `low`")]
    title: str
    message: str
    place: Annotated[str, says("where in the file")]
    allowed: Annotated[bool, says("let pass by name")]
    advisories: Annotated[list[str], says("published weaknesses that the rule answers")]


class Scan(Shape):
    """What the scan of one file found."""

    path: str
    form: Annotated[str | None, says("`keras`, `h5`, `saved_model`, `pickle`, …; null where none was recognised")]
    digest: Annotated[str, says("of the file's bytes; of a folder, of the names and digests of its files")]
    ok: Annotated[bool, says("nothing is refused; else the exit code is 21")]
    findings: list[ScanFinding]
    unconfined: Annotated[list[str], says("what this system could not take from the process that looked")]


class Swept(Shape):
    """What a gc found and did."""

    dry_run: Annotated[bool, says("nothing was removed; `removed` is what would be")]
    removed: Annotated[int, says("blobs")]
    removed_bytes: int
    young: Annotated[int, says("blobs that nothing needs, but younger than the grace")]
    young_bytes: int
    kept: Annotated[int, says("blobs that something needs")]
    kept_bytes: int


class Signed(Shape):
    """A signature that was made or taken in."""

    signed: Annotated[str, says("`model:version`, or the file or folder")]
    key: Annotated[str, says("the key's id: SHA-256 of its public half in PEM")]
    path: Annotated[str | None, says("where the signature was written, if it was")]


class PolicyKey(Shape):
    """Whose signature counts."""

    id: str
    name: str
    identity: Annotated[str | None, says("who, at which issuer, where it is no key")]
    until: Annotated[str | None, says("RFC 3339, UTC")]
    revoked: bool


class Policy(Shape):
    """What aliases demand."""

    aliases: Annotated[str, says("an alias, or a pattern")]
    required: Annotated[int, says("how many of the keys must have signed")]
    keys: list[PolicyKey]

    @classmethod
    def of(cls, policy: LedgerPolicy) -> Policy:
        """From the ledger."""
        keys = [
            PolicyKey(
                id=key.id,
                name=key.name,
                identity=f"{key.identity} at {key.issuer}" if key.identity else None,
                until=key.not_after,
                revoked=key.revoked,
            )
            for key in policy.keys
        ]
        return cls(aliases=policy.aliases, required=policy.required, keys=keys)


class Bill(Shape):
    """A bill of materials: [CycloneDX 1.6](https://cyclonedx.org/docs/1.6/json/)."""

    bomFormat: Annotated[str, says("`CycloneDX`")]  # noqa: N815 - the standard's names
    specVersion: Annotated[str, says("`1.6`")]  # noqa: N815
    serialNumber: Annotated[str, says("of the version's digest")]  # noqa: N815
    version: int
    metadata: Annotated[dict[str, Any], says("the version, its files and its model card in `component`")]
    components: Annotated[list[dict[str, Any]], says("the packages it was saved with")] = []
    dependencies: list[dict[str, Any]] = []


class Standing(Shape):
    """How a version stands."""

    ref: Annotated[str, says("`model:version`")]
    state: Annotated[str, says("`yanked`, `listed` or `deleted`")]


class Error(Shape):
    """On stderr, as `{"error": {…}}` in one line, where a command fails."""

    code: Annotated[str, says("stable, kebab-case, such as `version-not-found`")]
    exit_code: int
    message: Annotated[str, says("the whole text")]
    what: str | None = None
    found: str | None = None
    expected: str | None = None
    hint: Annotated[str | None, says("the next step")] = None
    report: Annotated[Report | None, says("what was found, where gates or checks refused")] = None
