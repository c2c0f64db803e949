"""What the numbers of a tensor are like, in pieces, so that a tensor larger than memory can be asked, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelkeep.inspecting.facts import Stats

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_PIECE = 2**20  # numbers


def stats_of(array: Array) -> Stats:
    """Minimum, maximum and mean of the finite numbers, and how many are none."""
    import numpy as np

    flat = np.asarray(array).reshape(-1)
    if flat.dtype.kind not in "biuf" and "float" not in flat.dtype.name:
        return Stats()
    low, high, total, count, nan, infinite = np.inf, -np.inf, 0.0, 0, 0, 0
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE].astype(np.float64)
        finite = piece[np.isfinite(piece)]
        nan += int(np.isnan(piece).sum())
        infinite += int(np.isinf(piece).sum())
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            total += float(finite.sum())
            count += finite.size
    if not count:
        return Stats(nan=nan, infinite=infinite)
    return Stats(minimum=low, maximum=high, mean=total / count, nan=nan, infinite=infinite)
