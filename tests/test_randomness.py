"""Random states of the process, taken and put back."""

from __future__ import annotations

import random
import sys
from typing import Any

import keras
import numpy as np
import pytest

from modelkeep.live.training import randomness, state

pytestmark = pytest.mark.keras


def drawn() -> list[Any]:
    """One number from each source that this process has."""
    numbers = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()]
    numbers += keras.ops.convert_to_numpy(keras.random.normal((2,))).tolist()
    if keras.backend.backend() == "torch":
        numbers += sys.modules["torch"].rand(2).tolist()
    if keras.backend.backend() == "tensorflow":
        tf = sys.modules["tensorflow"]
        numbers += (
            tf.random.uniform((2,)).numpy().tolist() + tf.random.get_global_generator().normal((2,)).numpy().tolist()
        )
    return numbers


@pytest.mark.backends
def test_what_is_drawn_after_restoring_is_what_would_have_been_drawn() -> None:
    keras.utils.set_random_seed(1)
    drawn()
    packed = state.pack(randomness.capture())
    expected = drawn()
    keras.utils.set_random_seed(2)
    drawn()
    randomness.restore(state.unpack(packed.document, packed.arrays))
    assert drawn() == expected
