"""A ``fit`` as its checkpoints see it: when they are taken, and how it goes on from one.

Keras offers callbacks and no way into its loop, so one callback does it all. It stands last in the list, where every
other one has done its part of a step or epoch; and a small one stands first, since what a new epoch begins with must be
put back before the others see it begin.

To go on inside an epoch, ``fit`` runs that epoch from its first step, but ``train_function`` computes nothing and no
callback hears of a step until the first one that is not done.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from modelkeep.checkpoint import Reason
from modelkeep.curves import Curves, Point, differing, numbers
from modelkeep.errors import NotFaithful, UsageError
from modelkeep.live import internals, origins
from modelkeep.live.tensors import Array
from modelkeep.live.training import callback_states, randomness, state
from modelkeep.live.training.feeding import Feed
from modelkeep.live.training.interruption import Interruption
from modelkeep.live.training.keeping import Keeper, Standing
from modelkeep.live.training.resuming import Resumption
from modelkeep.live.training.schedule import Schedule
from modelkeep.report import Finding, Severity
from modelkeep.retention import is_best_so_far, metric_of

Say = Callable[[Finding], None]


class Listener(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Takes checkpoints of the ``fit`` it is given to, and lets it go on from ``resumption``.

    ``feed`` is the data, where its position is known. ``earlier`` is what an attempt that was killed had logged beyond
    the checkpoint: what is trained again must log the same. ``say`` is told what was found on the way.
    """

    def __init__(
        self,
        run: str,
        keeper: Keeper,
        schedule: Schedule,
        *,
        resumption: Resumption | None,
        feed: Feed | None,
        earlier: Curves | None,
        events: Any,
        say: Say,
    ) -> None:
        super().__init__()
        self._run = run
        self._keeper = keeper
        self._schedule = schedule
        self._resumption = resumption
        self._feed = feed
        self._earlier = earlier
        self._events = events
        self._say = say
        self._standing = Standing() if resumption is None else resumption.standing
        self._curves = Curves() if resumption is None else resumption.curves.copy()
        # What the newest step logged, and the numbers of it: a metric may also be an array.
        self._logged: Mapping[str, Any] = {} if resumption is None else resumption.value["logs"]
        self._logs: Mapping[str, float] = numbers(self._logged)
        # Weakly: when it is gone, so is the `fit`, whatever ended it.
        self._callbacks: Callable[[], Any] = lambda: None
        self._interruption = Interruption(lambda: self._callbacks() is not None)
        self._others: list[keras.callbacks.Callback] = []
        self._skip_to = 0  # steps of the present epoch that are done already
        self._random_at_epoch: Any = None
        self._random_after_steps: Any = None  # of an epoch: `fit` draws before it tells that validation begins
        self._watched = callback_states.Watched(())
        self._compiled: Any = None  # what `compile` was told when the run began
        self._before_validation: _Validation | None = None
        self._train_function: Callable[..., Any] | None = None  # the model's own
        self._wrapped: Callable[..., Any] | None = None  # and what the model has in its place
        self._training = self._stepped = self._skips = False

    # --- what Keras calls

    def on_train_begin(self, logs: Any = None) -> None:
        """Take the places in the list, and put everything back where no epoch is left to begin."""
        self._training = True
        around = internals.callback_list_around()
        self._callbacks = weakref.ref(around)
        if self._others:  # of a `fit` before
            raise UsageError("this callback had its fit already", hint="make one for each: checkpoints.callback()")
        self._others = [callback for callback in around.callbacks if callback is not self]
        if any(isinstance(callback, Listener) for callback in self._others):
            raise UsageError("two runs keep the checkpoints of one fit", hint="leave one of the callbacks out")
        self._call(self._all)
        if self.model.built:
            self._say_all(self._keeper.prepare(self.model))
        for callback in self._others:
            self._say_all(callback_states.doubts(callback))
        self._watched = callback_states.Watched(self._others)
        self._wrap_train_function()
        self._interruption.__enter__()
        self._compiled = self._keeper.compiled
        if self._resumption is not None:
            if self._keeper.processes.writes:
                changes = (*self._resumption.compare(self._compiled), *self._resumption.elsewhere())
                self._say_all(changes)
                self._earlier = None if changes else self._earlier  # other numbers are no wonder then
            self._compiled = self._resumption.value["compiled"]
            over = self._resumption.is_over(self.params["epochs"])
            self._say_all(self._otherwise(self._resumption, over=over))
            if self._feed is None:
                internals.start_at_epoch(self.model, self.params["epochs"] if over else self._standing.epoch)
            if over:
                self._resumption.put_back(self.model)

    @property
    def _all(self) -> list[keras.callbacks.Callback]:
        return [_First(self._before_epoch, self._before_end), *self._others, self]

    def _before_end(self) -> None:
        """At the end of a training that had no epoch left, before any other callback hears of it."""
        if self._resumption is not None:
            self._put_back_callbacks(self._resumption)
            self._say_all(randomness.restore(self._resumption.value["random"]))
            self._resumption = None

    def _otherwise(self, resumption: Resumption, *, over: bool) -> Iterator[Finding]:
        """What a user may not expect of how this run goes on."""
        was, steps = resumption.value["steps"], self.params["steps"]
        if over:
            done = f"{resumption.standing.epoch} epochs are done and {self.params['epochs']} asked for"
            ended = "a callback stopped training" if resumption.value["stop_training"] else done
            message = f"{ended}, so nothing is trained: the model and the history are as they were then"
            yield Finding("run-done", Severity.NOTE, message, self.model.name)
        elif steps is not None and resumption.standing.step_in_epoch > steps:
            raise NotFaithful(
                "the epoch under way has more steps behind it than it has now",
                found=f"{steps} steps an epoch",
                expected=f"{resumption.standing.step_in_epoch} or more",
                hint="give fit the same steps_per_epoch, or begin a new run",
            )
        elif resumption.standing.step_in_epoch and was != steps:
            message = f"the epoch under way had {was} steps, and has {steps} now"
            yield Finding("steps-changed", Severity.WARNING, message, self.model.name)

    def _before_epoch(self) -> None:
        """At an epoch's beginning, before any other callback hears of it."""
        internals.start_at_epoch(self.model, None)
        if self._resumption is not None and not self._resumption.standing.step_in_epoch:
            self._put_back(self._resumption)
            self.model.reset_metrics()  # as `fit` had just done
            self._say_all(randomness.restore(self._resumption.value["random"]))
            self._resumption = None
        self._random_at_epoch = randomness.capture()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """At an epoch's beginning, after every other callback heard of it."""
        self._standing = replace(self._standing, epoch=epoch)
        if self._resumption is not None:
            self._put_back(self._resumption)
            self._random_at_epoch = self._resumption.value["random_at_epoch"]
            randomness.restore(self._random_at_epoch)  # what `fit` shuffles by
            self._skip_to = self._resumption.standing.step_in_epoch
            self._call([self])

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a step: another callback may have had the train function made anew."""
        self._skips = bool(self._skip_to)  # this one; whoever uses the function after a `fit` that failed skips nothing
        if self.model.train_function is not self._wrapped:
            self._wrap_train_function()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a step that every other callback heard of; none of those that were done before."""
        if self._skip_to:
            if batch + 1 >= self._skip_to:
                self._end_skipping()
            return
        before = self._standing
        done = self._steps_in_epoch(batch)
        self._standing = replace(before, step=before.step + done - before.step_in_epoch, step_in_epoch=done)
        self._logged = logs or {}
        self._logs = numbers(self._logged)
        self._log_step()
        if not self._stepped:
            self._stepped = True
            self._say_all(randomness.doubts(self.model))  # there is a graph now
        if self._may_be_last(done):
            self._random_after_steps = randomness.capture()
        due = self._schedule.after_step(before.step, self._standing.step, busy=self._keeper.busy)
        self._at_a_boundary("interval" if self._schedule.steps else "time", due=due)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """After every other callback heard of an epoch's end."""
        self._before_validation = None
        if self._skip_to:
            self._end_skipping()  # an epoch whose every step was done, and whose end was not
        self._standing = Standing(self._standing.step, epoch + 1)
        self._curves.add_epoch(epoch + 1, self._standing.step, logs or {})
        self._check_epoch(epoch + 1)
        self._say_all(self._watched.doubts())
        if self._events is not None:
            self._events.epoch(epoch, logs or {})
        last = epoch + 1 >= self.params["epochs"] or bool(self.model.stop_training)
        reason: Reason = "end" if last else "epoch"
        best = self._is_best()
        self._at_a_boundary(reason, due=last or self._schedule.after_epoch(epoch + 1) or best, finished=last)

    def on_test_begin(self, logs: Any = None) -> None:
        """Before validation, which counts its metrics in the place of the epoch's."""
        if self._training:
            self._say_all(self._keeper.prepare(self.model))  # metrics may be there since the first batch only
            self._before_validation = _Validation(self._keeper.metrics_now(), self._random_after_steps)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """A signal is not kept waiting until validation is done."""
        alone = self._keeper.processes.count == 1  # several leave together, after a step
        if self._training and alone and self._interruption.received is not None:
            self._leave()

    def on_train_end(self, logs: Any = None) -> None:
        """When training is done."""
        origins.note(self.model, origins.Trained(f"{self._run}@{self._standing.step}"))
        try:
            self._keeper.wait()
        finally:
            self.close()
        if self._interruption.received is not None:
            self._interruption.leave()

    def close(self) -> None:
        """Give back to Keras what was taken from it; called again, it does nothing."""
        self._training = False
        self._interruption.__exit__()
        if self._wrapped is not None:
            if self.model.train_function is self._wrapped:  # and not another one, or none since `compile`
                self.model.train_function = self._train_function
            self._wrapped = self._train_function = None
            internals.start_at_epoch(self.model, None)
            self._call([*self._others, self])
            if self._events is not None:
                self._events.close()

    def _say_all(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._say(finding)

    def _call(self, callbacks: list[keras.callbacks.Callback]) -> None:
        around = self._callbacks()
        if around is not None:
            around.callbacks = callbacks  # a new list: Keras may be walking through the old one

    # --- taking checkpoints

    def _at_a_boundary(self, reason: Reason, *, due: bool, finished: bool = False) -> None:
        """Between two steps, where everything is as the next one begins with."""
        self._keeper.raise_if_failed()
        interrupted = self._interruption.received is not None
        due, interrupted = self._keeper.processes.agreed(due=due, interrupted=interrupted)
        if interrupted:
            self._leave(finished=finished)
        if due:
            self._keep(reason, finished=finished)
        else:
            of, steps = self.params.get("epochs"), self.params.get("steps")
            self._keeper.tell(self._standing, self._logs, self._curves, of=of, steps_per_epoch=steps)

    def _leave(self, *, finished: bool = False) -> None:
        self._keep("signal", finished=finished)
        self._keeper.wait_together()
        self.close()
        self._interruption.leave()

    def _keep(self, reason: Reason, *, finished: bool = False) -> None:
        findings = self._keeper.keep(
            self.model,
            self._standing,
            self._value(),
            reason=reason,
            curves=self._curves,
            metrics=self._metrics(),
            finished=finished,
            instead={} if self._before_validation is None else self._before_validation.metrics,
        )
        self._say_all(findings)
        self._schedule.kept()

    def _value(self) -> dict[str, Any]:
        return {
            "logs": {name: value for name, value in self._logged.items() if state.is_plain(value)},
            "random": randomness.capture() if self._before_validation is None else self._before_validation.random,
            "random_at_epoch": self._random_at_epoch,
            "callbacks": callback_states.capture_all(self._others),
            "feed": None if self._feed is None else self._feed.position(),
            "compiled": self._compiled,
            "stop_training": bool(self.model.stop_training),
            "steps": self.params["steps"],
            "extra": None,
        }

    def _is_best(self) -> bool:
        """Whether the epoch that just ended is the best so far: no later checkpoint tells what validation gave then."""
        best, logged = self._keeper.best, [point.logs for point in self._curves.epochs]
        if best is None:
            return False
        name, _ = metric_of(best)
        if len(logged) == 1 and name not in logged[0]:
            message = f"keep_best finds no {name} in what the first epoch logged: {', '.join(logged[0]) or 'nothing'}"
            self._say(Finding("best-not-logged", Severity.WARNING, message, self.model.name))
        return is_best_so_far(logged, best)

    def _metrics(self) -> dict[str, float]:
        """The newest number of each name: of this step, or of the epoch that just ended."""
        if self._standing.step_in_epoch or not self._curves.epochs:
            return dict(self._logs)
        return dict(self._curves.epochs[-1].logs)

    def _steps_in_epoch(self, batch: int) -> int:
        """Steps done in the epoch: the last execution of an epoch may hold fewer than the others."""
        steps = self.params.get("steps")
        return min(batch + 1, steps) if steps else batch + 1

    def _may_be_last(self, done: int) -> bool:
        """Whether the epoch may have no more steps."""
        steps = self.params.get("steps")
        return not steps or done >= steps

    def _log_step(self) -> None:
        step, epoch = self._standing.step, self._standing.epoch
        self._curves.add_step(step, epoch, self._logs)
        before = self._earlier.at(step) if self._earlier else None
        self._check(step, before, self._logs)
        if self._events is not None:
            self._events.step(step, self._logs)

    def _check_epoch(self, epoch: int) -> None:
        earlier = self._earlier.epochs if self._earlier else ()
        before = next((point for point in earlier if point.epoch == epoch), None)
        self._check(self._standing.step, before, self._curves.epochs[-1].logs)

    def _check(self, step: int, before: Point | None, now: Mapping[str, float]) -> None:
        """Say once where what was trained before gives another number now."""
        difference = None if before is None else next(differing(step, before.logs, now), None)
        if difference is not None:
            message = f"{difference}: something in this training is not determined by what a checkpoint holds"
            self._say(Finding("not-deterministic", Severity.WARNING, message, self.model.name))
            self._earlier = None

    # --- going on

    def _put_back(self, resumption: Resumption) -> None:
        resumption.put_back(self.model)
        if resumption.standing.step_in_epoch and resumption.counted > len(internals.compile_metrics(self.model)):
            message = "what they counted in this epoch cannot be put back: they count from here on"
            self._say(Finding("metrics-not-restored", Severity.WARNING, message, "metrics"))
        self._put_back_callbacks(resumption)

    def _put_back_callbacks(self, resumption: Resumption) -> None:
        self._say_all(callback_states.restore_all(self._others, resumption.value["callbacks"]))

    def _end_skipping(self) -> None:
        assert self._resumption is not None
        self._skip_to = 0
        self._call(self._all)
        self.model.stop_training = self._resumption.value["stop_training"]
        self._random_after_steps = self._resumption.value["random"]
        self._say_all(randomness.restore(self._random_after_steps))
        self._resumption = None

    def _wrap_train_function(self) -> None:
        """Have ``fit`` compute nothing in the steps that are done, and show the feed the iterator it uses."""
        function = self.model.train_function
        feed = self._feed
        backend = keras.backend.backend()
        per_call = self.model.steps_per_execution

        def train(*arguments: Any) -> Any:
            if self._skips:
                self._skips = False
                if feed is None:
                    _pass_by(arguments[-1], per_call)
                # JAX gives its state on, too.
                return (self._logged, arguments[0]) if backend == "jax" else self._logged
            if feed is not None and backend == "tensorflow":
                feed.around(arguments[-1], per_call)
            return function(*arguments)

        self._train_function = function
        self._wrapped = self.model.train_function = train


@dataclass(frozen=True)
class _Validation:
    """What validation takes away: what the metrics counted in the epoch, and the random numbers before it."""

    metrics: Mapping[str, Array]
    random: Any


class _First(keras.callbacks.Callback):  # type: ignore[misc] # likewise
    """Stands first in the list, and so hears of everything before every other callback."""

    def __init__(self, before_epoch: Callable[[], None], before_end: Callable[[], None]) -> None:
        super().__init__()
        self._before_epoch = before_epoch
        self._before_end = before_end

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Before every other callback."""
        self._before_epoch()

    def on_train_end(self, logs: Any = None) -> None:
        """Before every other callback."""
        self._before_end()


def _pass_by(data: Any, count: int) -> None:
    """Take batches out of an iterator that ``fit`` would have trained on; where it gives them as a list, it did so."""
    if hasattr(data, "__next__"):
        for _ in range(count):
            next(data, None)
