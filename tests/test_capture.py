"""Capture takes everything a model is, changes nothing, and says at once what it cannot keep."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keeping import keep, state
from modelkeep.errors import CannotRebuild, NotFaithful, UnsafeContent, UsageError
from modelkeep.live.capture import capture
from zoo import ZOO, Classifier, floats

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore::UserWarning:keras")]


def test_it_names_everything_it_takes() -> None:
    captured = capture(ZOO["sequential"].build())
    assert captured.kind == "whole"
    assert set(captured.parts) == {
        f"{name}.json" for name in ("build", "compile", "compile.portable", "config", "config.portable")
    }
    assert [source.name for source in captured.tensors if source.name.startswith("weights/")] == [
        f"weights/layers/{layer}/vars/{index}" for layer in ("dense", "dense_1") for index in (0, 1)
    ]
    assert (captured.parameters, captured.trainable_parameters) == (34, 34)


def test_it_leaves_the_model_as_it_was() -> None:
    specimen = ZOO["sequential"]
    model = specimen.build()
    specimen.use(model)
    before = state(model)
    keep(model)
    np.testing.assert_equal(state(model), before)
    assert specimen.use(model)


def test_tensors_are_read_only_when_they_are_asked_for() -> None:
    model = ZOO["never_compiled"].build()
    (kernel, _) = capture(model).tensors
    model.layers[0].kernel.assign(np.zeros((5, 2)))
    assert bytes(kernel.read()) == bytes(40)


def test_weights_alone_need_no_config() -> None:
    class Nameless(keras.Model):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def call(self, inputs: Any) -> Any:
            return self.inner(inputs)

    model = Nameless(layers.Dense(2))
    model(floats(1, 3))
    captured = capture(model, architecture=False)
    assert captured.kind == "weights"
    assert set(captured.parts) == {"build.json"}
    assert not captured.custom_objects


def test_parameters_count_what_is_frozen_apart() -> None:
    captured = capture(ZOO["frozen"].build())
    assert (captured.parameters, captured.trainable_parameters) == (47, 20)


def test_shared_objects_are_numbered_alike_in_every_process() -> None:
    layer = layers.Dense(2)

    @keras.saving.register_keras_serializable("tests")
    class Twice(keras.Model):
        def __init__(self, a: Any, b: Any, **options: Any) -> None:
            super().__init__(**options)
            self.a, self.b = a, b

        def call(self, inputs: Any) -> Any:
            return self.b(self.a(inputs))

        def get_config(self) -> dict[str, Any]:
            one, other = (keras.saving.serialize_keras_object(part) for part in (self.a, self.b))
            return {**super().get_config(), "a": one, "b": other}

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            parts = {name: keras.saving.deserialize_keras_object(config.pop(name)) for name in ("a", "b")}
            return cls(**parts, **config)

    model = Twice(layer, layer)
    model(floats(1, 2))
    kept = keep(model)
    config = json.loads(kept.part("config.json"))["config"]
    assert config["a"]["shared_object_id"] == config["b"]["shared_object_id"] == 1
    restored = kept.back()
    assert restored.a is restored.b


def test_the_config_of_compile_stands_apart() -> None:
    captured = capture(ZOO["sequential"].build())
    assert "compile_config" not in json.loads(captured.parts["config.json"])
    assert json.loads(captured.parts["compile.json"])["optimizer"]["class_name"] == "Adam"


def test_vocabularies_are_parts() -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("text is TensorFlow's")
    parts = capture(ZOO["vectorized_text"].build()).parts
    assert "ünïcode" in parts["layer_assets/layers/text_vectorization/vocabulary.txt"].decode().split("\n")


@pytest.mark.parametrize(("word", "failures"), [("two words", []), ("two\u2028lines", ["vocabulary-not-readable"])])
def test_words_that_keras_cannot_read_back_are_a_failure(word: str, failures: list[str]) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("text is TensorFlow's")
    lookup = layers.StringLookup()
    lookup.set_vocabulary(["a", word])
    model = keras.Sequential([layers.Input((1,), dtype="string"), lookup])
    assert [finding.check for finding in capture(model).findings] == failures


# --- refused


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(UsageError, match="found Dense"):
        capture(layers.Dense(2))


@pytest.mark.parametrize("model", [keras.Sequential([layers.Dense(2)]), Classifier()])
def test_a_model_without_weights_yet_is_refused(model: keras.Model) -> None:
    with pytest.raises(UsageError, match="never built"):
        capture(model)


def test_a_class_whose_config_raises_is_named() -> None:
    class Stubborn(layers.Layer):
        def get_config(self) -> dict[str, Any]:
            raise NotImplementedError("not today")

    model = keras.Sequential([layers.Input((2,)), Stubborn(), layers.Dense(1)])
    with pytest.raises(CannotRebuild, match=r"^Stubborn cannot .*not today(.|\n)*architecture=False"):
        capture(model)


def test_a_class_whose_config_holds_an_object_is_named() -> None:
    class Holding(layers.Layer):
        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "callback": object()}

    with pytest.raises(CannotRebuild, match=r"^Holding cannot"):
        capture(keras.Sequential([layers.Input((2,)), Holding()]))


def test_lambdas_are_refused() -> None:
    model = keras.Sequential([layers.Input((2,)), layers.Lambda(lambda x: x * 2, name="twice")])
    model(floats(1, 2))
    with pytest.raises(UnsafeContent, match="twice"):
        capture(model)


def test_text_among_saved_variables_is_refused() -> None:
    class Noting(layers.Layer):
        def save_own_variables(self, store: Any) -> None:
            store["note"] = "spring"

    with pytest.raises(NotFaithful, match="save_assets"):
        capture(keras.Sequential([layers.Input((2,)), Noting(), layers.Dense(1)]), architecture=False)


def test_a_compile_that_cannot_be_repeated_is_a_warning() -> None:
    class Own(Classifier):
        def compile(self, rate: float) -> None:
            super().compile(optimizer=keras.optimizers.SGD(rate), loss="mse")

    model = Own()
    model(floats(1, 5))
    model.compile(0.1)
    assert "compile-not-repeatable" in [finding.check for finding in capture(model).findings]


# --- signature


def test_inputs_and_outputs_have_the_names_of_their_layers() -> None:
    signature = capture(ZOO["odd_names"].build()).signature
    assert signature is not None
    assert (signature.input_structure, signature.output_structure) == ("the input", "vars")
    assert signature.inputs[0].shape == (None, 5)


def test_nested_inputs_and_outputs_keep_their_keys() -> None:
    signature = capture(ZOO["functional"].build()).signature
    assert signature is not None
    assert signature.input_structure == {"left": "left", "right": "right"}
    assert signature.output_structure == {"score": "score", "kind": "kind"}
    assert [spec.shape for spec in signature.outputs] == [(None, 1), (None, 3)]


def test_a_subclassed_model_tells_what_it_was_built_with() -> None:
    signature = capture(ZOO["subclassed"].build()).signature
    assert signature is not None
    assert (signature.inputs[0].shape, signature.outputs[0].shape) == ((None, 5), (None, 2))
