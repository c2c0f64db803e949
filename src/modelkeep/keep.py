"""The front door: an opened store, and everything one can do with it."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkeep.catalog import VersionRecord
from modelkeep.errors import (
    FormatTooNew,
    IntegrityError,
    InvalidRef,
    LedgerDamaged,
    NotFound,
    RunNotFound,
    UnsafeContent,
    UsageError,
)
from modelkeep.files import keras_at_hand
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.manifest import json_value
from modelkeep.refs import ByAlias, Exact, Newest, Ref, Step, model_name, parse_ref
from modelkeep.registry import GRACE, Bump, ModelSummary, Moment, Registry, largest_share
from modelkeep.storage import marker, open_store
from modelkeep.storage.blobs import Verify
from modelkeep.storage.protocol import ObjectStore, Progress
from modelkeep.version import Version

if TYPE_CHECKING:
    import keras

    from modelkeep.checkpoint import Checkpoint
    from modelkeep.curves import Curves
    from modelkeep.entry import Entry, Policy
    from modelkeep.gates import Gate
    from modelkeep.gc import Swept
    from modelkeep.live.averaging import Averaged
    from modelkeep.live.correspondence import Match
    from modelkeep.live.loading import Loaded
    from modelkeep.live.opening import Opened
    from modelkeep.live.training.checkpoints import Checkpoints
    from modelkeep.live.transfer import OnMismatch, Transfer
    from modelkeep.manifest import Lineage, Manifest, Piece
    from modelkeep.pipeline import Pipeline
    from modelkeep.provenance.signing import Signed
    from modelkeep.report import Diff, Finding, Report
    from modelkeep.runs import Pruned, Run, Runs

CustomObjects = Mapping[str, Any] | Iterable[Any]
DEFAULT_STORE = "models"
STORE_VARIABLE = "MODELKEEP_STORE"
_CURVES = "lineage/curves.json"  # the part of a version that was published from a run
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Exported:
    """A version in another form: where it lies, and what its replay showed."""

    path: Path
    form: str
    report: Report


def open(
    store: str | os.PathLike[str] | ObjectStore | None = None,
    *,
    actor: str | None = None,
    progress: Progress | None = None,
) -> Keep:
    """Open a store: a folder, a URL, or an object store of your own.

    Without ``store``: ``$MODELKEEP_STORE``, else ``./models``. A folder that does not exist yet, or is
    empty, becomes a store with the first write; until then reading from it raises StoreNotFound. ``actor``
    is who the ledger names (default ``user@host``); ``progress(what, done, total)`` is called during long
    work. Raises UsageError for a scheme that nobody implements.
    """
    if store is None:
        store = os.environ.get(STORE_VARIABLE) or DEFAULT_STORE
    place = open_store(store) if isinstance(store, str | os.PathLike) else store
    return Keep(place, actor=actor, progress=progress)


class Keep:
    """An opened store; make one with :func:`modelkeep.open`. Safe to use from many threads and processes at once.

    Whatever a method raises, the store is as it was before.
    """

    def __init__(self, store: ObjectStore, *, actor: str | None = None, progress: Progress | None = None) -> None:
        self.store = store
        self._registry = Registry(store, actor=actor, guard=_guard)
        self._progress = progress

    def __repr__(self) -> str:
        return f"Keep({self.store.url!r})"

    # --- putting in

    def save(
        self,
        model: keras.Model | Opened,
        name: str,
        *,
        version: str | None = None,
        bump: Bump | None = None,
        metrics: Mapping[str, Any] = _NOTHING,
        metadata: Mapping[str, Any] = _NOTHING,
        tags: Sequence[str] = (),
        note: str | None = None,
        assets: Mapping[str, Any] = _NOTHING,
        pipeline: Pipeline | None = None,
        golden: Any = None,
        gates: Sequence[Gate] = (),
        parent: str | None = None,
        data_digest: str | None = None,
        source: Opened | None = None,
        architecture: bool = True,
        allow_lambda: bool = False,
        allow_non_finite: Sequence[str] = (),
        check: bool = True,
        reason: str | None = None,
    ) -> Version:
        """Publish a trained model as a version, whole, after it has come back from the store and answered the same.

        A file that ``mk.load`` opened may stand in its place; where it holds no Keras model, the version is a servable
        one: the file itself, with what its engine answers.

        The number is ``version``, or the newest one bumped (``minor`` unless told otherwise; the first is
        1.0.0). ``golden`` are example inputs: of the network, or raw ones of the ``pipeline``; without them a
        few are made up from the model's signature. ``assets`` are values, or paths of files; a pickled Keras
        tokenizer is read as data. ``gates`` are conditions to meet, expressions or functions of the loaded model.
        ``parent`` is the ref it was trained on from, ``source`` the file it was opened from (what ``mk.load``
        gave); the lineage tells of both, and of what was put into the model in memory: transfers, an average, the
        run that trained it. ``architecture=False`` keeps weights alone; ``allow_lambda`` and
        ``allow_non_finite`` (names of weights) let pass what is refused otherwise; ``check=False`` skips the
        rebuilding.

        Raises GateRefused, VersionExists, CannotRebuild, NotFaithful, UnsafeContent, UsageError, StorageError.
        """
        with keras_at_hand():
            from modelkeep.live import saving
            from modelkeep.live.opening import Opened

        name = model_name(name)
        source = model if isinstance(model, Opened) else source
        network = model.network if isinstance(model, Opened) else model
        known, files = self._trained(network)
        facts = saving.Facts(
            metrics=_values("metrics", metrics),
            metadata=_values("metadata", metadata),
            tags=_tags(tags),
            note=note,
            assets=_assets(assets),
            pipeline=pipeline,
            golden=golden,
            lineage=self._lineage(parent, data_digest, source),
            files=files,
            found=() if source is None else source.findings,
        )
        terms = saving.Terms(
            architecture=architecture,
            allow_lambda=allow_lambda,
            allow_non_finite=allow_non_finite,
            check=check,
            gates=gates,
        )
        how = saving.Publishing(
            version=version,
            bump=bump,
            others=partial(self._values_of_other, name, parent),
            known={**known, **self._known_tensors(name, parent)},
            reason=reason,
            progress=self._progress,
        )
        marker.ensure(self.store)
        if isinstance(model, Opened) and network is None:
            record = saving.save_servable(self._registry, model, name, facts, terms, **how)
        else:
            record = saving.save(self._registry, network, name, facts, terms, **how)
        return self._registry.version(name, record)

    def add(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        architecture: str | os.PathLike[str] | keras.Model | None = None,
        custom_objects: CustomObjects | None = None,
        trust: Sequence[str] = (),
        skip: Sequence[str] = (),
        names: Mapping[str, str] | None = None,
        allow: Sequence[str] = (),
        limits: Limits = DEFAULT,
        **options: Any,
    ) -> Version:
        """Publish a file or folder as a version: a bundle, or a model file of any form that ``mk.load`` opens.

        It is scanned first. A bundle is checked to the last byte and keeps its name, number and digest; it takes no
        other arguments than ``allow``, ``limits`` and ``reason``. Any other file needs a ``name`` and takes whatever
        :meth:`save` takes. Weights alone need an ``architecture``: a ref, a file or a model.
        The rest is as for :func:`modelkeep.load`.

        Raises what :func:`modelkeep.load` and :meth:`save` raise.
        """
        path = Path(path)
        if _is_bundle(path):
            from modelkeep.safety.scanning import scan

            scan(path, limits=limits, allow=allow).raise_for_failures()
            beside = {
                "architecture": architecture,
                "custom_objects": custom_objects,
                "trust": trust,
                "skip": skip,
                "names": names,
            }
            return self._add_bundle(path, name, {**beside, **options})
        if name is None:
            raise UsageError(
                f"{path.name} does not say what the model is called", hint="give a name: keep.add(path, name)"
            )
        with keras_at_hand():
            from modelkeep.live import opening

        opened = opening.open_file(
            path,
            architecture=self._architecture(architecture),
            custom_objects=custom_objects,
            trust=trust,
            skip=skip,
            names=names,
            allow=allow,
            limits=limits,
        )
        return self.save(opened, name, **options)

    def _architecture(self, given: Any) -> Any:
        """A file or a model as it is; a ref as the model it names."""
        if isinstance(given, str) and not Path(given).exists():
            return self.load(given, compile=True).model
        return given

    def _add_bundle(self, path: Path, name: str | None, options: dict[str, Any]) -> Version:
        from modelkeep.formats import bundle

        reason = options.pop("reason", None)
        given = [key for key, value in {"name": name, **options}.items() if not _is_empty(value)]
        if given:
            raise UsageError(
                f"a bundle keeps what its manifest says, so it takes no {', '.join(given)}",
                hint="add it as it is, then annotate or promote it",
            )
        marker.ensure(self.store)
        with bundle.read(path, progress=self._progress) as opened:
            manifest = opened.manifest
            self._registry.next_version(manifest.model, version=manifest.version)
            added = bundle.import_into(self._registry.blobs, opened, progress=self._progress)
        record = self._registry.publish(
            manifest.model, lambda _: manifest, version=manifest.version, new_bytes=added, reason=reason
        )
        return self._registry.version(manifest.model, record)

    # --- training

    def checkpoints(
        self,
        run: str,
        *,
        every_steps: int | None = None,
        every_epochs: int | None = None,
        every_seconds: float | None = None,
        keep_last: int | None = 3,
        keep_best: str | None = None,
        keep_every: int | None = None,
        fast_forward: bool = False,
        tensorboard: str | os.PathLike[str] | None = None,
    ) -> Checkpoints:
        """The checkpoints of a training run, which goes on where it stopped: ``keep.checkpoints("run").fit(model, …)``.

        One is taken every so many steps, epochs or seconds: after each epoch where nothing is said. Of them stay the
        newest ``keep_last`` (None: all), the best by a metric (``val_loss``; ``max:score`` where the name does not tell
        which is better), and those whose step, or epoch, is a multiple of ``keep_every``. ``fast_forward`` lets data
        whose position cannot be kept, such as a generator's, be read again from its beginning as far as it was.
        ``tensorboard`` is a folder for event files.

        Raises UsageError, InvalidRef, MissingExtra.
        """
        from modelkeep.refs import run_name
        from modelkeep.retention import Retention

        run = run_name(run)
        retention = Retention(last=keep_last, best=keep_best, every=keep_every)
        with keras_at_hand():
            from modelkeep.live.training.checkpoints import Checkpoints
            from modelkeep.live.training.schedule import Schedule

        schedule = Schedule(every_steps, every_epochs, every_seconds)
        marker.ensure(self.store)
        return Checkpoints(
            self._runs,
            self._registry.blobs,
            run,
            schedule=schedule,
            retention=retention,
            fast_forward=fast_forward,
            tensorboard=None if tensorboard is None else os.fspath(tensorboard),
        )

    def average(
        self,
        refs: Sequence[str | os.PathLike[str]],
        weights: Sequence[float] | None = None,
        *,
        ema: float | None = None,
        soup: Callable[[keras.Model], float] | None = None,
        recalibrate: Iterable[Any] | None = None,
        name: str | None = None,
        custom_objects: CustomObjects | None = None,
        trust: Sequence[str] = (),
        signature: bool | str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Averaged:
        """Average models of one architecture, weight by weight: versions, checkpoints (``run@1200``) or files.

        All count alike, or by ``weights``, of which only the proportions count; or as an exponential moving average
        with the decay ``ema``, the last being the latest; or as a greedy ``soup``, a metric of a model, more being
        better: tried from the best down, one stays where the average gets no worse. What was averaged, decided and
        not averaged stands in the ``report`` of what this returns, beside the ``model``, which is compiled with an
        optimizer that has not begun, and the assets, pipeline and golden inputs that the models share. ``recalibrate``
        are batches of data, read more than once: statistics of BatchNormalization layers are computed from them.
        ``custom_objects``, ``trust`` and ``signature`` are as for :meth:`load`.

        With a ``name`` the model is published, with what :meth:`save` takes as ``options``; in any case the lineage
        of what is saved of it names its parents. Raises NotFaithful where the weights differ in name, shape or
        dtype, UsageError, CannotLoad, and what :meth:`load`, :func:`modelkeep.load` and :meth:`save` raise.
        """
        with keras_at_hand():
            from modelkeep.live import averaging, ingredients

        if name is None and options:
            raise UsageError(
                f"{', '.join(options)} are for a version that is published", hint="give a name, or save the model"
            )
        if isinstance(refs, str | os.PathLike):
            raise UsageError("refs are a list", found=repr(refs), hint=f"write [{str(refs)!r}, …]")
        kept = partial(self._vouched, signature=signature)
        with ingredients.gathered(refs, kept, self._registry.blobs, custom_objects, trust) as found:
            averaged = averaging.average(found, weights, ema=ema, soup=soup, batches=recalibrate, trust=trust)
        if name is None:
            return averaged
        shared = {"assets": averaged.assets, "pipeline": averaged.pipeline, "golden": averaged.golden}
        given = {key: value for key, value in options.items() if key not in shared or not _is_empty(value)}
        return replace(averaged, version=self.save(averaged.model, name, **{**shared, **given}))

    def transfer(
        self,
        source: str | os.PathLike[str],
        into: keras.Model,
        *,
        rename: Mapping[str, str] = _NOTHING,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        freeze: bool = False,
        on_mismatch: OnMismatch = "refuse",
        match: Match = "auto",
        vocabulary: Any = None,
        dry_run: bool = False,
        signature: bool | str | os.PathLike[str] | None = None,
        allow: Sequence[str] = (),
        limits: Limits = DEFAULT,
    ) -> Transfer:
        """Move weights into another network, which need not be the one they are of: all that fits, with an account.

        ``source`` is a ref, a checkpoint (``run@1200``), or a file or folder of any form that holds weights; nothing of
        it is built, a file is scanned first, and every tensor of a version is checked. Layers find each other by path,
        by name, or by structure; ``match`` keeps it to one of these. Patterns are regular expressions of one or several
        whole names (``block_1.*``, ``encoder/dense``): ``rename`` makes the source's names those of the model, each
        rule on what the one before made; ``include`` and ``exclude`` say which weights of the model take part.

        Where shapes differ, nothing is changed unless ``on_mismatch`` says ``skip`` (that layer is left), ``slice``
        (the leading block of a larger source) or ``pad`` (a smaller source as the leading block). ``vocabulary``, an
        old and a new tokenizer (``(old, new)``; by pattern where there are several embeddings; the new one alone where
        the source keeps its own), lets rows follow their tokens. ``freeze`` makes what was copied whole untrainable.
        ``dry_run`` only tells. What is saved of the model names the source in its lineage. ``signature`` is as for
        :meth:`load`, ``allow`` and ``limits`` as for :func:`modelkeep.load`.

        Raises NotFaithful, with the report, where a pair does not fit or nothing would be copied; UsageError for a
        pattern that names nothing; NotFound's kin, IntegrityError, UnsafeContent, CannotLoad.
        """
        with keras_at_hand():
            from modelkeep.live import transfer

        terms = transfer.Terms(
            rename=rename,
            include=include,
            exclude=exclude,
            freeze=freeze,
            on_mismatch=on_mismatch,
            match=match,
            vocabulary=vocabulary,
            dry_run=dry_run,
        )
        if _is_path(source):
            return transfer.from_file(Path(source), into, terms, allow=allow, limits=limits)
        checkpoint = self.checkpoint(os.fspath(source))
        if checkpoint is None:
            version = self.resolve(os.fspath(source))
            self._demand_signature(version, signature, checked=True)
            found, name, digest = version.manifest, version.ref, version.digest
        else:
            self._demand_no_signature(checkpoint, signature)
            found, name, digest = self._model_of(checkpoint), checkpoint.ref, checkpoint.manifest
        return transfer.from_version(found, self._registry.blobs, into, terms, name=name, digest=digest)

    def runs(self) -> list[Run]:
        """Every training run, by name."""
        marker.read(self.store)
        found = []
        for name in self._runs.names():
            with suppress(RunNotFound):  # deleted since it was listed
                found.append(self._runs.run(name))
        return found

    def run(self, name: str) -> Run:
        """A training run: its checkpoints, the newest and the best of them, its curves, how far it is.

        Raises RunNotFound, InvalidRef.
        """
        marker.read(self.store)
        return self._runs.run(name)

    def publish(
        self,
        ref: str,
        name: str,
        *,
        into: keras.Model | None = None,
        custom_objects: CustomObjects | None = None,
        trust: Sequence[str] = (),
        metrics: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Version:
        """Make a checkpoint (``sentiment-run@1200``, ``@best``, ``@last``) a version; no tensor is written anew.

        It is loaded as by :meth:`load` and published as by :meth:`save`, which ``options`` are for. ``metrics`` are the
        checkpoint's unless given; lineage names the run, and its curves go with the version. ``into`` takes a
        checkpoint that was kept without its architecture: a model of the same code.

        Raises RunNotFound, CheckpointNotFound, and what :meth:`load` and :meth:`save` raise.
        """
        checkpoint = self.checkpoint(ref)
        if checkpoint is None:
            raise UsageError("not a checkpoint", found=repr(ref), expected="run@step, such as sentiment-run@1200")
        if metrics is None:
            metrics = {name: value for name, value in checkpoint.metrics.items() if math.isfinite(value)}
        model = self.load(checkpoint.ref, into=into, custom_objects=custom_objects, trust=trust, signature=False).model
        return self.save(model, name, metrics=metrics, **options)

    def prune(
        self,
        run: str,
        *,
        keep_last: int | None = None,
        keep_best: str | None = None,
        keep_every: int | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """Delete the checkpoints of a run but the newest ``keep_last`` (1), the best, and those of every so many steps.

        Says as :meth:`checkpoints` does what stays; what a deleted one alone needed goes at once, except what anybody
        else came to rely on, which is for :meth:`gc`. Raises RunNotFound, UsageError, StorageError.
        """
        from modelkeep.retention import Retention

        if (keep_last, keep_best, keep_every) == (None, None, None):
            raise UsageError("say which checkpoints stay", expected="keep_last, keep_best or keep_every")
        marker.read(self.store)
        retention = Retention(last=1 if keep_last is None else keep_last, best=keep_best, every=keep_every)
        return self._runs.prune(run, retention, dry_run=dry_run)

    def delete_run(self, run: str, step: int | None = None, *, dry_run: bool = False) -> Pruned:
        """Delete a run with all its checkpoints, or those of one step; versions that were published of it stay.

        Raises RunNotFound, CheckpointNotFound, StorageError.
        """
        marker.read(self.store)
        return self._runs.delete(run, step, dry_run=dry_run)

    @property
    def _runs(self) -> Runs:
        """New each time: one that trains tells by what it saw whether another does so, too."""
        from modelkeep.runs import Runs

        return Runs(self.store, self._registry.blobs)

    def checkpoint(self, ref: str) -> Checkpoint | None:
        """The checkpoint that a ref names; None where it names a version. Raises RunNotFound, CheckpointNotFound."""
        marker.read(self.store)
        match parse_ref(ref):
            case Ref(run, Step(step)):
                return self._runs.find(run, step)
            case Ref(name, ByAlias("last" | "best" as at)) if self._is_run(name):
                self._refuse_two(name, at)
                return self._runs.find(name, "last" if at == "last" else "best")
        return None

    def _is_run(self, name: str) -> bool:
        try:
            return bool(self._runs.numbers(name))
        except InvalidRef:
            return False

    def _refuse_two(self, name: str, alias: str) -> None:
        try:
            version = self._registry.resolve(f"{name}@{alias}").record.version
        except NotFound:
            return
        raise UsageError(
            f"{name}@{alias} is an alias of a model and a checkpoint of a run",
            hint=f"write {name}:{version}, or the run's name and a step",
        )

    # --- taking out

    def load(
        self,
        ref: str,
        *,
        into: keras.Model | None = None,
        custom_objects: CustomObjects | None = None,
        trust: Sequence[str] = (),
        compile: bool = True,
        verify: Verify = "eager",
        signature: bool | str | os.PathLike[str] | None = None,
        at: Moment | None = None,
    ) -> Loaded:
        """Bring a version, or a checkpoint of a run (``run@1200``), to life, every digest checked on the way in.

        ``custom_objects`` (a mapping, or classes and functions) and ``trust`` (packages to import from)
        give what is not Keras' own; what was edited since the save is a warning, and one of the ``findings``.
        ``into`` fills a model of yours instead of rebuilding one.
        ``verify="lazy"`` checks in the background and raises at the first use after damage is known; None does
        not check. ``at`` resolves the ref as of a time. ``signature`` is as for :meth:`verify`; without it, a version
        that is signed must be signed by somebody whom the file trusts that ``$MODELKEEP_TRUSTED_KEYS`` names, if it
        is set, and every version where that file says so; False asks for nothing.

        Raises NotFound's kin, IntegrityError, MissingCustomObjects, CannotLoad, UnsafeContent.
        """
        with keras_at_hand():
            from modelkeep.live import loading, origins

        checkpoint = self.checkpoint(ref)
        if checkpoint is None:
            version = self.resolve(ref, at=at)
            self._demand_signature(version, signature, checked=verify is not None)
            manifest = version.manifest
        else:
            self._demand_no_signature(checkpoint, signature)
            manifest = self._model_of(checkpoint)
        blobs = self._registry.blobs
        if into is not None:
            loaded = loading.load_into(into, manifest, blobs, verify=verify, progress=self._progress)
        else:
            loaded = loading.load(
                manifest,
                blobs,
                custom_objects=custom_objects,
                trust=trust,
                compile=compile,
                verify=verify,
                progress=self._progress,
            )
        if checkpoint is not None:
            origins.adopt(loaded.model, manifest.lineage, checkpoint.ref)
        for finding in loaded.findings:
            warnings.warn(f"{_named(manifest, checkpoint)}: {finding.message}", stacklevel=2)
        return loaded

    def export(
        self,
        ref: str,
        form: str = "bundle",
        *,
        to: str | os.PathLike[str],
        overwrite: bool = False,
        custom_objects: CustomObjects | None = None,
        trust: Sequence[str] = (),
        **options: Any,
    ) -> Exported:
        """Write a version in another form: ``bundle``, which :meth:`add` takes into any store, or one that others read.

        ``mk.save`` names the forms. A bundle of one version always has the same bytes. Every other form is opened
        again and replayed against the golden examples before it gets its name; the report tells the largest
        difference of each output. ``custom_objects`` and ``trust`` are as for :meth:`load`, ``options`` those of the
        form.

        Raises AlreadyExists unless ``overwrite``, NotFaithful where the form does not answer as the version does,
        IntegrityError where a blob is damaged, UsageError for another form, MissingExtra, StorageError.
        """
        from modelkeep.report import Report

        version, to = self.resolve(ref), Path(to)
        if form == "bundle":
            from modelkeep.formats import bundle

            blobs = self._registry.blobs
            bundle.write(blobs.get(version.digest), blobs, to, overwrite=overwrite, progress=self._progress)
            return Exported(to, form, Report(f"{version.ref} as a bundle"))
        with keras_at_hand():
            from modelkeep.live import exporting, servable

        if version.kind == "servable":
            servable.write(version.manifest, self._registry.blobs, form, to, overwrite=overwrite)
            return Exported(to, form, Report(f"{version.ref} as it was taken in"))
        loaded = self.load(version.ref, custom_objects=custom_objects, trust=trust)
        report = exporting.export(
            loaded.model,
            form,
            to,
            signature=loaded.manifest.signature,
            examples=loaded.examples,
            overwrite=overwrite,
            **options,
        )
        return Exported(to, form, report)

    # --- asking

    def resolve(self, ref: str, *, at: Moment | None = None) -> Version:
        """The version that a ref selects, now or ``at`` a time (a bare date means its end, in UTC).

        Raises ModelNotFound, VersionNotFound, AliasNotFound, InvalidRef.
        """
        marker.read(self.store)
        found = self._registry.resolve(ref, at=at)
        return self._registry.version(found.model, found.record, found.targets)

    def manifest(self, ref: str, *, at: Moment | None = None) -> Manifest:
        """What a version (``at`` a time), or a checkpoint, says of itself, checked to be its own.

        Raises NotFound's kin, IntegrityError, FormatTooNew.
        """
        checkpoint = self.checkpoint(ref)
        return self.resolve(ref, at=at).manifest if checkpoint is None else self._runs.manifest(checkpoint)

    def curves(self, ref: str, *, at: Moment | None = None) -> Curves:
        """What the training that a version was published from, or a checkpoint's, had logged by then; else nothing.

        Raises NotFound's kin, IntegrityError, FormatTooNew.
        """
        from modelkeep.curves import Curves
        from modelkeep.runs import CURVES

        part = next((part for part in self.manifest(ref, at=at).parts if part.name in (CURVES, _CURVES)), None)
        return Curves() if part is None else Curves.from_json(self._registry.blobs.get(part.digest))

    def models(self) -> list[ModelSummary]:
        """Every model, by name."""
        marker.read(self.store)
        return self._registry.models()

    def versions(self, name: str) -> list[Version]:
        """Every version of a model, lowest first. Raises ModelNotFound."""
        marker.read(self.store)
        return [self._registry.version(name, record) for record in self._registry.versions(model_name(name))]

    def history(self, name: str) -> list[Entry]:
        """What happened to a model, or to an alias (``sentiment@production``), oldest first, the chain checked.

        Raises UsageError for a ref of one version, ModelNotFound, AliasNotFound, LedgerDamaged.
        """
        marker.read(self.store)
        match parse_ref(name):
            case Ref(model, Newest()):
                return self._registry.history(model)
            case Ref(model, ByAlias(alias)):
                return self._registry.history(model, alias)
        raise UsageError("a history is of a model or an alias", found=repr(name), hint="leave the version out")

    def search(self, expression: str, name: str | None = None) -> list[Version]:
        """The versions for which an expression is true: ``accuracy > 0.9 and "nightly" in tags``.

        The language is that of gates; see the guide. Raises UsageError, pointing at the place.
        """
        from modelkeep.expressions import select, values_of

        marker.read(self.store)
        versions = [self._registry.version(model, record) for model, record in self._registry.records(name)]
        return select(expression, versions, values_of)

    def diff(self, old: str, new: str) -> Diff:
        """What differs between two versions, or checkpoints: layers, weights, metrics, metadata, assets, environment.

        How far weights moved is told where NumPy is installed; it is not needed otherwise.
        """
        from modelkeep.diff import diff

        (before, one), (after, other) = self._side(old), self._side(new)
        found = diff(one, other, self._registry.blobs.get, distance=self._distance())
        return replace(found, old=before, new=after)

    def _side(self, ref: str) -> tuple[str, Manifest]:
        """What a diff compares, and its name."""
        checkpoint = self.checkpoint(ref)
        manifest = self.resolve(ref).manifest if checkpoint is None else self._model_of(checkpoint)
        return _named(manifest, checkpoint), manifest

    def verify(
        self,
        ref: str,
        *,
        live: bool = False,
        signature: bool | str | os.PathLike[str] = False,
        custom_objects: CustomObjects | None = None,
        trust: Sequence[str] = (),
    ) -> Report:
        """Check a version, or a checkpoint: the ledger's chain, the manifest, every digest and size, the environment.

        With ``signature`` somebody must have signed it who is trusted: a file or folder of public keys says who, or
        with True the file that ``$MODELKEEP_TRUSTED_KEYS`` names, or the policies of the model.
        With ``live`` it is also rebuilt, its weights compared to the bit and its golden examples replayed.
        Damage is in the report; ``raise_for_failures()`` makes an error of it.
        """
        from modelkeep import environment, verify

        checkpoint = self.checkpoint(ref)
        if checkpoint is not None:
            self._demand_no_signature(checkpoint, signature)
            return self._verify_checkpoint(checkpoint, live=live, custom_objects=custom_objects, trust=trust)
        version = self.resolve(ref)
        report = verify.verify(
            f"verify {version.ref}",
            version.digest,
            self._registry.blobs,
            ledger=[self._chain(version)],
            attachments=version.attachments,
            environment=lambda saved: environment.compare(saved, environment.here(packages=saved.packages)),
            progress=self._progress,
        )
        if signature and report.ok:
            report = report.extended(self._signatures(version, None if isinstance(signature, bool) else signature))
        if live and report.ok:
            with keras_at_hand():
                from modelkeep.live import verifying

            live_findings = verifying.verify(
                version.manifest, self._registry.blobs, custom_objects=custom_objects, trust=trust
            )
            return report.extended(live_findings)
        return report

    def _verify_checkpoint(
        self, checkpoint: Checkpoint, *, live: bool, custom_objects: CustomObjects | None, trust: Sequence[str]
    ) -> Report:
        from modelkeep import environment, verify
        from modelkeep.report import Finding, Severity

        report = verify.verify(
            f"verify {checkpoint.ref}",
            checkpoint.manifest,
            self._registry.blobs,
            ledger=[Finding("checkpoint", Severity.OK, f"entry {checkpoint.number} is whole", checkpoint.run)],
            environment=lambda saved: environment.compare(saved, environment.here(packages=saved.packages)),
            progress=self._progress,
        )
        if not live or not report.ok:
            return report
        with keras_at_hand():
            from modelkeep.live import verifying

        manifest = self._model_of(checkpoint)
        return report.extended(
            verifying.verify(manifest, self._registry.blobs, custom_objects=custom_objects, trust=trust)
        )

    def _model_of(self, checkpoint: Checkpoint) -> Manifest:
        from modelkeep.runs import model_of

        return model_of(self._runs.manifest(checkpoint))

    def _signatures(self, version: Version, trusted: str | os.PathLike[str] | None) -> list[Finding]:
        from modelkeep.provenance import policy, signing

        findings = signing.check_version(
            version.manifest,
            version.digest,
            version.attachments,
            self._registry.blobs,
            policy.trusted(self._registry, version.model, None if trusted is None else Path(trusted)),
            now=self._registry.ledgers.now(),
        )
        return [*findings, signing.require(findings)]

    def _demand_signature(
        self, version: Version, asked: bool | str | os.PathLike[str] | None, *, checked: bool
    ) -> None:
        """Raise UnsafeContent unless whoever is trusted vouches for a version, as far as that is asked for."""
        from modelkeep.provenance import trust
        from modelkeep.report import Report

        listed = os.environ.get(trust.VARIABLE)
        if asked is False or (asked is None and listed is None):
            return
        findings = self._signatures(version, None if isinstance(asked, bool | None) else asked)
        unsigned = all(finding.check == "signed" for finding in findings)
        if unsigned and asked is None and not trust.demands(Path(str(listed))):
            return
        if not checked:
            raise UsageError("a signature is of bytes that are checked", found="verify=None", expected="eager or lazy")
        Report(f"{version.ref} is not vouched for", tuple(findings), UnsafeContent).raise_for_failures()

    def _demand_no_signature(self, checkpoint: Checkpoint, asked: bool | str | os.PathLike[str] | None) -> None:
        """Raise UnsafeContent where everything must be signed: checkpoints are never."""
        from modelkeep.provenance import trust

        listed = os.environ.get(trust.VARIABLE)
        if asked is False or (asked is None and (listed is None or not trust.demands(Path(listed)))):
            return
        raise UnsafeContent(
            f"{checkpoint.ref} is a checkpoint, which nobody signs",
            hint=f"make it a version: modelkeep publish {checkpoint.ref} NAME; then sign that",
        )

    def _chain(self, version: Version) -> Finding:
        """Whether every entry of a ledger fits all before it, and they name this very version."""
        from modelkeep.entry import Publish
        from modelkeep.report import Finding, Severity

        try:
            entries = self._registry.history(version.model)
        except LedgerDamaged as damage:
            return Finding("ledger", Severity.FAILURE, str(damage), version.model)
        published = [entry.action for entry in entries if isinstance(entry.action, Publish)]
        if (str(version.version), version.digest) not in {(action.version, action.digest) for action in published}:
            message = f"no entry publishes {version.digest} as {version.ref}: a snapshot is wrong; run: modelkeep fsck"
            return Finding("ledger", Severity.FAILURE, message, version.model)
        return Finding("ledger", Severity.OK, f"its {len(entries)} entries fit together", version.model)

    # --- vouching

    def sign(
        self,
        ref: str,
        *,
        key: str | os.PathLike[str] | None = None,
        password: str | None = None,
        keyless: bool = False,
        token: str | None = None,
        signature: str | os.PathLike[str] | None = None,
        reason: str | None = None,
    ) -> Signed:
        """Sign a version: with a private ``key`` (a PEM file), or ``keyless`` as whoever Sigstore knows one to be.

        ``password`` opens the key, ``token`` is an OpenID Connect token; ``signature`` is the file of a signature of
        this version that was made elsewhere. Each key has one signature on a version, beside those of others.
        Raises UsageError, NotFound's kin, UnsafeContent for a signature of something else, MissingExtra, StorageError.
        """
        from modelkeep.provenance import signing

        if [key is not None, keyless, signature is not None].count(True) != 1:
            raise UsageError("a version is signed in one way", expected="one of key, keyless, signature")
        version = self.resolve(ref)
        if signature is not None:
            return signing.adopt(self._registry, version, signing.read_signature(Path(signature)), reason=reason)
        signer = signing.signer(None if key is None else Path(key), password=password, token=token)
        return signing.sign(self._registry, version, signer, reason=reason)

    def policy(
        self,
        name: str,
        *,
        keys: str | os.PathLike[str] | None = None,
        required: int = 1,
        remove: bool = False,
        reason: str | None = None,
    ) -> dict[str, Policy]:
        """What the aliases of a model demand, by pattern: signatures by so many of these keys.

        With ``keys``, a file or folder of public ones, ``name`` (``sentiment@production``, ``sentiment@*``) demands
        from now on that ``required`` of them have signed what it is pointed at; with ``remove`` no longer. Both
        are entries of the ledger. Raises UsageError, AliasNotFound, ModelNotFound, MissingExtra.
        """
        from modelkeep.provenance import policy

        model, _, aliases = name.partition("@")
        if keys is not None or remove:
            if not aliases or (keys is not None and remove):
                raise UsageError("a policy is of an alias, and set or removed", expected=f"such as {model}@production")
            marker.ensure(self.store)
            changed = policy.none(aliases) if keys is None else policy.of_keys(aliases, Path(keys), required)
            self._registry.set_policy(model, changed, reason=reason)
        marker.read(self.store)
        return policy.of(self._registry, model, aliases or None)

    def policy_report(self, alias: str, version: str | None = None) -> Report:
        """Whether a version, or all that an alias points at, meets the policies of that alias: ask before serving it.

        A finding for each policy, none where the alias has none; its error is GateRefused.
        Raises AliasNotFound, VersionNotFound, IntegrityError, MissingExtra.
        """
        from modelkeep.provenance import policy

        marker.read(self.store)
        model, name = _alias(alias)
        return policy.report(self._registry, model, name, version)

    def sbom(self, ref: str) -> dict[str, Any]:
        """The bill of materials of a version as CycloneDX 1.6 JSON: its files, environment, licences, metrics.

        The same version always gives the same document. Raises NotFound's kin, MissingExtra.
        """
        from modelkeep.provenance import sbom

        version = self.resolve(ref)
        return sbom.bill(version.manifest, version.digest)

    # --- moving names

    def promote(self, ref: str, to: str, *, gates: Sequence[Gate] = (), reason: str | None = None) -> Version:
        """Point the alias ``to`` at a version that meets ``gates``.

        Raises GateRefused, which the ledger records, and Conflict where somebody else moved the alias meanwhile.
        """
        version = self.resolve(ref)
        exact = Ref(version.model, Exact(version.version))
        self._registry.promote(exact, to, judge=partial(self._judge, version, gates), reason=reason)
        return version

    def split(self, alias: str, weights: Mapping[str, float], *, reason: str | None = None) -> dict[str, float]:
        """Share an alias' traffic between versions, in per cent that add up to 100. Raises UsageError, Conflict."""
        marker.read(self.store)
        model, name = _alias(alias)
        return self._registry.split(model, name, weights, reason=reason).action.targets  # type: ignore[union-attr]

    def rollback(self, alias: str, *, reason: str | None = None) -> Version:
        """Point an alias at what it pointed at before its last move; again, and it goes further back.

        It never takes the alias away. Raises Conflict where there is nothing further back.
        """
        marker.read(self.store)
        model, name = _alias(alias)
        targets = self._registry.rollback(model, name, reason=reason).action.targets  # type: ignore[union-attr]
        # By number: whoever moves the alias in this moment does not change what this call did.
        record = self._registry.resolve(f"{model}:{largest_share(targets)}").record
        return self._registry.version(model, record, targets)

    def unalias(self, alias: str, *, reason: str | None = None) -> None:
        """Take an alias away; a rollback brings it back. Raises AliasNotFound, Conflict."""
        marker.read(self.store)
        self._registry.remove_alias(*_alias(alias), reason=reason)

    def annotate(
        self,
        ref: str,
        *,
        tags: Sequence[str] = (),
        untag: Sequence[str] = (),
        note: str | None = None,
        reason: str | None = None,
    ) -> Version:
        """Add and remove tags, and replace the note (an empty one removes it)."""
        version = self.resolve(ref)
        self._registry.annotate(version.ref, add=_tags(tags), remove=_tags(untag), note=note, reason=reason)
        return self.resolve(version.ref)

    def yank(self, ref: str, *, undo: bool = False, reason: str | None = None) -> None:
        """Let a version be found by number and digest only; ``undo`` takes that back.

        Raises Conflict while an alias points at it.
        """
        marker.read(self.store)
        self._registry.yank(ref, undo=undo, reason=reason)

    def delete(self, ref: str, *, reason: str | None = None) -> None:
        """Remove a version, named by its whole number or by digest; :meth:`gc` frees its bytes later.

        Its number is never used again. Raises Conflict while an alias points at it. ``run@1200`` deletes the run's
        checkpoints of that step, which no ledger tells of, so it takes no ``reason``.
        """
        match parse_ref(ref):
            case Ref(run, Step(step)):
                if reason is not None:
                    raise UsageError("no ledger tells why a checkpoint was deleted", hint="leave the reason out")
                marker.read(self.store)
                self._runs.delete(run, step)
            case _:
                marker.read(self.store)
                self._registry.delete(ref, reason=reason)

    # --- looking after

    def gc(self, *, grace: timedelta = GRACE, dry_run: bool = False) -> Swept:
        """Remove blobs that no version and no checkpoint refers to and that are older than ``grace``.

        ``grace`` must be longer than any save or checkpoint takes. Raises IntegrityError's kin where something that may
        refer to blobs cannot be read; nothing was removed then.
        """
        from modelkeep.gc import gc

        marker.read(self.store)
        return gc(self._registry, grace=grace, dry_run=dry_run, progress=self._progress)

    def fsck(self) -> Report:
        """Check every entry, snapshot, checkpoint, manifest, blob and tensor; tell what is damaged, and what by it."""
        from modelkeep.fsck import fsck

        marker.read(self.store)
        return fsck(self._registry, progress=self._progress)

    # --- what the verbs share

    def _lineage(self, parent: str | None, data_digest: str | None, source: Opened | None) -> Lineage:
        from modelkeep import gitinfo
        from modelkeep.manifest import Lineage

        git = gitinfo.read()
        return Lineage(
            parent=None if parent is None else self._full_name(parent),
            data_digest=data_digest,
            git_commit=None if git is None else git.commit,
            git_dirty=None if git is None else git.dirty,
            source=None if source is None else source.name,
            upgrades=() if source is None else source.upgrades,
            allowed=() if source is None else source.allowed,
        )

    def _vouched(self, ref: str, *, signature: bool | str | os.PathLike[str] | None) -> tuple[str, Manifest]:
        """A version, or a checkpoint, as a lineage calls it: with its digest. Signed as far as that is asked for."""
        checkpoint = self.checkpoint(ref)
        if checkpoint is None:
            version = self.resolve(ref)
            self._demand_signature(version, signature, checked=True)
            return f"{version.ref}@{version.digest}", version.manifest
        self._demand_no_signature(checkpoint, signature)
        return f"{checkpoint.ref}@{checkpoint.manifest}", self._model_of(checkpoint)

    def _full_name(self, ref: str) -> str:
        version = self.resolve(ref)
        return f"{version.ref}@{version.digest}"

    def _known_tensors(self, name: str, parent: str | None) -> dict[str, tuple[Piece, ...]]:
        """Where the tensors of the newest version and of the parent lie, so that equal ones are not written again."""
        known: dict[str, tuple[Piece, ...]] = {}
        for manifest in filter(None, (self._manifest_or_none(name), self._manifest_or_none(parent))):
            known.update({tensor.digest: tensor.pieces for tensor in manifest.tensors})
        return known

    def _trained(self, network: keras.Model | None) -> tuple[dict[str, tuple[Piece, ...]], dict[str, bytes]]:
        """Of a model that a run of this store trained: where its checkpoint's tensors lie, and the run's curves."""
        from modelkeep.live import origins

        ref = None if network is None else origins.lineage(network).run
        try:
            checkpoint = None if ref is None else self.checkpoint(ref)
            if checkpoint is None:
                return {}, {}
            manifest, curves = self._runs.manifest(checkpoint), self._runs.curves(checkpoint)
        except (NotFound, IntegrityError, FormatTooNew):
            return {}, {}  # likewise: the run may be another store's, or retention have let the checkpoint go
        known = {tensor.digest: tensor.pieces for tensor in manifest.tensors}
        return known, {_CURVES: curves.to_json()} if curves.count or curves.epochs else {}

    def _manifest_or_none(self, ref: str | None) -> Manifest | None:
        try:
            return None if ref is None else self.resolve(ref).manifest
        except (NotFound, IntegrityError, FormatTooNew):
            return None  # a save must not fail for what would only have spared it bytes

    def _values_of_other(self, name: str, parent: str | None, selector: str) -> Mapping[str, Any] | None:
        """The values of what a gate calls ``@production``, ``:1.0.0``, ``other:2.0.0`` or ``@parent``."""
        from modelkeep.expressions import values_of

        ref = parent if selector == "@parent" else f"{name}{selector}" if selector[0] in "@:" else selector
        try:
            return None if ref is None else values_of(self.resolve(ref))
        except NotFound:
            return None

    def _judge(self, version: Version, gates: Sequence[Gate], _: VersionRecord) -> None:
        from modelkeep import gates as judging
        from modelkeep.expressions import values_of

        judging.judge(
            f"{version.ref} is refused",
            gates,
            values_of(version),
            versions=partial(self._values_of_other, version.model, _plain_ref(version.manifest.lineage.parent)),
            load=lambda: self.load(version.ref),
        ).raise_for_failures()

    def _distance(self) -> Callable[[Any, Any], float] | None:
        try:
            from modelkeep.live.distance import distance
        except ImportError:
            return None
        return partial(distance, self._registry.blobs)


