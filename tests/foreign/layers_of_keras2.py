"""Every layer that Keras 2 exports, with arguments other than the defaults, as files and what they answer.

``python layers_of_keras2.py FOLDER`` writes ``<case>.h5`` and ``<case>.npz`` (inputs ``x0``…, outputs ``y0``…) for
each case. Needs tf-keras and runs in a process of its own: it and Keras 3 share one TensorFlow, not one session.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

if tf.__version__ > "2.16":
    import tf_keras as keras
else:
    keras = tf.keras

L = keras.layers
RANDOM = np.random.default_rng(7)

Case = tuple[str, Any, list[Any]]  # a name, a model, its inputs


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype("float32")


def images(*shape: int) -> Any:
    return RANDOM.uniform(0, 255, shape).astype("float32")


def chain(name: str, layer: Any, x: Any, **call: Any) -> Case:
    """A case of one layer between an input and an output."""
    inputs = keras.Input(x.shape[1:], dtype=x.dtype.name if x.dtype.kind != "U" else "string")
    return name, keras.Model(inputs, layer(inputs, **call)), [x]


ARGUMENTS = {
    "kernel_initializer": "he_normal",
    "bias_initializer": keras.initializers.RandomUniform(-0.2, 0.3, seed=2),
    "kernel_regularizer": keras.regularizers.L1L2(0.01, 0.02),
    "bias_regularizer": "l2",
    "activity_regularizer": keras.regularizers.L1(0.001),
    "kernel_constraint": keras.constraints.MaxNorm(3, axis=0),
    "bias_constraint": "non_neg",
}
RECURRENT = {
    "activation": "relu",
    "recurrent_initializer": keras.initializers.Orthogonal(gain=0.5, seed=1),
    "recurrent_regularizer": "l1",
    "recurrent_constraint": keras.constraints.UnitNorm(),
    "dropout": 0.1,
    "recurrent_dropout": 0.2,
}


def all_cases() -> Iterator[Case]:
    for group in (
        core,
        convolutional,
        pooling,
        recurrent,
        masked,
        others,
        normalizing,
        attending,
        merging,
        activating,
        reshaping,
        preparing,
        dropping,
    ):
        yield from group()


def core() -> Iterator[Case]:
    x = floats(5, 4)
    yield chain("Dense", L.Dense(3, activation="tanh", **ARGUMENTS), x)
    yield chain("Dense-no-bias", L.Dense(3, use_bias=False, activation="hard_sigmoid"), x)
    yield chain("Activation", L.Activation("hard_sigmoid"), x * 3)
    yield chain("Activation-swish", L.Activation("swish"), x * 3)
    yield chain("ActivityRegularization", L.ActivityRegularization(0.1, 0.2), x)
    yield chain(
        "Embedding",
        L.Embedding(
            9,
            3,
            mask_zero=True,
            embeddings_initializer="normal",
            embeddings_regularizer="l2",
            embeddings_constraint="unit_norm",
            input_length=6,
        ),
        RANDOM.integers(0, 9, (5, 6)).astype("int32"),
    )
    yield chain(
        "EinsumDense", L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d", activation="relu"), floats(2, 5, 4)
    )
    yield chain(
        "experimental-EinsumDense", L.experimental.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), floats(2, 5, 4)
    )
    yield chain("Masking", L.Masking(0.5), floats(2, 5, 4))
    yield chain("Lambda", L.Lambda(keras.activations.tanh), x)
    yield chain("TimeDistributed", L.TimeDistributed(L.Dense(3, **ARGUMENTS)), floats(2, 5, 4))
    yield chain("TimeDistributed-conv", L.TimeDistributed(L.Conv2D(2, 3, padding="same")), floats(2, 3, 5, 5, 2))
    yield chain("Identity", L.Identity(), x)
    model = keras.Sequential([L.InputLayer((4,), name="in", dtype="float32"), L.Dense(2)])
    yield "InputLayer", model, [x]


def convolutional() -> Iterator[Case]:
    for rank, x in ((1, floats(2, 9, 4)), (2, floats(2, 9, 8, 4)), (3, floats(2, 7, 6, 8, 4))):
        conv, transpose = getattr(L, f"Conv{rank}D"), getattr(L, f"Conv{rank}DTranspose")
        yield chain(f"Conv{rank}D", conv(6, 3, strides=2, padding="same", activation="relu", **ARGUMENTS), x)
        yield chain(f"Conv{rank}D-dilated", conv(6, 2, dilation_rate=2, use_bias=False), x)
        yield chain(f"Conv{rank}DTranspose", transpose(3, 3, strides=2, padding="same", **ARGUMENTS), x)
        yield chain(f"Conv{rank}DTranspose-output", transpose(3, 3, strides=2, output_padding=1, use_bias=False), x)
        yield chain(f"ZeroPadding{rank}D", getattr(L, f"ZeroPadding{rank}D")(2), x)
        yield chain(f"UpSampling{rank}D", getattr(L, f"UpSampling{rank}D")(2), x)
        yield chain(f"Cropping{rank}D", getattr(L, f"Cropping{rank}D")(1), x)
    x = floats(2, 9, 8, 4)
    yield chain("Conv1D-causal", L.Conv1D(4, 3, padding="causal"), floats(2, 9, 4))
    yield chain("Conv2D-groups", L.Conv2D(4, 3, groups=2), x)
    yield chain("UpSampling2D-bilinear", L.UpSampling2D((2, 3), interpolation="bilinear"), x)
    yield chain("UpSampling2D-bicubic", L.UpSampling2D((2, 3), interpolation="bicubic"), x)
    yield chain("UpSampling2D-area", L.UpSampling2D((2, 3), interpolation="area"), x)
    yield chain("UpSampling2D-lanczos3", L.UpSampling2D((2, 3), interpolation="lanczos3"), x)
    yield chain("UpSampling2D-lanczos5", L.UpSampling2D((2, 3), interpolation="lanczos5"), x)
    yield chain("UpSampling2D-gaussian", L.UpSampling2D((2, 3), interpolation="gaussian"), x)
    yield chain("UpSampling2D-mitchellcubic", L.UpSampling2D((2, 3), interpolation="mitchellcubic"), x)
    yield chain("ZeroPadding2D-sides", L.ZeroPadding2D(((1, 2), (0, 3))), x)
    yield chain("Cropping2D-sides", L.Cropping2D(((1, 2), (0, 3))), x)
    separable = {
        "depthwise_initializer": "he_uniform",
        "pointwise_initializer": "he_uniform",
        "depthwise_regularizer": "l1",
        "pointwise_regularizer": "l2",
        "depthwise_constraint": "max_norm",
        "pointwise_constraint": "unit_norm",
    }
    yield chain(
        "SeparableConv1D", L.SeparableConv1D(5, 3, depth_multiplier=2, activation="elu", **separable), floats(2, 9, 4)
    )
    yield chain(
        "SeparableConv2D", L.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2, **separable), x
    )
    depthwise = {
        "depthwise_initializer": "he_uniform",
        "depthwise_regularizer": "l1",
        "depthwise_constraint": "max_norm",
    }
    yield chain(
        "DepthwiseConv1D", L.DepthwiseConv1D(3, depth_multiplier=2, padding="same", **depthwise), floats(2, 9, 4)
    )
    yield chain(
        "DepthwiseConv2D", L.DepthwiseConv2D(3, strides=2, depth_multiplier=2, activation="relu", **depthwise), x
    )
    yield chain("LocallyConnected1D", L.LocallyConnected1D(3, 2), floats(2, 9, 4))
    yield chain("LocallyConnected2D", L.LocallyConnected2D(3, 2), x)


def pooling() -> Iterator[Case]:
    for rank, x in ((1, floats(2, 9, 4)), (2, floats(2, 9, 8, 4)), (3, floats(2, 7, 6, 8, 4))):
        for kind in ("Max", "Average"):
            yield chain(f"{kind}Pooling{rank}D", getattr(L, f"{kind}Pooling{rank}D")(3, strides=2, padding="same"), x)
            yield chain(f"Global{kind}Pooling{rank}D", getattr(L, f"Global{kind}Pooling{rank}D")(keepdims=True), x)


def recurrent() -> Iterator[Case]:
    x = floats(3, 6, 4)
    for name in ("SimpleRNN", "LSTM", "GRU"):
        layer, cell = getattr(L, name), getattr(L, f"{name}Cell")
        yield chain(name, layer(5, **ARGUMENTS, **RECURRENT), x)
        yield chain(
            f"{name}-sequences", layer(5, return_sequences=True, go_backwards=True, use_bias=False, unroll=True), x
        )
        yield chain(f"{name}-state", layer(5, return_state=True), x)
        yield chain(f"RNN-{name}Cell", L.RNN(cell(5, activation="sigmoid"), return_sequences=True), x)
        yield chain(
            f"Bidirectional-{name}", L.Bidirectional(layer(5, return_sequences=True, **RECURRENT), merge_mode="sum"), x
        )
        stateful = layer(5, stateful=True)
        inputs = keras.Input(batch_shape=(3, 6, 4))
        yield f"{name}-stateful", keras.Model(inputs, stateful(inputs)), [x]
    yield chain(
        "LSTM-hard", L.LSTM(5, recurrent_activation="hard_sigmoid", unit_forget_bias=False, implementation=1), x
    )
    yield chain("GRU-before", L.GRU(5, recurrent_activation="hard_sigmoid", reset_after=False), x)
    yield chain("StackedRNNCells", L.RNN(L.StackedRNNCells([L.LSTMCell(4), L.GRUCell(3), L.SimpleRNNCell(2)])), x)
    yield chain("RNN-list-of-cells", L.RNN([L.LSTMCell(4), L.LSTMCell(3)], return_sequences=True), x)
    yield chain(
        "Bidirectional-two",
        L.Bidirectional(
            L.LSTM(4, return_sequences=True),
            backward_layer=L.GRU(4, return_sequences=True, go_backwards=True),
            merge_mode="concat",
        ),
        x,
    )
    for rank, x in ((1, floats(2, 3, 7, 2)), (2, floats(2, 3, 7, 6, 2)), (3, floats(2, 3, 5, 6, 4, 2))):
        layer = getattr(L, f"ConvLSTM{rank}D")
        yield chain(f"ConvLSTM{rank}D", layer(3, 2, padding="same", return_sequences=True), x)
        yield chain(
            f"ConvLSTM{rank}D-other", layer(3, 2, activation="relu", recurrent_activation="sigmoid", use_bias=False), x
        )
    x = floats(3, 6, 4)
    inputs, state = keras.Input((6, 4)), keras.Input((5,))
    yield "GRU-initial-state", keras.Model([inputs, state], L.GRU(5)(inputs, initial_state=state)), [x, floats(3, 5)]
    second = keras.Input((5,))
    yield (
        "LSTM-initial-state",
        keras.Model([inputs, state, second], L.LSTM(5)(inputs, initial_state=[state, second])),
        [x, floats(3, 5), floats(3, 5)],
    )
    words = RANDOM.integers(0, 3, (4, 7)).astype("int32")
    inputs = keras.Input((7,), dtype="int32")
    masked = L.Bidirectional(L.LSTM(3, return_sequences=True))(L.Embedding(3, 4, mask_zero=True)(inputs))
    yield "LSTM-masked", keras.Model(inputs, L.GRU(3)(masked)), [words]


def masked() -> Iterator[Case]:
    """Which steps count is found alike by every layer that looks."""
    words = RANDOM.integers(0, 3, (4, 7)).astype("int32")
    inputs = keras.Input((7,), dtype="int32")
    x = L.Embedding(3, 4, mask_zero=True)(inputs)
    for name, make in {
        "SimpleRNN": lambda: L.SimpleRNN(3, return_sequences=True)(x),
        "LSTM": lambda: L.LSTM(3, return_sequences=True, go_backwards=True)(x),
        "GRU": lambda: L.GRU(3)(L.Dropout(0.2)(L.Dense(3)(x))),
        "Bidirectional": lambda: L.Bidirectional(L.GRU(3))(x),
        "TimeDistributed": lambda: L.LSTM(2)(L.TimeDistributed(L.Dense(3))(x)),
        "GlobalAveragePooling1D": lambda: L.GlobalAveragePooling1D()(x),
        "Concatenate": lambda: L.LSTM(2)(L.Concatenate()([x, L.Dense(2)(x)])),
        "Add": lambda: L.LSTM(2)(L.Add()([x, L.Dense(4)(x)])),
        "Attention": lambda: L.Attention()([x, x]),
        "AdditiveAttention": lambda: L.AdditiveAttention()([x, x]),
        "MultiHeadAttention": lambda: L.GlobalAveragePooling1D()(L.MultiHeadAttention(2, 3)(x, x)),
        "LayerNormalization": lambda: L.LSTM(2)(L.LayerNormalization()(x)),
        "Activation": lambda: L.LSTM(2)(L.Activation("relu")(L.BatchNormalization()(x))),
        "RNN": lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2)])(x),
        "Flatten": lambda: L.Flatten()(x),
        "Conv1D": lambda: L.GlobalMaxPooling1D()(L.Conv1D(3, 2)(x)),
    }.items():
        yield f"{name}-masked", keras.Model(inputs, make()), [words]
    padded = floats(3, 6, 4)
    padded[:, 4:] = -1.0
    inputs = keras.Input((6, 4))
    yield "Masking-lstm", keras.Model(inputs, L.LSTM(3)(L.Masking(-1.0)(inputs))), [padded]


def others() -> Iterator[Case]:
    x = floats(2, 9, 8, 4)
    yield chain("Conv2DTranspose-dilated", L.Conv2DTranspose(3, 2, dilation_rate=2), x)
    yield chain("SeparableConv2D-dilated", L.SeparableConv2D(3, 2, dilation_rate=2), x)
    yield chain("DepthwiseConv2D-dilated", L.DepthwiseConv2D(2, dilation_rate=2), x)
    yield chain("SeparableConv1D-causal", L.SeparableConv1D(3, 2, padding="causal"), floats(2, 9, 4))
    yield chain("Bidirectional-state", L.Bidirectional(L.LSTM(3, return_state=True)), floats(2, 6, 4))
    yield chain("Dense-deep", L.Dense(3, activation="softmax"), x)
    query = keras.Input((5, 4))
    causal = L.Attention()([query, query], use_causal_mask=True)
    yield "Attention-causal", keras.Model(query, causal), [floats(2, 5, 4)]
    both = L.MultiHeadAttention(2, 3)(query, query, use_causal_mask=True)
    yield "MultiHeadAttention-causal", keras.Model(query, both), [floats(2, 5, 4)]
    given = keras.Input((5, 5))
    attended = L.MultiHeadAttention(2, 3, attention_axes=(1,))(query, query, attention_mask=given)
    yield "MultiHeadAttention-mask", keras.Model([query, given], attended), [floats(2, 5, 4), floats(2, 5, 5) > 0]
    yield chain("Softmax-axes", L.Softmax(axis=(1, 2)), floats(2, 3, 4))
    yield chain("Normalization-axes", L.Normalization(axis=(1, 2), mean=1.0, variance=2.0), floats(2, 3, 4))
    yield chain("LayerNormalization-scale", L.LayerNormalization(scale=False, center=False), floats(2, 3, 4))
    yield chain("UpSampling2D-channels", L.UpSampling2D(data_format="channels_first"), x)
    yield chain("Flatten-images", L.Flatten(), x)
    yield chain("Dense-leaky", L.Dense(3, activation=L.LeakyReLU(0.3)), floats(2, 4))


def normalizing() -> Iterator[Case]:
    x = floats(4, 5, 6)
    yield chain(
        "BatchNormalization",
        L.BatchNormalization(axis=1, momentum=0.8, epsilon=0.1, scale=False, beta_regularizer="l2"),
        x,
    )
    yield chain("BatchNormalization-plain", L.BatchNormalization(), x)
    yield chain("SyncBatchNormalization", L.experimental.SyncBatchNormalization(), x)
    yield chain("LayerNormalization", L.LayerNormalization(axis=(1, 2), epsilon=0.01, center=False), x)
    yield chain("GroupNormalization", L.GroupNormalization(3, epsilon=0.01), x)
    yield chain("UnitNormalization", L.UnitNormalization(axis=(1, 2)), x)


def attending() -> Iterator[Case]:
    query, value = keras.Input((5, 4)), keras.Input((6, 4))
    xs = [floats(3, 5, 4), floats(3, 6, 4)]
    yield (
        "MultiHeadAttention",
        keras.Model(
            [query, value],
            L.MultiHeadAttention(2, 3, value_dim=4, output_shape=5, dropout=0.1, use_bias=False)(query, value),
        ),
        xs,
    )
    yield (
        "MultiHeadAttention-scores",
        keras.Model([query, value], L.MultiHeadAttention(2, 3)(query, value, return_attention_scores=True)),
        xs,
    )
    yield "Attention", keras.Model([query, value], L.Attention(use_scale=True, dropout=0.1)([query, value])), xs
    yield "Attention-concat", keras.Model([query, value], L.Attention(score_mode="concat")([query, value])), xs
    yield "AdditiveAttention", keras.Model([query, value], L.AdditiveAttention(use_scale=True)([query, value])), xs


def merging() -> Iterator[Case]:
    first, second = keras.Input((5, 4)), keras.Input((5, 4))
    xs = [floats(3, 5, 4), floats(3, 5, 4)]
    for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"):
        yield name, keras.Model([first, second], getattr(L, name)()([first, second])), xs
    yield "Concatenate", keras.Model([first, second], L.Concatenate(axis=1)([first, second])), xs
    yield "Dot", keras.Model([first, second], L.Dot(axes=(2, 2), normalize=True)([first, second])), xs


def activating() -> Iterator[Case]:
    x = floats(4, 6) * 2
    yield chain("ReLU", L.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.2), x)
    yield chain("LeakyReLU", L.LeakyReLU(alpha=0.17), x)
    yield chain("PReLU", L.PReLU(alpha_initializer="he_normal"), x)
    yield chain("PReLU-shared", L.PReLU(shared_axes=[1]), floats(2, 3, 4))
    yield chain("ELU", L.ELU(alpha=0.7), x)
    yield chain("ThresholdedReLU", L.ThresholdedReLU(theta=0.7), x)
    yield chain("Softmax", L.Softmax(axis=1), floats(2, 3, 4))
    for name in (
        "elu",
        "exponential",
        "gelu",
        "hard_sigmoid",
        "linear",
        "mish",
        "relu",
        "selu",
        "sigmoid",
        "softmax",
        "softplus",
        "softsign",
        "swish",
        "tanh",
    ):
        yield chain(f"activation-{name}", L.Activation(name), x)
    for name in ("leaky_relu", "relu6", "silu", "log_softmax", "crelu"):
        yield chain(f"activation-tf-{name}", L.Dense(3, activation=getattr(tf.nn, name)), x)
    for name in ("sin", "cos", "exp", "square", "abs", "log_sigmoid"):
        yield chain(f"activation-tf-{name}", L.Dense(3, activation=getattr(tf.math, name)), x)


def reshaping() -> Iterator[Case]:
    x = floats(2, 3, 8)
    yield chain("Flatten", L.Flatten(data_format="channels_first"), x)
    yield chain("Reshape", L.Reshape((-1, 4)), x)
    yield chain("Permute", L.Permute((2, 1)), x)
    yield chain("RepeatVector", L.RepeatVector(3), floats(2, 4))


def preparing() -> Iterator[Case]:
    x = images(2, 9, 8, 3)
    yield chain("Rescaling", L.Rescaling(1 / 127.5, offset=-1.0), x)
    for how in ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic"):
        yield chain(f"Resizing-{how}", L.Resizing(5, 12, interpolation=how), x)
    yield chain("Resizing-crop", L.Resizing(5, 12, crop_to_aspect_ratio=True), x)
    yield chain("Resizing-crop-gaussian", L.Resizing(5, 12, interpolation="gaussian", crop_to_aspect_ratio=True), x)
    yield chain("CenterCrop", L.CenterCrop(5, 4), x)
    yield chain("CenterCrop-larger", L.CenterCrop(12, 10), x)
    yield chain("RandomCrop", L.RandomCrop(5, 4, seed=3), x)
    yield chain("RandomFlip", L.RandomFlip("vertical", seed=3), x)
    yield chain(
        "RandomRotation",
        L.RandomRotation(0.2, fill_mode="constant", interpolation="nearest", seed=3, fill_value=1.0),
        x,
    )
    yield chain("RandomTranslation", L.RandomTranslation(0.1, (-0.2, 0.2), fill_mode="wrap"), x)
    yield chain("RandomZoom", L.RandomZoom((-0.1, 0.2), fill_mode="nearest"), x)
    yield chain("RandomContrast", L.RandomContrast((0.1, 0.2), seed=3), x)
    yield chain("RandomBrightness", L.RandomBrightness((-0.1, 0.2), value_range=(0, 255), seed=3), x)
    yield chain("RandomHeight", L.RandomHeight((-0.1, 0.2)), x)
    yield chain("RandomWidth", L.RandomWidth((-0.1, 0.2)), x)
    normalization = L.Normalization(axis=-1)
    normalization.adapt(x)
    yield chain("Normalization", normalization, x)
    yield chain("Normalization-given", L.Normalization(axis=None, mean=3.0, variance=2.0, invert=True), x)
    whole = RANDOM.integers(0, 12, (5, 4)).astype("int64")
    yield chain("CategoryEncoding", L.CategoryEncoding(12, output_mode="count"), whole)
    yield chain("CategoryEncoding-one-hot", L.CategoryEncoding(12, output_mode="one_hot"), whole[:, :1])
    yield chain("Discretization", L.Discretization([-0.5, 0.1, 0.9], output_mode="one_hot"), floats(5, 1))
    yield chain("Discretization-int", L.Discretization([-0.5, 0.1, 0.9]), floats(5, 3))
    yield chain("Hashing", L.Hashing(7, mask_value=3), whole)
    yield chain("Hashing-salt", L.Hashing(7, salt=133, output_mode="multi_hot"), whole)
    yield chain("IntegerLookup", L.IntegerLookup(vocabulary=[3, 5, 8], num_oov_indices=2, mask_token=0), whole)
    yield chain("IntegerLookup-one-hot", L.IntegerLookup(vocabulary=[3, 5, 8], output_mode="multi_hot"), whole)
    words = np.array([["ear", "fig"], ["gnu", ""], ["ear", "ear"]])
    yield chain("StringLookup", L.StringLookup(vocabulary=["ear", "gnu"], mask_token="", num_oov_indices=2), words)
    yield chain("StringLookup-count", L.StringLookup(vocabulary=["ear", "gnu"], output_mode="count"), words)
    texts = np.array([["The ear, a fig"], ["gnu the"]])
    yield chain(
        "TextVectorization",
        L.TextVectorization(max_tokens=8, ngrams=2, output_sequence_length=5, vocabulary=["the", "ear", "a fig"]),
        texts,
    )
    yield chain(
        "TextVectorization-count",
        L.TextVectorization(output_mode="count", standardize="lower", vocabulary=["the", "ear,"]),
        texts,
    )
    first, second = keras.Input((1,), dtype="int64"), keras.Input((1,), dtype="int64")
    if hasattr(L, "HashedCrossing"):
        crossed = L.HashedCrossing(5, output_mode="one_hot")([first, second])
        yield "HashedCrossing", keras.Model([first, second], crossed), [whole[:, :1], whole[:, 1:2]]


def dropping() -> Iterator[Case]:
    x = floats(2, 3, 4)
    yield chain("Dropout", L.Dropout(0.3, noise_shape=(None, 1, 4), seed=2), x)
    yield chain("AlphaDropout", L.AlphaDropout(0.3, seed=2), x)
    yield chain("GaussianDropout", L.GaussianDropout(0.3, seed=2), x)
    yield chain("GaussianNoise", L.GaussianNoise(0.3, seed=2), x)
    yield chain("SpatialDropout1D", L.SpatialDropout1D(0.3), x)
    yield chain("SpatialDropout2D", L.SpatialDropout2D(0.3), floats(2, 3, 4, 5))
    yield chain("SpatialDropout3D", L.SpatialDropout3D(0.3), floats(2, 3, 4, 5, 2))


def randomize(model: Any) -> None:
    """Weights as if trained: no bias is zero, no variance one."""
    for weight in model.weights:
        if weight.dtype.is_floating:
            values = RANDOM.uniform(0.1, 0.6, weight.shape)
            sign = 1 if "variance" in weight.name else RANDOM.choice([-1, 1], weight.shape)
            weight.assign((sign * values).astype(weight.dtype.as_numpy_dtype))


def write(folder: Path, name: str, model: Any, inputs: list[Any]) -> None:
    if name not in ("Normalization", "Normalization-given"):
        randomize(model)
    xs = [tf.constant(x) for x in inputs]
    outputs = model(xs[0] if len(xs) == 1 else xs, training=False)
    for layer in model.layers:
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_states"):
            layer.reset_states()
    arrays = {f"x{index}": x for index, x in enumerate(inputs)}
    arrays |= {f"y{index}": y.numpy() for index, y in enumerate(tf.nest.flatten(outputs))}
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    model.save(folder / f"{name}.h5", save_format="h5")


def main(folder: Path, cases: Iterable[Case]) -> None:
    """Write every case."""
    folder.mkdir(exist_ok=True)
    for name, model, inputs in cases:
        write(folder, name, model, inputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), all_cases())
