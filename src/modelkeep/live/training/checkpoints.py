"""The checkpoints of a run: made while it trains, and gone on from by themselves when it is started again."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import keras
import msgspec
import numpy as np

from modelkeep.checkpoint import Checkpoint
from modelkeep.curves import Curves
from modelkeep.errors import CheckpointNotFound, FormatTooNew, IntegrityError, RunNotFound, UsageError
from modelkeep.live import internals
from modelkeep.live.training import feeding, processes, randomness
from modelkeep.live.training.feeding import validation
from modelkeep.live.training.interruption import Interruption
from modelkeep.live.training.keeping import Keeper, Standing
from modelkeep.live.training.listening import Listener
from modelkeep.live.training.resuming import Resumption
from modelkeep.live.training.schedule import Schedule
from modelkeep.report import Finding, Severity
from modelkeep.retention import Retention
from modelkeep.runs import Runs
from modelkeep.storage.blobs import Blobs


@dataclass(frozen=True)
class Restored:
    """Where a training of one's own loop stands again, and what was given to ``save`` as ``extra``."""

    step: int
    epoch: int
    extra: Any
    checkpoint: Checkpoint
    findings: tuple[Finding, ...] = ()


class Checkpoints:
    """A run's checkpoints; make them with :meth:`modelkeep.Keep.checkpoints`.

    What was found on the way (data whose position cannot be kept, something that is not deterministic) is a warning,
    and one of the ``findings``.
    """

    def __init__(
        self,
        runs: Runs,
        blobs: Blobs,
        run: str,
        *,
        schedule: Schedule,
        retention: Retention,
        fast_forward: bool = False,
        tensorboard: str | None = None,
    ) -> None:
        self.run = run
        self.findings: list[Finding] = []
        self._runs = runs
        self._blobs = blobs
        self._schedule = schedule
        self._fast_forward = fast_forward
        self._tensorboard = tensorboard
        self._retention = retention
        self._interruption: Interruption | None = None
        self._listener: Listener | None = None
        self._curves = Curves()
        self._step = self._epoch = 0
        self._went_on = False  # whether a loop of one's own knows what the run has
        self._gone_back_to: Resumption | None = None

    def __repr__(self) -> str:
        return f"Checkpoints({self.run!r})"

    # --- by Keras' fit

    def fit(
        self,
        model: keras.Model,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: Any = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        **arguments: Any,
    ) -> keras.callbacks.History:
        """``model.fit`` with the same arguments, which goes on where this run stopped and keeps checkpoints.

        The history is that of the whole run. A run that is done is not trained again: the model gets what it had at the
        end. SIGTERM and SIGINT take a last checkpoint after the step that is being trained, then end as they do.

        Raises what ``model.fit`` raises, NotFaithful where the model or the data is not the one that the run was begun
        with, Conflict where another process trains the same run, and what went wrong with writing a checkpoint.
        """
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = internals.validation_split(
                (x, y, sample_weight), float(validation_split)
            )
        resumption = self._stands_at()
        feed = feeding.feed(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            shuffle=shuffle,
            class_weight=class_weight,
            steps_per_epoch=steps_per_epoch,
            seed=_seed(),  # gone on from, the run keeps its own
            fast_forward=self._fast_forward,
        )
        self._say_all((*feed.findings, *validation.doubts(validation_data)))
        if resumption is not None:
            begun = self._go_to(feed, resumption, epochs)
            initial_epoch = begun if resumption.standing.step_in_epoch else max(initial_epoch, begun)
        internals.build_for(model, feed.get_numpy_iterator())
        if feed.kind != "arrays" and internals.replicas(model) > 1:
            self._say(_fetched_ahead(model))
        listener = self._listen(resumption, feed)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        given = [] if callbacks is None else callbacks if isinstance(callbacks, list | tuple) else [callbacks]
        try:
            return model.fit(
                feed,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=[*given, listener],
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                shuffle=False,
                validation_data=validation_data,
                **arguments,
            )
        finally:
            listener.close()
            self._close_keeper()

    def _go_to(self, feed: feeding.Feed, resumption: Resumption, epochs: int) -> int:
        """Let the feed go on where it stood; returns the epoch that ``fit`` begins with."""
        standing = resumption.standing
        if resumption.value.get("feed") is None:
            raise UsageError(
                f"{resumption.checkpoint.ref} was not kept by fit, so it does not tell where the data stood",
                hint="go on as the run was begun: checkpoints.callback(), or restore and save in a loop of your own",
            )
        self._say_all(feed.go_to(resumption.value["feed"]))
        if keras.backend.backend() == "torch":  # elsewhere a step that is done fetches nothing
            feed.placeholders = standing.step_in_epoch
        return epochs if resumption.is_over(epochs) else standing.epoch

    def callback(self) -> keras.callbacks.Callback:
        """A callback that does as :meth:`fit` does, for a ``model.fit`` of one's own; new for each one.

        It knows of the other callbacks of that ``fit``, wherever it stands among them, but not of its data: that must
        come in the same order again. Give ``shuffle=False``, or data that is shuffled by Python's, NumPy's or torch's
        random numbers as they stand at an epoch's beginning; what TensorFlow shuffles comes in another order.
        """
        resumption = self._stands_at()
        if resumption is not None and resumption.value.get("feed") is not None:
            raise UsageError(
                f"{resumption.checkpoint.ref} was kept by fit, whose order of the data a callback cannot give again",
                hint="go on as the run was begun: checkpoints.fit(model, …)",
            )
        if resumption is not None and "callbacks" not in resumption.value:
            raise UsageError(
                f"{resumption.checkpoint.ref} was kept by a loop of its own: it does not tell what callbacks remember",
                hint="go on as the run was begun: restore and save in a loop of your own",
            )
        return self._listen(resumption, None)

    # --- by a loop of one's own

    def save(
        self,
        step: int,
        model: keras.Model,
        *,
        epoch: int | None = None,
        extra: Any = None,
        metrics: Mapping[str, float] | None = None,
        optimizers: Mapping[str, keras.optimizers.Optimizer] | None = None,
        force: bool = False,
    ) -> bool:
        """Take a checkpoint after ``step`` of a loop of one's own, if one is due or ``force``; tells whether it did.

        Call it after every step, with the number of steps done in all and of epochs done. ``extra`` is kept beside the
        model: plain values and arrays, such as the state of a data loader. ``optimizers`` are those the model was not
        compiled with, by a name each. Inside ``with checkpoints:`` SIGTERM and SIGINT take a checkpoint at the next
        call of this, then end as they do.

        Raises UsageError, Conflict where another process trains the same run, and what went wrong with the one before.
        """
        self._check(step, epoch, force=force)
        epoch = epoch or 0
        keeper = self._keeper
        keeper.raise_if_failed()
        interrupted = self._interruption is not None and self._interruption.received is not None
        due, interrupted = keeper.processes.agreed(due=force or self._is_due(step, epoch), interrupted=interrupted)
        logs = dict(metrics or {})
        if step > self._step:
            self._curves.add_step(step, epoch, logs)
            if self._loop_events is not None:
                self._loop_events.step(step, logs)
        self._step, self._epoch = step, epoch
        if not due and not interrupted:
            keeper.tell(Standing(step, epoch), logs, self._curves)
            return False
        value = {"logs": logs, "random": randomness.capture(), "extra": extra}
        findings = keeper.keep(
            model,
            Standing(step, epoch),
            value,
            reason="signal" if interrupted else "asked" if force else "interval",
            curves=self._curves,
            metrics=logs,
            optimizers=optimizers or {},
        )
        self._say_all(findings)
        self._schedule.kept()
        if interrupted:
            keeper.wait_together()
            self.close()
            (self._interruption or Interruption()).leave()
        return True

    def restore(
        self,
        model: keras.Model,
        *,
        at: int | None = None,
        optimizers: Mapping[str, keras.optimizers.Optimizer] | None = None,
    ) -> Restored | None:
        """Put a model, its optimizer and all random numbers back to the newest checkpoint, or that of step ``at``.

        None where the run has none yet. The model must be built; ``optimizers`` are as for :meth:`save`. After going
        back to ``at``, the next :meth:`fit` or :meth:`callback` goes on from there, too.
        Raises NotFaithful where the model is another one, CheckpointNotFound, IntegrityError.
        """
        resumption = self._newest() if at is None else self._at(lambda: self._runs.find(self.run, at))
        self._went_on, self._gone_back_to = True, None if at is None else resumption
        if resumption is None:
            return None
        resumption.check_optimizers(optimizers or {})
        resumption.put_back(model)
        resumption.put_back_optimizers(model, optimizers or {})
        findings = (*resumption.elsewhere(), *randomness.restore(resumption.value["random"]))
        self._say_all(findings)
        self._curves, self._step, self._epoch = resumption.curves, resumption.standing.step, resumption.standing.epoch
        self._close_keeper()
        self._keeper.go_on_from(resumption.checkpoint, resumption.manifest)
        standing = resumption.standing
        return Restored(standing.step, standing.epoch, resumption.value["extra"], resumption.checkpoint, findings)

    def _check(self, step: int, epoch: int | None, *, force: bool) -> None:
        """Refuse what would quietly keep nothing, or let what is kept be thrown away by and by."""
        if not self._went_on and self._newest() is not None:
            raise UsageError(
                f"the run {self.run!r} has checkpoints, and this loop did not go on from them",
                hint="call restore(model) before the first step, or give the run another name",
            )
        self._went_on = True
        if step < self._step:
            raise UsageError(
                "steps are counted over the whole run",
                found=str(step),
                expected=f"{self._step} or more",
                hint="restore(model, at=…) goes back",
            )
        if epoch is None and self._schedule.epochs is not None and not force:
            raise UsageError(
                "a checkpoint is due after epochs, and nothing tells how many are done",
                hint="give save(…, epoch=…), or choose every_steps",
            )

    def _is_due(self, step: int, epoch: int) -> bool:
        if epoch > self._epoch and self._schedule.after_epoch(epoch):
            return True
        return self._schedule.after_step(self._step, step, busy=self._keeper.busy)

    def close(self) -> None:
        """Return when the newest checkpoint is durable; raises what went wrong with it."""
        self._close_keeper()

    def __enter__(self) -> Self:
        self._interruption = Interruption().__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        interruption, self._interruption = self._interruption, None
        if interruption is not None:
            interruption.__exit__()
        self.close()
        if interruption is not None and interruption.received is not None and error is None:
            interruption.leave()  # it came after the last call of `save`

    # --- what they share

    @cached_property
    def _keeper(self) -> Keeper:
        return Keeper(self._runs, self._blobs, self.run, self._retention)

    def _close_keeper(self) -> None:
        events = self.__dict__.pop("_loop_events", None)
        if events is not None:
            events.close()
        keeper = self.__dict__.pop("_keeper", None)
        if keeper is not None:
            keeper.close()

    def _stands_at(self) -> Resumption | None:
        """What training goes on from: what was gone back to, else the newest; None for a run that has none yet."""
        gone_back_to, self._gone_back_to = self._gone_back_to, None
        return self._newest() if gone_back_to is None else gone_back_to

    def _newest(self) -> Resumption | None:
        """The newest checkpoint; None for a run that has none yet."""
        self._close_keeper()
        Keeper.settle(self._runs, self.run)
        return self._at(self._last)

    def _last(self) -> Checkpoint | None:
        try:
            return self._runs.find(self.run, "last")
        except (RunNotFound, CheckpointNotFound):
            return None

    def _at(self, find: Callable[[], Checkpoint | None]) -> Resumption | None:
        """The same one in all processes that train together, whatever each would find by now."""
        checkpoint = processes.here().decided(find, Checkpoint | None)
        if checkpoint is None:
            return None
        resumption = Resumption.of(self._runs, self._blobs, checkpoint)
        self._say_all(resumption.findings)
        return resumption

    def _listen(self, resumption: Resumption | None, feed: feeding.Feed | None) -> Listener:
        self._close_keeper()
        if resumption is not None:
            self._keeper.go_on_from(resumption.checkpoint, resumption.manifest)
        return Listener(
            self.run,
            self._keeper,
            self._schedule,
            resumption=resumption,
            feed=feed,
            earlier=self._logged_since(resumption),
            events=self._events(0 if resumption is None else resumption.standing.step),
            say=self._say,
        )

    def _logged_since(self, resumption: Resumption | None) -> Curves | None:
        """What an attempt that was killed had logged after the very checkpoint."""
        progress = self._runs.progress(self.run)
        if progress is None or resumption is None or progress.follows != resumption.checkpoint.number:
            return None
        if not self._keeper.processes.writes:
            return None
        try:
            return Curves.from_json(msgspec.json.encode(progress.curves))
        except (IntegrityError, FormatTooNew):
            return None  # it was for comparing alone

    @cached_property
    def _loop_events(self) -> Any:
        return self._events(self._step)

    def _events(self, at: int) -> Any:
        """Event files for what comes after step ``at``; None where nobody wants any."""
        if self._tensorboard is None or not self._keeper.processes.writes:
            return None
        from modelkeep.live.training.tensorboard import Events

        return Events(self._tensorboard, at or None)

    def _say_all(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._say(finding)

    def _say(self, finding: Finding) -> None:
        self.findings.append(finding)
        subject = f"{finding.subject}: " if finding.subject else ""
        warnings.warn(f"run {self.run}: {subject}{finding.message}", stacklevel=_level_of_the_caller())


def _level_of_the_caller() -> int:
    """How far up the stack, from whoever asks, the code stands that is neither ours nor Keras'."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("modelkeep", "keras"):
        frame, level = frame.f_back, level + 1
    return level


def _seed() -> int:
    """As the user seeded NumPy, whose next draw stays what it would be without checkpoints."""
    before = np.random.get_state(legacy=False)  # of whatever kind it is
    seed = int(np.random.randint(2**31))
    np.random.set_state(before)
    return seed


def _fetched_ahead(model: keras.Model) -> Finding:
    message = (
        "for several replicas TensorFlow fetches batches ahead, which are left out when training goes on: give fit "
        "arrays, whose position is exact"
    )
    return Finding("data-not-exact", Severity.WARNING, message, model.name)
