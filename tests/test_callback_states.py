"""What callbacks remember, taken in one training and given to new ones in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest

from modelkeep.live.training import callback_states, state
from modelkeep.report import Finding

pytestmark = pytest.mark.keras

# One good epoch, and then none better: what the callbacks wait for.
LOSSES = [1.0, 0.5, 0.7, 0.6, 0.8, 0.55, 0.9, 0.65]


class Said(keras.callbacks.Callback):
    """Says the same losses whatever the model learned, to those that are called after it."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["val_loss"] = LOSSES[epoch]


class Restored(keras.callbacks.Callback):
    """Gives the others their states once all of them have begun."""

    def __init__(self, others: Sequence[keras.callbacks.Callback], saved: Any) -> None:
        super().__init__()
        self.others, self.saved, self.findings = others, saved, tuple[Finding, ...]()

    def on_train_begin(self, logs: Any = None) -> None:
        if self.saved is not None:
            self.findings = callback_states.restore_all(self.others, self.saved)


def trained(
    callbacks: list[keras.callbacks.Callback], *, start: int, stop: int, saved: Any = None, lr: Any = 0.1
) -> Any:
    """Train a small model for some epochs; what a checkpoint would hold then."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(lr), "mse")
    restored = Restored(callbacks, saved)
    history = model.fit(
        np.ones((4, 2)),
        np.ones((4, 1)),
        initial_epoch=start,
        epochs=stop,
        verbose=0,
        callbacks=[Said(), *callbacks, restored],
    )
    packed = state.pack(callback_states.capture_all(callbacks))
    assert not restored.findings
    return state.unpack(packed.document, packed.arrays), float(model.optimizer.learning_rate), history.epoch


def test_a_plateau_is_waited_for_across_an_interruption() -> None:
    def callbacks() -> list[keras.callbacks.Callback]:
        return [keras.callbacks.ReduceLROnPlateau(patience=3, cooldown=1)]

    expected, expected_lr, _ = trained(callbacks(), start=0, stop=8)
    saved, lr, _ = trained(callbacks(), start=0, stop=4)
    resumed, resumed_lr, _ = trained(callbacks(), start=4, stop=8, saved=saved, lr=lr)
    assert (resumed, resumed_lr) == (expected, expected_lr)