def _named(manifest: Manifest, checkpoint: Checkpoint | None) -> str:
    return f"{manifest.model}:{manifest.version}" if checkpoint is None else checkpoint.ref


def _guard(registry: Registry, model: str, alias: str, policies: tuple[Policy, ...], record: VersionRecord) -> None:
    from modelkeep.provenance import policy  # only where there is one

    policy.judge(registry, model, alias, policies, record).raise_for_failures()


def _values(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics or metadata as JSON values."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{name} are a mapping of names to JSON values", found=f"a {type(values).__name__}")
    plain: dict[str, Any] = json_value(values, name)
    return plain


def _is_empty(value: Any) -> bool:
    # Not by truth: an array of several numbers has none.
    return value is None or value is False or (isinstance(value, Mapping | Sequence) and not value)


def _assets(assets: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(assets, Mapping):
        raise UsageError(
            "assets are a mapping", found=f"a {type(assets).__name__}", hint="write assets={'tokenizer': tokenizer}"
        )
    return {name: _unpickled(value) for name, value in assets.items()}


def _unpickled(value: Any) -> Any:
    """A pickled Keras ``Tokenizer`` as the tokenizer it holds, read as data; any other pickle is refused later."""
    if not isinstance(value, Path) or value.suffix not in (".pkl", ".pickle"):
        return value
    import json

    from modelkeep.pipeline import Tokenizer
    from modelkeep.safety.pickles import tokenizer_from_pickle

    return Tokenizer.from_json(json.dumps(tokenizer_from_pickle(value)))


def _tags(tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str):  # which is a sequence, too: of letters
        raise UsageError("tags are a list", found=repr(tags), hint=f"write [{tags!r}]")
    return tuple(tags)


def _plain_ref(parent: str | None) -> str | None:
    """``sentiment:1.0.0`` of a lineage's ``sentiment:1.0.0@blake3:…``."""
    return None if parent is None else parent.partition("@")[0]


def _alias(text: str) -> tuple[str, str]:
    ref = parse_ref(text)
    if not isinstance(ref.selector, ByAlias):
        raise UsageError("not an alias", found=repr(text), expected="model@alias, such as sentiment@production")
    return ref.model, ref.selector.alias


def _is_path(source: str | os.PathLike[str]) -> bool:
    """Whether a source is a file or folder, or what the files of a checkpoint of TensorFlow begin with; else a ref."""
    path = Path(source)
    return not isinstance(source, str) or path.exists() or path.with_name(f"{path.name}.index").is_file()


def _is_bundle(path: Path) -> bool:
    from modelkeep.formats import bundle

    return path.is_file() and bundle.recognise(path)
