"""The random numbers that a user's code draws while it makes a batch: Python's, NumPy's and PyTorch's global ones.

They are taken before every batch, so that the last one can be made again; that costs some microseconds.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from modelkeep.live import internals

States: TypeAlias = dict[str, Any]


def capture() -> States:
    """Where the global generators stand, as plain values and arrays."""
    states: States = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}
    if "torch" in sys.modules:
        states["torch"] = internals.torch_rng()
    return states


def restore(states: States) -> None:
    """Put the global generators where they stood."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    if "torch" in states and "torch" in sys.modules:
        internals.set_torch_rng(np.asarray(states["torch"]))


@contextmanager
def unchanged() -> Iterator[None]:
    """Inside, drawing random numbers leaves no trace."""
    states = capture()
    try:
        yield
    finally:
        restore(states)
