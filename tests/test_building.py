"""From a config of any Keras to a model, and one account of everything that is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import modelkeep as mk
from modelkeep.errors import CannotLoad, MissingCustomObjects, UnsafeContent
from modelkeep.live import legacy_objects
from modelkeep.live.building import Built, build, compile_model

pytestmark = pytest.mark.keras

LAMBDA = {"function": ["4wEAAAAAAAAAAAAAAAEAAAABAAAAQwAAAHMEAAAA", None, None], "function_type": "lambda"}


def sequential(*named: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    first = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 3], "name": "input"}}
    rest = [{"class_name": name, "config": {"name": f"layer_{i}", **config}} for i, (name, config) in enumerate(named)]
    return {"class_name": "Sequential", "config": {"name": "model", "layers": [first, *rest]}}


def built(*named: tuple[str, dict[str, Any]], version: str = "2.3.1", **options: Any) -> Built:
    return build(sequential(*named), keras_version=version, **options)


@keras.saving.register_keras_serializable(package="tests")
class Doubled(layers.Layer):
    def call(self, inputs):
        return inputs * 2


class Attention(layers.Layer):
    def __init__(self, heads=1, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads


def test_everything_that_is_missing_is_told_at_once():
    config = sequential(
        ("Foo", {}),
        ("Dense", {"units": 2, "activation": "mine"}),
        ("Dense", {"units": 2, "activation": "<lambda>"}),
        ("Bidirectional", {"layer": {"class_name": "Bar", "config": {"name": "bar"}}}),
    )
    with pytest.raises(MissingCustomObjects) as caught:
        build(config, keras_version="2.3.1", file="old.h5", compile_config={"loss": "special", "optimizer": "adam"})
    text = str(caught.value)
    assert "Keras 2.3.1 cannot be opened: 5 reasons" in text
    assert "used by layer_0" in text
    assert "used by compile/loss" in text
    assert {finding.subject for finding in caught.value.report} == {"Foo", "Bar", "mine", "<lambda>", "special"}
    assert "mk.load('old.h5', custom_objects={'Foo': Foo, 'mine': mine, '<lambda>': …, 'Bar': Bar" in text


def test_a_lambda_is_never_looked_into_and_can_be_given_again():
    with pytest.raises(UnsafeContent, match="lambda:layer_0: a lambda, of which the file holds bytecode only"):
        built(("Lambda", LAMBDA))
    model = built(("Lambda", LAMBDA), custom_objects={"lambda:layer_0": lambda x: x * 3}).model
    assert np.array_equal(model(np.ones((1, 3))), [[3, 3, 3]])


def test_an_activation_that_was_a_lambda_is_given_by_its_name():
    model = built(
        ("Dense", {"units": 2, "activation": "<lambda>", "kernel_initializer": "ones"}),
        custom_objects={"<lambda>": lambda x: -x},
    ).model
    assert np.array_equal(model(np.ones((1, 3))), [[-3, -3]])


def test_what_nothing_in_keras_3_does_is_told_with_what_is_missing():
    with pytest.raises(
        CannotLoad, match=r"2 reasons(.|\n)*layer_0: time_major=True: Keras 3 takes batch-major"
    ) as caught:
        built(("LSTM", {"units": 2, "time_major": True}), ("Foo", {}))
    assert [finding.check for finding in caught.value.report] == ["no-equivalent", "custom-object"]


def test_a_class_that_is_given_goes_before_keras_own():
    model = built(("Attention", {"heads": 4}), custom_objects=[Attention]).model
    assert type(model.layers[0]) is Attention
    assert model.layers[0].heads == 4


def test_what_is_registered_need_not_be_given():
    assert type(built(("tests>Doubled", {})).model.layers[0]) is Doubled


def test_nothing_is_imported_because_a_config_names_it():
    config = sequential(("Dense", {"units": 2}))
    config["config"]["layers"][1] |= {"module": "antigravity", "registered_name": "Dense"}
    with pytest.raises(MissingCustomObjects, match="Dense: a class that is not Keras' own"):
        build(config, keras_version="2.13.0")


def test_arguments_that_switch_nothing_on_and_are_unknown_are_left_out():
    model = built(("Dense", {"units": 2, "later": None, "another": False}), version="3.99.0").model
    assert model.layers[0].units == 2
    with pytest.raises(CannotLoad, match=r"Dense knows no argument later in Keras .*, found 3"):
        built(("Dense", {"units": 2, "later": 3}), version="3.99.0")


def test_a_config_that_is_not_a_models_is_refused():
    with pytest.raises(CannotLoad, match="not that of a model"):
        build({"class_name": "Dense", "config": {"units": 2}}, keras_version="2.3.1")


def test_hard_sigmoid_is_the_old_one_and_stays_so(tmp_path: Path):
    model = built(("Dense", {"units": 2, "activation": "hard_sigmoid", "kernel_initializer": "ones"})).model
    x = np.full((1, 3), 1 / 3, "float32")
    np.testing.assert_allclose(model(x), 0.7)
    keep = mk.open(tmp_path / "models")
    keep.save(model, "m")
    np.testing.assert_allclose(keep.load("m").model(x), 0.7)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "m.keras")(x), 0.7)
    np.testing.assert_allclose(mk.load(tmp_path / "m.keras").model(x), 0.7)


def test_what_is_kept_of_older_keras_is_saved_and_opened_like_any_other(tmp_path: Path):
    x = np.random.default_rng(1).standard_normal((2, 6, 5, 3)).astype("float32")
    model = keras.Sequential(
        [keras.Input((6, 5, 3)), legacy_objects.LocallyConnected2D(2, 3), legacy_objects.RandomHeight(0.2)]
    )
    keep = mk.open(tmp_path / "models")
    keep.save(model, "m")
    np.testing.assert_allclose(keep.load("m").model(x), model(x), atol=1e-6)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(mk.load(tmp_path / "m.keras").model(x), model(x), atol=1e-6)


@pytest.mark.backends
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_locally_connected_layer_is_a_convolution_where_its_kernels_are_equal(data_format):
    x = np.random.default_rng(2).standard_normal((2, 7, 6, 3)).astype("float32")
    x = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
    local = legacy_objects.LocallyConnected2D(4, (3, 2), (2, 1), data_format=data_format, use_bias=False)
    local.build(x.shape)
    kernel = np.random.default_rng(3).standard_normal((3, 2, 3, 4)).astype("float32")
    window = kernel if data_format == "channels_last" else kernel.transpose(2, 0, 1, 3)
    local.kernel.assign(np.broadcast_to(window.reshape(1, -1, 4), local.kernel.shape))
    plain = keras.ops.conv(np.moveaxis(x, 1, -1) if data_format == "channels_first" else x, kernel, (2, 1))
    plain = keras.ops.convert_to_numpy(plain)
    expected = np.moveaxis(plain, -1, 1) if data_format == "channels_first" else plain
    np.testing.assert_allclose(keras.ops.convert_to_numpy(local(x)), expected, atol=1e-5)


def test_random_lengths_change_in_training_alone():
    x = np.ones((1, 10, 8, 1), "float32")
    layer = legacy_objects.RandomHeight((0.5, 0.5))
    assert layer(x).shape == (1, 10, 8, 1)
    assert layer(x, training=True).shape == (1, 15, 8, 1)
    assert legacy_objects.RandomWidth((-0.5, -0.5))(x, training=True).shape == (1, 10, 4, 1)


def test_compile_takes_what_an_old_file_says():
    found = built(("Dense", {"units": 1}))
    sgd = {"class_name": "SGD", "config": {"lr": 0.5, "momentum": 0.9, "decay": 0.0, "nesterov": True}}
    config = {
        "optimizer_config": sgd,
        "loss": "mean_squared_error",
        "metrics": ["accuracy"],
        "sample_weight_mode": None,
        "loss_weights": None,
    }
    assert compile_model(found.model, config, keras_version="2.0.5", objects=found.objects) == ()
    assert found.model.optimizer.learning_rate == 0.5
    assert found.model.optimizer.nesterov


def test_what_compile_lacks_can_be_given_and_is_passed_on():
    def special(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(y_true - y_pred)

    config = {"optimizer": "sgd", "loss": "special"}
    found = build(
        sequential(("Dense", {"units": 1})), keras_version="2.3.1", compile_config=config, custom_objects=[special]
    )
    compile_model(found.model, config, keras_version="2.3.1", objects=found.objects)
    assert found.model.loss is special


def test_what_only_training_needs_can_be_left_out():
    config = sequential(("Dense", {"units": 1}))
    with pytest.raises(MissingCustomObjects, match=r"or without its optimizer and losses: compile=False"):
        build(config, keras_version="2.3.1", compile_config={"loss": "special"})


def test_the_config_that_is_built_is_json():
    json.dumps(built(("Dense", {"units": 2, "activation": "hard_sigmoid"})).config)
