"""Whole models in HDF5: older layouts of weights, custom objects, and Keras 3's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from modelkeep.errors import CannotLoad, MissingCustomObjects, NotFaithful
from modelkeep.formats.forms import open_contents
from modelkeep.live.reading import Read, h5

pytestmark = [
    pytest.mark.keras,
    # Keras' advice about its own old form.
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

RANDOM = np.random.default_rng(5)


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype("float32")


def read(path: Path, **options: Any) -> Read:
    with open_contents(path) as contents:
        return h5.read(contents, **options)


def written(
    path: Path,
    config: Any,
    weights: dict[str, dict[str, Any]],
    version: str | None = "2.2.4",
    backend: str = "tensorflow",
) -> Path:
    """A file as Keras 1 and 2 wrote it: arrays by the name of their layer and their own."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        if version:
            file.attrs["keras_version"], file.attrs["backend"] = version.encode(), backend.encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, arrays in weights.items():
            inner = group.create_group(layer)
            inner.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, array in arrays.items():
                inner.create_dataset(name, data=array)
    return path


def sequential(kind: str, shape: list[Any], **config: Any) -> dict[str, Any]:
    layer = {"class_name": kind, "config": {"name": "layer", "batch_input_shape": [None, *shape], **config}}
    return {"class_name": "Sequential", "config": [layer]}


def weights_of(model: keras.Model) -> list[Any]:
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def test_weights_of_cudnn_are_turned_to_what_the_usual_layer_has(tmp_path):
    kernel, recurrent, bias = floats(3, 8), floats(2, 8), floats(16)
    arrays = {"layer/kernel:0": kernel, "layer/recurrent_kernel:0": recurrent, "layer/bias:0": bias}
    path = written(tmp_path / "m.h5", sequential("CuDNNLSTM", [4, 3], units=2), {"layer": arrays})
    found = weights_of(read(path).model)
    gates = [gate.T.reshape(3, 2, order="F") for gate in np.split(kernel, 4, axis=1)]
    np.testing.assert_array_equal(found[0], np.concatenate(gates, axis=1))
    np.testing.assert_array_equal(found[1], np.concatenate([g.T for g in np.split(recurrent, 4, axis=1)], axis=1))
    np.testing.assert_array_equal(found[2], bias[:8] + bias[8:])


def test_biases_of_cudnns_gru_are_in_two_rows(tmp_path):
    bias = floats(12)
    arrays = {"layer/kernel:0": floats(3, 6), "layer/recurrent_kernel:0": floats(2, 6), "layer/bias:0": bias}
    path = written(tmp_path / "m.h5", sequential("CuDNNGRU", [4, 3], units=2), {"layer": arrays})
    np.testing.assert_array_equal(weights_of(read(path).model)[2], bias.reshape(2, 6))


def test_kernels_that_theano_convolved_with_are_turned_around(tmp_path):
    kernel, bias = floats(3, 2, 1, 4), floats(4)
    config = sequential("Conv2D", [5, 5, 1], filters=4, kernel_size=[3, 2])
    path = written(
        tmp_path / "m.h5", config, {"layer": {"layer/kernel:0": kernel, "layer/bias:0": bias}}, backend="theano"
    )
    np.testing.assert_array_equal(weights_of(read(path).model)[0], kernel[::-1, ::-1])


def test_gates_that_keras_1_kept_apart_come_together(tmp_path):
    names = [f"layer_{part}_{gate}" for gate in "icfo" for part in "WUb"]
    shapes = {"W": (3, 2), "U": (2, 2), "b": (2,)}
    arrays = {name: floats(*shapes[name.split("_")[1]]) for name in names}
    config = sequential("LSTM", [4, 3], output_dim=2, inner_activation="hard_sigmoid", inner_init="orthogonal")
    found = weights_of(read(written(tmp_path / "m.h5", config, {"layer": arrays}, version=None)).model)
    for part, array in zip("WUb", found, strict=True):
        gates = [arrays[f"layer_{part}_{gate}"] for gate in "ifco"]
        np.testing.assert_array_equal(array, np.concatenate(gates, axis=-1))


def test_kernels_of_keras_1_with_channels_first_are_laid_anew(tmp_path):
    kernel, bias = floats(4, 1, 3, 2), floats(4)
    config = sequential("Convolution2D", [1, 5, 5], nb_filter=4, nb_row=3, nb_col=2, dim_ordering="th")
    path = written(tmp_path / "m.h5", config, {"layer": {"layer_W": kernel, "layer_b": bias}}, version="1.2.2")
    np.testing.assert_array_equal(weights_of(read(path).model)[0], kernel.transpose(2, 3, 1, 0))


