"""How far stored weights moved between two versions; needs numpy and no backend, so that a diff starts at once."""

from __future__ import annotations

import math

import numpy as np

from modelkeep.live.tensors import Array, array
from modelkeep.manifest import Tensor
from modelkeep.storage.blobs import Blobs

_ROWS = 2**20  # elements compared at once, so that a large embedding needs no second and third copy


def distance(blobs: Blobs, old: Tensor, new: Tensor) -> float:
    """How far a weight moved: ‖new - old‖ / ‖old‖ in double precision, for tensors of one shape.

    Infinite where the old one was all zeros; not a number where either holds one. Raises IntegrityError.
    """
    before, after = (array(tensor, blobs.map([tensor]).views[tensor.name]).reshape(-1) for tensor in (old, new))
    moved = length = 0.0
    for start in range(0, before.size, _ROWS):
        was, now = _doubles(before[start : start + _ROWS]), _doubles(after[start : start + _ROWS])
        moved += float(np.dot(now - was, now - was))
        length += float(np.dot(was, was))
    if length == 0.0:
        return 0.0 if moved == 0.0 else math.inf
    return math.sqrt(moved / length)


def _doubles(values: Array) -> Array:
    return values.astype(np.float64)
