"""What comes out of a layer, told from its config, is what comes out of the layer."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from modelkeep.inspecting.shapes import output_shape

pytestmark = pytest.mark.keras

IMAGE, SEQUENCE, ROW, WORDS = (None, 17, 12, 3), (None, 9, 4), (None, 6), (None, 9)
CASES: list[tuple[layers.Layer, tuple[Any, ...]]] = [
    (layers.Dense(7), ROW),
    (layers.Dense(7), SEQUENCE),
    (layers.Conv1D(5, 3, strides=2, padding="causal"), SEQUENCE),
    (layers.Conv2D(5, (3, 2), strides=(2, 1)), IMAGE),
    (layers.Conv2D(5, 3, padding="same", strides=2), IMAGE),
    (layers.Conv2D(5, 3, dilation_rate=2), IMAGE),
    (layers.Conv2D(5, 3, padding="same"), (None, None, None, 3)),
    (layers.Conv3D(2, 2), (None, 5, 6, 7, 1)),
    (layers.SeparableConv2D(5, 3), IMAGE),
    (layers.DepthwiseConv2D(3, depth_multiplier=2), IMAGE),
    (layers.Conv2DTranspose(4, 3, strides=2), IMAGE),
    (layers.Conv2DTranspose(4, 3, strides=2, padding="same"), IMAGE),
    (layers.Conv1DTranspose(4, 2, strides=3), SEQUENCE),
    (layers.MaxPooling2D(), IMAGE),
    (layers.AveragePooling2D((3, 2), strides=1, padding="same"), IMAGE),
    (layers.MaxPooling1D(2), SEQUENCE),
    (layers.GlobalAveragePooling2D(), IMAGE),
    (layers.GlobalMaxPooling1D(keepdims=True), SEQUENCE),
    (layers.Flatten(), IMAGE),
    (layers.Flatten(), (None, None, 3)),
    (layers.Reshape((3, -1)), ROW),
    (layers.Permute((2, 1)), SEQUENCE),
    (layers.RepeatVector(4), ROW),
    (layers.Embedding(50, 8), WORDS),
    (layers.LSTM(5), SEQUENCE),
    (layers.GRU(5, return_sequences=True), SEQUENCE),
    (layers.RNN(layers.LSTMCell(6)), SEQUENCE),
    (layers.Bidirectional(layers.LSTM(5, return_sequences=True)), SEQUENCE),
    (layers.Bidirectional(layers.GRU(5), merge_mode="sum"), SEQUENCE),
    (layers.TimeDistributed(layers.Dense(3)), SEQUENCE),
    (layers.ZeroPadding2D(((1, 2), (3, 4))), IMAGE),
    (layers.ZeroPadding1D(2), SEQUENCE),
    (layers.Cropping2D(2), IMAGE),
    (layers.Cropping1D((1, 2)), SEQUENCE),
    (layers.UpSampling2D((2, 3)), IMAGE),
    (layers.Resizing(4, 5), IMAGE),
    (layers.CenterCrop(4, 5), IMAGE),
    (layers.BatchNormalization(), IMAGE),
    (layers.Dropout(0.5), ROW),
    (layers.Activation("relu"), ROW),
]


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda value: getattr(value, "name", None))
def test_the_shape_of_a_layer_is_what_keras_computes(layer: layers.Layer, shape: tuple[Any, ...]) -> None:
    dtype = "int32" if isinstance(layer, layers.Embedding) else "float32"
    computed = layer(keras.KerasTensor(shape, dtype=dtype)).shape
    config = keras.saving.serialize_keras_object(layer)
    assert output_shape(config["class_name"], config["config"], [shape]) == computed


@pytest.mark.parametrize("merge", [layers.Add(), layers.Multiply(), layers.Concatenate(), layers.Concatenate(axis=1)])
def test_the_shape_of_merged_inputs_is_what_keras_computes(merge: layers.Layer) -> None:
    inputs = [keras.KerasTensor((None, 4, 6)), keras.KerasTensor((None, 4, 6))]
    config = keras.saving.serialize_keras_object(merge)
    assert output_shape(config["class_name"], config["config"], [(None, 4, 6)] * 2) == merge(inputs).shape


@pytest.mark.parametrize("config", [{}, {"units": None}, {"kernel_size": "x", "filters": 3}, {"layer": 3}])
def test_a_config_that_is_not_what_the_class_writes_gives_no_shape(config: dict[str, Any]) -> None:
    for name in ("Conv2D", "Bidirectional", "Reshape", "Resizing"):
        assert output_shape(name, config, [(None, 4, 4, 3)]) is None
