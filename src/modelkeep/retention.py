"""Which checkpoints of a run stay: the newest ones, the best one, and one of every so many."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelkeep.checkpoint import Checkpoint
from modelkeep.errors import UsageError

# Words in the names of metrics that are better the higher they are, as the callbacks of Keras tell them
# (https://keras.io/api/callbacks/model_checkpoint, mode="auto"), and what else Keras' own metrics measure.
_HIGHER = re.compile(
    r"(?:^|_)(?:acc|accuracy|auc|f1|f1_?score|fbeta|fbeta_?score|fmeasure|precision|recall|iou|dice|r2|r2_?score"
    r"|specificity|sensitivity|map|ndcg|mrr|bleu|rouge)(?:_|\d|$)"
)


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
    """The name of the metric that ``best`` asks for, and whether more of it is better. Raises UsageError."""
    direction, colon, name = best.partition(":") if isinstance(best, str) else ("", "", "")
    if colon and direction in ("max", "min") and name:
        return name, direction == "max"
    if colon or not isinstance(best, str) or not best:
        raise UsageError(
            "not a metric to keep the best by", found=repr(best), expected="its name, such as val_loss, or max:score"
        )
    return best, _HIGHER.search(best.lower()) is not None


def best_of(checkpoints: Iterable[Checkpoint], best: str) -> Checkpoint | None:
    """The checkpoint with the best value: of equals the earliest, never NaN; None where none has the metric."""
    name, higher = metric_of(best)
    having = [c for c in checkpoints if not math.isnan(c.metrics.get(name, math.nan))]
    sign = -1 if higher else 1
    return min(having, key=lambda c: (sign * c.metrics[name], c.number), default=None)


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
