"""Random states of the process, taken and put back."""

from __future__ import annotations

import random
import sys
from typing import Any

import keras
import numpy as np
import pytest

from modelkeep.errors import UsageError
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


@pytest.mark.backends
def test_what_is_captured_does_not_change_with_what_is_drawn() -> None:
    drawn()
    captured = randomness.capture()
    before = state.digest(captured)
    drawn()
    assert state.digest(captured) == before
    assert state.digest(randomness.capture()) != before


@pytest.mark.backends
def test_a_generator_that_was_not_there_is_not_there_again() -> None:
    keras.utils.set_random_seed(7)
    captured = randomness.capture()
    expected = keras.ops.convert_to_numpy(keras.random.normal((2,))).tolist()
    keras.random.normal((2,))
    randomness.restore(captured)
    assert captured["keras"]["generator"] is None
    assert randomness.capture()["keras"]["generator"] is None
    assert keras.ops.convert_to_numpy(keras.random.normal((2,))).tolist() == expected


def test_nothing_is_made_by_looking() -> None:
    keras.utils.set_random_seed(0)
    first, second = randomness.capture(), randomness.capture()
    assert state.digest(first) == state.digest(second)
    assert first["keras"]["generator"] is None


@pytest.mark.parametrize("kind", ["PCG64", "Philox", "SFC64"])
def test_numpys_global_generator_may_be_of_any_kind(kind: str) -> None:
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(getattr(np.random, kind)(5))
        packed = state.pack(randomness.capture())
        expected = np.random.rand()
        np.random.set_bit_generator(before)
        randomness.restore(state.unpack(packed.document, packed.arrays))
        assert np.random.rand() == expected
    finally:
        np.random.set_bit_generator(before)


def test_states_that_do_not_fit_are_refused() -> None:
    captured = randomness.capture()
    captured["python"]["version"] = 99
    with pytest.raises(UsageError, match=r"cannot be set here: .*99"):
        randomness.restore(captured)


def test_devices_that_are_not_here_are_said() -> None:
    pytest.importorskip("torch")
    captured = randomness.capture()
    captured["torch"]["devices"] = {"cuda": [np.zeros(16, np.uint8)] * 999}
    (finding,) = randomness.restore(captured)
    assert "999 of them then" in finding.message


def fitted(layer: keras.layers.Layer) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), layer, keras.layers.Dense(1)], name="noisy")
    model.compile(keras.optimizers.Adam(use_ema=True), "mse", metrics=["mae"])
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    return model


class Noisy(keras.layers.Layer):
    """Draws from TensorFlow by itself, in three ways."""

    def build(self, shape: Any) -> None:
        self.generator = sys.modules["tensorflow"].random.Generator.from_seed(1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        random = sys.modules["tensorflow"].random
        if not training:
            return inputs
        return inputs * random.uniform((2,)) + self.generator.normal((2,)) + random.get_global_generator().normal((2,))


class Seeded(keras.layers.Layer):
    """Draws as Keras wants it."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        return inputs + keras.random.normal((2,)) if training else inputs


@pytest.mark.backends
def test_random_numbers_of_keras_are_no_doubt() -> None:
    assert randomness.doubts(fitted(keras.layers.Dropout(0.5))) == ()
    if keras.backend.backend() != "jax":  # which has no global generator in graphs
        assert randomness.doubts(fitted(Seeded())) == ()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's graphs")
def test_what_is_drawn_and_counted_in_graphs_is_named() -> None:
    sys.modules["tensorflow"].random.get_global_generator()
    operation, variable = randomness.doubts(fitted(Noisy()))
    assert (operation.check, variable.check) == ("random-operation-not-kept", "variable-not-kept")
    assert operation.subject == "noisy"
    assert "by RandomUniform noisy" in operation.message
    assert len(variable.details["variables"]) == 1