DENSE = {"layer/kernel:0": floats(3, 2), "layer/bias:0": floats(2)}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"layer": {"layer/kernel:0": floats(3, 2)}}, "layer/bias: .* has no tensor in the file"),
        ({"layer": {"layer/kernel:0": floats(4, 2), "layer/bias:0": floats(2)}}, r"the file has the shape \(4, 2\)"),
        ({"layer": DENSE, "other": {"kernel:0": floats(1)}}, "other/kernel:0: .* has no variable in the model"),
    ],
)
def test_a_tensor_or_a_variable_that_stands_alone_is_an_error(tmp_path, weights, said):
    with pytest.raises(NotFaithful, match=said):
        read(written(tmp_path / "m.h5", sequential("Dense", [3], units=2), weights))


def test_weights_go_into_a_model_whose_layers_have_other_names_by_their_order(tmp_path):
    first = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")])
    first.save(tmp_path / "m.h5")
    second = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="c"), layers.Dense(2, name="d")])
    assert read(tmp_path / "m.h5", into=second).model is second
    for one, other in zip(weights_of(first), weights_of(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_without_an_architecture_says_what_to_give(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["layer_names"] = np.array([], "S1")
    with pytest.raises(CannotLoad, match="holds weights and no architecture"):
        read(tmp_path / "m.h5")


# --- Keras 3's own


def special_loss(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.square(y_true - y_pred))


class Scaled(layers.Layer):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def shared_and_nested() -> keras.Model:
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, layers.BatchNormalization()(layers.Dense(3)(inner_input)), name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Add()([inner(inputs), inner(layers.Dense(4, "hard_sigmoid")(inputs))]))


def recurrent() -> keras.Model:
    inputs = keras.Input((6, 4))
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(inputs)
    return keras.Model(inputs, layers.MultiHeadAttention(2, 3)(x, layers.GRU(5, return_sequences=True)(x)))


@pytest.mark.backends
@pytest.mark.parametrize("make", [shared_and_nested, recurrent])
def test_a_whole_file_of_keras_3_answers_as_its_model(tmp_path, make):
    model = make()
    model.compile(keras.optimizers.Adam(0.02), "mse", metrics=["mae"])
    x = floats(3, *model.inputs[0].shape[1:])
    model.save(tmp_path / "m.h5")
    found = read(tmp_path / "m.h5").model
    expected = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found(x)), expected, atol=1e-6)
    assert float(found.optimizer.learning_rate) == pytest.approx(0.02)


@pytest.mark.parametrize("was_read", [False, True], ids=["trained", "read"])
def test_training_goes_on_from_a_file_of_keras_3(was_read, tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.Dense(1)], name="ranker")
    model.compile(keras.optimizers.Adam(0.02), "mse")
    x, y = floats(8, 3), floats(8, 1)
    model.train_on_batch(x, y)
    if was_read:  # its variables have other paths: they are made before the layers are in a model
        model.save(tmp_path / "m.keras")
        model = keras.saving.load_model(tmp_path / "m.keras")
    model.save(tmp_path / "m.h5")
    found = read(tmp_path / "m.h5").model
    for each in (model, found):
        each.train_on_batch(x, y)
    for one, other in zip(weights_of(model), weights_of(found), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.backends
def test_a_counter_of_steps_that_was_a_float_is_whole(tmp_path):
    path = written(tmp_path / "m.h5", sequential("Dense", [3], units=2), {"layer": DENSE}, version="2.0.5")
    optimizer = {"class_name": "SGD", "config": {"lr": 0.1, "momentum": 0.0, "decay": 0.0, "nesterov": False}}
    training = {"optimizer_config": optimizer, "loss": "mse", "metrics": []}
    with h5py.File(path, "r+") as file:
        file.attrs["training_config"] = json.dumps(training).encode()
        slots = file.create_group("optimizer_weights")
        slots.attrs["weight_names"] = [b"SGD/iterations:0"]
        slots["SGD/iterations:0"] = np.float32(7)
    assert int(read(path).model.optimizer.iterations) == 7


def test_custom_objects_of_a_file_of_keras_3_are_asked_for_and_taken(tmp_path):
    model = keras.Sequential([keras.Input((3,)), Scaled(3.0), layers.Dense(1)])
    model.compile("sgd", special_loss)
    model.save(tmp_path / "m.h5")
    with pytest.raises(MissingCustomObjects, match=r"2 reasons(.|\n)*Scaled(.|\n)*special_loss"):
        read(tmp_path / "m.h5")
    found = read(tmp_path / "m.h5", custom_objects=[Scaled, special_loss]).model
    assert found.loss is special_loss
    assert found.layers[0].factor == 3.0


def test_operations_between_layers_come_back_though_plain_keras_cannot_read_them(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.exp(layers.Dense(3)(inputs) * 2 + 1) / 3)
    model.save(tmp_path / "m.h5")
    with pytest.raises(Exception, match=r"positional arguments|Could not locate|Unknown"):
        keras.saving.load_model(tmp_path / "m.h5")
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(read(tmp_path / "m.h5").model(x), model(x))
