"""From a model between two steps to a durable checkpoint: one copy in the loop, the rest in the background."""

from __future__ import annotations

import json
import math
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import keras
import msgspec
from msgspec.structs import replace as replace_fields

from modelkeep.checkpoint import Checkpoint, Reason
from modelkeep.curves import Curves
from modelkeep.errors import CannotRebuild, UnsafeContent
from modelkeep.live import compiled, environment, internals, origins, saving, shards
from modelkeep.live.capture import COMPILE, Captured, capture
from modelkeep.live.tensors import Array
from modelkeep.live.training import processes, state
from modelkeep.live.training.background import Background
from modelkeep.live.training.snapshot import Snapshot, Snapshots
from modelkeep.live.variables import Inventory, array_source, inventory, view
from modelkeep.manifest import Environment, Lineage, Manifest, Part, Tensor, encode, media_of
from modelkeep.report import Finding, Severity
from modelkeep.retention import Retention
from modelkeep.runs import Progress, Runs, version_of
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.protocol import Buffer

Optimizers: TypeAlias = Mapping[str, keras.optimizers.Optimizer]

STATE = "training/state.msgpack"
CURVES = "training/curves.json"
TRAINING = "training/"
TELL_EVERY = 2.0  # seconds between two accounts of the progress
OTHERS = "others"  # the path of optimizers that the model was not compiled with
NONE: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Standing:
    """Where a training stands: steps done in all, epochs done, and steps done in the epoch after those."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0


@dataclass(frozen=True)
class _Subject:
    """What is kept of a model: what does not change while it trains, and how its variables are copied."""

    captured: Captured
    environment: Environment
    lineage: Lineage
    found: Inventory
    snapshots: Snapshots
    targets: Mapping[str, list[str] | None]  # of each optimizer, the weights it was built for
    replicated: Mapping[str, internals.Variable]  # those of which each replica has a share

    def fits(self, model: keras.Model, optimizers: Optimizers) -> bool:
        """Whether these have no more to keep than when this was made."""
        known = (any(node is optimizer for _, node in self.found.nodes) for optimizer in optimizers.values())
        return self.snapshots.fits(model) and all(known)


_all: weakref.WeakSet[Keeper] = weakref.WeakSet()


class Keeper:
    """Writes the checkpoints of one run, each after the one before it; of several ``processes``, in the first alone."""

    def __init__(self, runs: Runs, blobs: Blobs, run: str, retention: Retention) -> None:
        self._runs = runs
        self._blobs = blobs
        self._run = run
        self._retention = retention
        self.processes = processes.here()
        self._background = Background()
        self._subject: _Subject | None = None
        self._manifest: Manifest | None = None  # of the newest checkpoint
        self._follows: int | None = None
        self._lineage = Lineage()  # what the checkpoint that training goes on from came from
        self._told = time.monotonic()
        self._kept_at = 0  # the step of the newest checkpoint
        self._architecture_said = False
        _all.add(self)

    @staticmethod
    def settle(runs: Runs, run: str) -> None:
        """Return when nobody in this process writes a checkpoint of ``run``: a ``fit`` that failed may still do so."""
        for keeper in list(_all):
            while keeper.busy and (keeper._runs.url, keeper._run) == (runs.url, run):
                time.sleep(0.001)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is still being written."""
        return self._background.busy

    @property
    def best(self) -> str | None:
        """The metric that the run keeps its best checkpoint by."""
        return self._retention.best

    @property
    def compiled(self) -> Any:
        """The serialized arguments of ``compile``, where the model has them; None before :meth:`prepare`."""
        data = None if self._subject is None else self._subject.captured.parts.get(COMPILE)
        return None if data is None else json.loads(data)

    def go_on_from(self, checkpoint: Checkpoint, manifest: Manifest) -> None:
        """Let the next checkpoint follow this one; what it shares with it is not written again."""
        self._lineage = manifest.lineage
        self._manifest, self._follows, self._kept_at = manifest, checkpoint.number, checkpoint.step

    def prepare(self, model: keras.Model, optimizers: Optimizers = NONE) -> tuple[Finding, ...]:
        """Do ahead of a step what would hold up the next checkpoint: all of it the first time, then what is new.

        A model without a config that can be kept is kept without its architecture, which is a finding: its code makes
        it again, and it cannot be published whole. ``optimizers`` are those the model was not compiled with.
        """
        findings: tuple[Finding, ...] = ()
        if not self.processes.writes:
            return findings
        internals.sync_jax(model)
        if self._subject is not None and self._subject.fits(model, optimizers):
            return findings
        try:
            captured = capture(model)
        except (CannotRebuild, UnsafeContent) as error:
            captured = capture(model, architecture=False)
            message = f"its checkpoints go on where this code builds it, and cannot be published whole: {error.what}"
            if not self._architecture_said:
                findings = (Finding("architecture-not-kept", Severity.WARNING, message, model.name),)
            self._architecture_said = True
        found = inventory(nodes_of(model, optimizers))
        here = environment.here(captured.custom_objects)
        self._subject = _Subject(
            captured,
            here,
            origins.lineage(model, self._lineage),
            found,
            Snapshots(found),
            compiled.targets(found),
            {name: variable for name, variable in found.variables.items() if internals.shares(variable)},
        )
        return findings

    def metrics_now(self) -> dict[str, Array]:
        """Copies of what counts within an epoch, by the names of tensors: validation begins it anew."""
        found = None if self._subject is None else self._subject.found
        return {
            name: view(variable).copy()
            for name, variable in (found.variables.items() if found else ())
            if name.startswith("state/compiled/")
        }

    def keep(
        self,
        model: keras.Model,
        standing: Standing,
        value: Mapping[str, Any],
        *,
        reason: Reason,
        curves: Curves,
        metrics: Mapping[str, float],
        finished: bool = False,
        instead: Mapping[str, Array] = NONE,
        optimizers: Optimizers = NONE,
    ) -> tuple[Finding, ...]:
        """Take a checkpoint now and write it in the background; waits for the one before it.

        ``value`` is all that is kept beside the variables, as :mod:`state` packs it; ``instead`` gives values of
        variables as they were a moment ago. Returns what :meth:`prepare` does, raises what went wrong with the one
        before.
        """
        self._background.wait()
        value = self.processes.together(value)
        if not self.processes.writes:
            return ()
        findings = self.prepare(model, optimizers)
        subject = self._subject
        assert subject is not None
        # What counts within an epoch is the sum of what replicas counted, and would be rounded otherwise from there on.
        shares = {} if instead else {name: internals.shares(one) for name, one in subject.replicated.items()}
        packed = state.pack({**value, "optimizers": dict(subject.targets), "shares": shares})
        draft = Checkpoint(
            run=self._run,
            step=standing.step,
            epoch=standing.epoch,
            step_in_epoch=standing.step_in_epoch,
            reason=reason,
            metrics=dict(metrics),
            manifest="",
            size=0,
            new_bytes=0,
            follows=self._follows,
            finished=finished,
            best=self._retention.best,
        )
        job = partial(self._write, subject, subject.snapshots.take(), draft, packed, curves.copy(), dict(instead))
        self._background.submit(job)
        self._told, self._kept_at = time.monotonic(), standing.step
        return findings

    def tell(
        self,
        standing: Standing,
        logs: Mapping[str, float],
        curves: Curves,
        *,
        of: int | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        """Let others see how far the run is: every two seconds at most, and not while something is being written."""
        if not self.processes.writes or self.busy or time.monotonic() - self._told < TELL_EVERY:
            return
        self._told = time.monotonic()
        progress = Progress(
            step=standing.step,
            epoch=standing.epoch,
            follows=self._follows,
            of=of,
            steps_per_epoch=steps_per_epoch,
            logs=dict(logs),
            curves=msgspec.json.decode(curves.since(self._kept_at).to_json()),
        )
        self._background.submit(partial(self._runs.put_progress, self._run, progress))

    def wait_together(self) -> None:
        """Return, in each of several processes, when the newest checkpoint is durable: where one ends, all do."""
        self._background.wait()
        self.processes.wait()

    def raise_if_failed(self) -> None:
        """Raise what went wrong in the background, once."""
        self._background.raise_if_failed()

    def wait(self) -> None:
        """Return when the newest checkpoint is durable; raises what went wrong with it."""
        self._background.wait()

    def close(self) -> None:
        """Wait, and give the memory back."""
        try:
            self._background.close()
        finally:
            self._subject = None

    # --- in the background

    def _write(
        self,
        subject: _Subject,
        snapshot: Snapshot,
        draft: Checkpoint,
        packed: state.Packed,
        curves: Curves,
        instead: dict[str, Array],
    ) -> None:
        try:
            checkpoint, manifest = self._written(subject, snapshot, draft, packed, curves, instead)
        except BaseException:
            # What the next snapshot finds unchanged is so since this one, which is nowhere: begin anew.
            self._subject = None
            raise
        finally:
            snapshot.release()
        self._manifest, self._follows = manifest, checkpoint.number
        self._runs.prune(self._run, self._retention)

    def _written(
        self,
        subject: _Subject,
        snapshot: Snapshot,
        draft: Checkpoint,
        packed: state.Packed,
        curves: Curves,
        instead: dict[str, Array],
    ) -> tuple[Checkpoint, Manifest]:
        before = {} if self._manifest is None else {tensor.name: tensor for tensor in self._manifest.tensors}
        same = snapshot.same & before.keys() - instead.keys()
        sources = [source for source in snapshot.sources if source.name not in same and source.name not in instead]
        sources += [array_source(name, values) for name, values in instead.items()]
        sources += [array_source(f"{TRAINING}{name}", values) for name, values in packed.arrays.items()]
        known = {tensor.digest: tensor.pieces for tensor in before.values()}
        started = time.monotonic()
        written = self._blobs.write(sources, known=known)
        self._blobs.refresh({piece.blob for name in same for piece in before[name].pieces})
        snapshot.release()  # training may have the memory while the rest is written
        created = dict(written.created)
        parts = {**subject.captured.parts, STATE: packed.document, CURVES: curves.to_json()}
        if subject.snapshots.shards is not None:
            parts[shards.PART] = subject.snapshots.shards
        kept = [self._put_part(name, data, created) for name, data in sorted(parts.items())]
        manifest = _manifest(draft, subject, tuple(kept), (*(before[name] for name in sorted(same)), *written.tensors))
        whole = self._put_part("", encode(manifest), created)
        sizes = {whole.digest: whole.size} | {part.digest: part.size for part in kept}
        draft = replace_fields(
            draft,
            manifest=whole.digest,
            size=manifest.size + whole.size,
            new_bytes=written.new_bytes + sum(size for digest, size in sizes.items() if digest in created),
            created_blobs=created,
        )
        return self._runs.add(draft, fresh_since=started), manifest

    def _put_part(self, name: str, data: Buffer, created: dict[str, float]) -> Part:
        digest, when = self._blobs.put_new(data)
        if when is not None:
            created[digest] = when
        return Part(name=name, digest=digest, size=len(data), media=media_of(name))


def nodes_of(model: keras.Model, optimizers: Optimizers) -> list[tuple[str, internals.Node]]:
    """All that is kept of a model, and of ``optimizers`` that it was not compiled with."""
    nodes = internals.walk(model)
    there = {id(node) for _, node in nodes}
    others = ((f"{OTHERS}/{name}", optimizer) for name, optimizer in optimizers.items())
    return [*nodes, *((path, optimizer) for path, optimizer in others if id(optimizer) not in there)]


def _manifest(draft: Checkpoint, subject: _Subject, parts: tuple[Part, ...], tensors: tuple[Tensor, ...]) -> Manifest:
    captured = subject.captured
    return Manifest(
        model=draft.run,
        version=version_of(draft.step),
        created=saving.now(),
        writer=saving.WRITER,
        kind=captured.kind,
        parameters=captured.parameters,
        trainable_parameters=captured.trainable_parameters,
        metrics={name: value for name, value in draft.metrics.items() if math.isfinite(value)},
        environment=subject.environment,
        lineage=subject.lineage,
        signature=captured.signature,
        custom_objects=captured.custom_objects,
        parts=parts,
        tensors=tensors,
    )
