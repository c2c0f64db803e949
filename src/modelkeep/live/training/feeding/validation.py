"""Data that ``fit`` validates with: it is read from its beginning each time, so there is no position to keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelkeep.live import internals
from modelkeep.live.training.feeding.tf_dataset import reshuffles
from modelkeep.report import Finding, Severity


def doubts(data: Any) -> tuple[Finding, ...]:
    """What of ``fit``'s ``validation_data`` does remember something, and so comes otherwise in a resumed training."""
    x = data[0] if isinstance(data, tuple | list) and data else data
    if isinstance(x, Iterator):
        what = "each validation goes on where the one before ended"
    elif internals.is_tensorflow_dataset(x) and reshuffles(x):
        what = "each validation shuffles anew, and sums in another order"
    else:
        return ()
    message = f"{what}, which no checkpoint keeps: resumed, it begins anew, and its metrics may be others"
    return (Finding("validation-not-exact", Severity.WARNING, message, type(x).__name__),)
