"""Which checkpoints of a run stay: the newest ones, the best one, and one of every so many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelkeep.checkpoint import Checkpoint
from modelkeep.errors import UsageError

# What the names of metrics tell of which way is better: as Keras' own metrics say of themselves, and abbreviations.
_HIGHER = frozenset({
    "acc", "accuracy", "auc", "precision", "recall", "sensitivity", "specificity", "f1", "fbeta", "fmeasure", "iou",
    "io", "dice", "similarity", "correlation", "r2", "true", "map", "ndcg", "mrr", "bleu", "rouge",
})  # fmt: skip
_LOWER = frozenset({
    "loss", "error", "mse", "mae", "mape", "msle", "rmse", "crossentropy", "entropy", "divergence", "hinge", "poisson",
    "logcosh", "perplexity", "false", "wer", "cer", "nll",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Retention:
    """What stays beside the newest checkpoint, which always does. Of several of one step only the newest may.

    ``last``: so many of the newest (None: all). ``best``: the one with the best value of a metric: ``val_loss``, or
    ``max:score`` and ``min:score`` where the name does not tell which is better. ``every``: those
    whose step is a multiple of it, or, of checkpoints made at the end of an epoch, whose epoch is.
    """

    last: int | None = None
    best: str | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("last", self.last), ("every", self.every)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UsageError(f"keep_{name} is a whole number of checkpoints, from 1", found=repr(value))
        if self.best is not None:
            metric_of(self.best)


def metric_of(best: str) -> tuple[str, bool]:
    """The name of the metric that ``best`` asks for, and whether more of it is better.

    Of the words in the name the last one that tells decides: ``val_accuracy_loss`` is a loss. Raises UsageError where
    none does.
    """
    direction, colon, name = best.partition(":") if isinstance(best, str) else ("", ":", "")
    if not colon:
        words = [word for word in best.lower().split("_") if word in _HIGHER | _LOWER]
        if words:
            return best, words[-1] in _HIGHER
        hint = f"write max:{best} or min:{best}"
        raise UsageError(f"the name {best!r} does not tell whether more of it is better", hint=hint)
    if direction not in ("max", "min") or not name:
        raise UsageError(
            "not a metric to keep the best by", found=repr(best), expected="its name, such as val_loss, or max:score"
        )
    return name, direction == "max"


def best_of(checkpoints: Iterable[Checkpoint], best: str) -> Checkpoint | None:
    """The checkpoint with the best value: of equals the earliest, never NaN; None where none has the metric."""
    name, higher = metric_of(best)
    having = [c for c in checkpoints if not math.isnan(c.metrics.get(name, math.nan))]
    sign = -1 if higher else 1
    return min(having, key=lambda c: (sign * c.metrics[name], c.number), default=None)


def is_best_so_far(logged: Sequence[Mapping[str, float]], best: str) -> bool:
    """Whether the last of what was logged is better than all before it; never where it is NaN, or not there."""
    name, higher = metric_of(best)
    sign = -1 if higher else 1
    *before, now = (sign * logs.get(name, math.nan) for logs in logged)
    return not math.isnan(now) and all(math.isnan(value) or now < value for value in before)


def split(checkpoints: Sequence[Checkpoint], retention: Retention) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """Those that stay and those that go, each in the order of their numbers."""
    ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.number)
    newest_of = {checkpoint.step: checkpoint.number for checkpoint in ordered}
    found = [checkpoint for checkpoint in ordered if newest_of[checkpoint.step] == checkpoint.number]
    stay = {checkpoint.number for checkpoint in found[0 if retention.last is None else -retention.last :]}
    if retention.best is not None and (best := best_of(found, retention.best)) is not None:
        stay.add(best.number)
    if retention.every is not None:
        stay.update(checkpoint.number for checkpoint in found if _counted(checkpoint) % retention.every == 0)
    return [c for c in ordered if c.number in stay], [c for c in ordered if c.number not in stay]


def _counted(checkpoint: Checkpoint) -> int:
    return checkpoint.epoch if checkpoint.reason == "epoch" else checkpoint.step
