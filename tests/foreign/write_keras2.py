"""Writes ``keras2/``: models of every kind as a real TensorFlow 2.12 (Keras 2.12) saves them, and what they answer.

Run once, with Python 3.11 and ``pip install tensorflow-cpu==2.12.1``::

    python write_keras2.py

For each kind ``keras2/<kind>.h5`` is the whole model; ``keras2/architectures.json`` has all of ``to_json()``,
``keras2/answers.npz`` inputs (``<kind>/x0``…) and outputs (``<kind>/y0``…). Some come as weights alone
(``<kind>-weights.h5``). Of the models that were trained, ``<kind>/after/<i>`` are the weights after one more step, on
``<kind>/x0`` and ``<kind>/target``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

keras = tf.keras
L = keras.layers
FOLDER = Path(__file__).parent / "keras2"
RANDOM = np.random.default_rng(12)

Made = tuple[Any, list[Any]]  # a model and its inputs
KINDS: dict[str, Callable[[], Made]] = {}
TRAINED: dict[str, Callable[[], Any]] = {}
ALONE = ("sequential", "functional", "nested", "gru", "slashes")


def kind(make: Callable[[], Made]) -> Callable[[], Made]:
    KINDS[make.__name__] = make
    return make


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype("float32")


@kind
def sequential() -> Made:
    model = keras.Sequential(
        [
            L.Dense(5, activation="relu", input_shape=(4,), kernel_regularizer=keras.regularizers.l1_l2(0.01, 0.02)),
            L.Dropout(0.3),
            L.Dense(3, activation="softmax", kernel_initializer="he_normal", bias_constraint="non_neg"),
        ]
    )
    return model, [floats(6, 4)]


@kind
def sequential_without_shape() -> Made:
    model = keras.Sequential([L.Dense(5, activation="tanh"), L.Dense(2)])
    model.build((None, 4))
    return model, [floats(6, 4)]


@kind
def functional() -> Made:
    first, second = keras.Input((4,), name="first"), keras.Input((3,), name="second")
    joined = L.Concatenate()([L.Dense(4, activation="elu")(first), second])
    outputs = [L.Dense(2, name="one")(joined), L.Dense(1, activation="sigmoid", name="two")(joined)]
    return keras.Model([first, second], outputs), [floats(5, 4), floats(5, 3)]


@kind
def shared() -> Made:
    inputs, other = keras.Input((4,)), keras.Input((4,))
    layer = L.Dense(4, activation="tanh")
    return keras.Model([inputs, other], L.Add()([layer(layer(inputs)), layer(other)])), [floats(5, 4), floats(5, 4)]


@kind
def nested() -> Made:
    inner_input = keras.Input((4,))
    normalized = L.BatchNormalization()(L.Dense(3)(inner_input))
    inner = keras.Model(inner_input, [L.Dense(2)(normalized), normalized], name="inner")
    chain = keras.Sequential([L.Dense(4, input_shape=(3,)), L.BatchNormalization(), L.Dense(2)], name="chain")
    inputs = keras.Input((4,))
    first, second = inner(inputs)
    third, fourth = inner(L.Dense(4)(inputs))
    return keras.Model(inputs, L.Concatenate()([first, third, chain(second), chain(fourth)])), [floats(5, 4)]


@kind
def nested_output() -> Made:
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, L.Dense(3)(inner_input))
    inputs = keras.Input((4,))
    return keras.Model(inputs, [inner(inputs), inner(L.Dense(4)(inputs))]), [floats(5, 4)]


@kind
def frozen() -> Made:
    inner = keras.Sequential([L.Dense(4, input_shape=(4,)), L.BatchNormalization(), L.Dense(3)])
    inner.layers[1].trainable = False
    inner.layers[0].trainable = False
    inputs = keras.Input((4,))
    layer = L.Dense(4)
    layer.trainable = False
    return keras.Model(inputs, inner(layer(inputs))), [floats(5, 4)]


@kind
def slashes() -> Made:
    inputs = keras.Input((4,), name="part/input")
    x = L.Dense(3, name="part/dense")(inputs)
    return keras.Model(inputs, L.Dense(2, name="part_dense")(x), name="whole/model"), [floats(5, 4)]


@kind
def lstm() -> Made:
    x = L.Embedding(20, 6, mask_zero=True)
    model = keras.Sequential(
        [keras.Input((7,), dtype="int32"), x, L.LSTM(5, return_sequences=True), L.LSTM(4), L.Dense(1)]
    )
    return model, [RANDOM.integers(0, 20, (4, 7)).astype("int32")]


@kind
def gru() -> Made:
    model = keras.Sequential([L.GRU(5, return_sequences=True, input_shape=(6, 3)), L.GRU(4, reset_after=False)])
    return model, [floats(4, 6, 3)]


@kind
def bidirectional() -> Made:
    inputs = keras.Input((6, 3))
    x = L.Bidirectional(L.LSTM(4, return_sequences=True, recurrent_activation="hard_sigmoid"))(inputs)
    x = L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="ave")(x)
    return keras.Model(inputs, L.TimeDistributed(L.Dense(2))(x)), [floats(4, 6, 3)]


@kind
def cells() -> Made:
    inputs = keras.Input((6, 3))
    x = L.RNN([L.LSTMCell(4), L.GRUCell(3)], return_sequences=True)(inputs)
    return keras.Model(inputs, L.SimpleRNN(3, go_backwards=True)(x)), [floats(4, 6, 3)]


@kind
def states() -> Made:
    source, target = keras.Input((5, 3)), keras.Input((4, 3))
    _, *state = L.LSTM(6, return_state=True)(source)
    decoded = L.LSTM(6, return_sequences=True)(target, initial_state=state)
    return keras.Model([source, target], L.Dense(3)(decoded)), [floats(4, 5, 3), floats(4, 4, 3)]


@kind
def convlstm() -> Made:
    inputs = keras.Input((3, 6, 6, 2))
    return keras.Model(inputs, L.ConvLSTM2D(3, 3, padding="same")(inputs)), [floats(2, 3, 6, 6, 2)]


@kind
def convolutions() -> Made:
    inputs = keras.Input((12, 12, 3))
    x = L.Conv2D(4, 3, strides=2, padding="same", activation="relu")(inputs)
    x = L.SeparableConv2D(6, 3, padding="same", depth_multiplier=2)(x)
    x = L.DepthwiseConv2D(3, padding="same")(L.BatchNormalization()(x))
    x = L.UpSampling2D()(L.MaxPooling2D()(L.Conv2DTranspose(4, 3, strides=2)(x)))
    return keras.Model(inputs, L.GlobalAveragePooling2D()(L.ZeroPadding2D()(x))), [floats(2, 12, 12, 3)]


@kind
def convolutions_1d() -> Made:
    inputs = keras.Input((12, 3))
    x = L.SeparableConv1D(5, 3)(L.Conv1D(4, 3, padding="causal", dilation_rate=2)(inputs))
    return keras.Model(inputs, L.Conv1DTranspose(3, 2)(L.LocallyConnected1D(4, 2)(x))), [floats(2, 12, 3)]


@kind
def convolutions_3d() -> Made:
    inputs = keras.Input((6, 6, 6, 2))
    x = L.AveragePooling3D()(L.Conv3D(3, 2)(inputs))
    return keras.Model(inputs, L.Conv3DTranspose(2, 2)(x)), [floats(2, 6, 6, 6, 2)]


@kind
def normalizations() -> Made:
    inputs = keras.Input((5, 6))
    x = L.LayerNormalization(axis=[1, 2])(L.BatchNormalization(axis=1, epsilon=0.01)(inputs))
    x = L.UnitNormalization()(L.GroupNormalization(3)(x))
    return keras.Model(inputs, L.Dense(3)(x)), [floats(4, 5, 6)]


@kind
def attention() -> Made:
    query, value = keras.Input((5, 4)), keras.Input((6, 4))
    x = L.MultiHeadAttention(2, 3, dropout=0.1)(query, value)
    y = L.AdditiveAttention()([x, L.Attention(use_scale=True)([query, value])])
    return keras.Model([query, value], y), [floats(3, 5, 4), floats(3, 6, 4)]


@kind
def transformer() -> Made:
    inputs = keras.Input((6, 8))
    x = L.LayerNormalization(epsilon=1e-6)(inputs + L.MultiHeadAttention(2, 4)(inputs, inputs, use_causal_mask=True))
    return keras.Model(inputs, x + L.Dense(8, activation="gelu")(x)), [floats(3, 6, 8)]


@kind
def activations() -> Made:
    inputs = keras.Input((6,))
    x = L.PReLU()(L.LeakyReLU(0.2)(L.Dense(6)(inputs)))
    x = L.ThresholdedReLU(0.1)(L.ELU(0.5)(x)) + L.ReLU(max_value=2.0, negative_slope=0.1)(x)
    x = L.Dense(4, activation=L.LeakyReLU(0.4))(L.Dense(4, activation="hard_sigmoid")(x))
    return keras.Model(inputs, L.Softmax()(L.Dense(3, activation=tf.nn.silu)(x))), [floats(4, 6)]


@kind
def images() -> Made:
    inputs = keras.Input((9, 8, 3))
    x = L.RandomRotation(0.2)(L.RandomFlip("horizontal")(L.Rescaling(1 / 255.0)(inputs)))
    x = L.CenterCrop(6, 6)(L.Resizing(7, 7, crop_to_aspect_ratio=True)(x))
    return keras.Model(inputs, L.RandomContrast(0.2)(x)), [RANDOM.uniform(0, 255, (2, 9, 8, 3)).astype("float32")]


@kind
def tabular() -> Made:
    number, whole = keras.Input((2,)), keras.Input((1,), dtype="int64")
    normalization = L.Normalization()
    normalization.adapt(floats(20, 2) * 3 + 1)
    parts = [
        normalization(number),
        L.Discretization([-0.5, 0.0, 0.5], output_mode="one_hot")(number[:, :1]),
        L.CategoryEncoding(5, output_mode="one_hot")(L.IntegerLookup(vocabulary=[2, 4, 6])(whole)),
        L.Hashing(4, output_mode="one_hot")(whole),
    ]
    return keras.Model([number, whole], L.Concatenate()(parts)), [floats(5, 2), np.array([[2], [4], [5], [6], [1]])]


@kind
def operations() -> Made:
    inputs = keras.Input((4, 3))
    x = tf.nn.relu(L.Dense(6)(inputs))[:, 1:, ::2] * 2.0
    mean = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
    x = tf.concat([x - mean, tf.cast(x > 0.5, tf.float32)], axis=-1)
    x = tf.reshape(x, [tf.shape(x)[0], -1]) / 3.0
    return keras.Model(inputs, tf.math.l2_normalize(1.0 - x, axis=-1)), [floats(5, 4, 3)]


@kind
def mixed_precision() -> Made:
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = keras.Sequential([L.Dense(5, input_shape=(4,), activation="relu"), L.Dense(2, dtype="float32")])
    keras.mixed_precision.set_global_policy("float32")
    return model, [floats(5, 4)]


@kind
def stateful() -> Made:
    inputs = keras.Input(batch_shape=(2, 5, 3))
    return keras.Model(inputs, L.LSTM(4, stateful=True)(inputs)), [floats(2, 5, 3)]


@kind
def dictionaries() -> Made:
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((3,), name="b")}
    outputs = {"sum": L.Add()([inputs["a"], inputs["b"]]), "dense": L.Dense(2)(inputs["a"])}
    return keras.Model(inputs, outputs), [floats(4, 3), floats(4, 3)]


NEW, OLD = keras.optimizers, keras.optimizers.legacy
TRAINED |= {
    "sgd": lambda: NEW.SGD(0.05),
    "sgd_momentum": lambda: NEW.SGD(0.05, momentum=0.8, nesterov=True),
    "adam": lambda: NEW.Adam(0.01, beta_1=0.8, amsgrad=True, clipnorm=1.0),
    "adamw": lambda: NEW.AdamW(NEW.schedules.ExponentialDecay(0.01, 2, 0.9), weight_decay=0.02),
    "adamax": lambda: NEW.Adamax(0.01),
    "nadam": lambda: NEW.Nadam(0.01),
    "rmsprop": lambda: NEW.RMSprop(0.01, momentum=0.5, centered=True),
    "adagrad": lambda: NEW.Adagrad(0.05),
    "adadelta": lambda: NEW.Adadelta(0.5),
    "ftrl": lambda: NEW.Ftrl(0.05, l1_regularization_strength=0.001),
    "adafactor": lambda: NEW.Adafactor(0.01),
    "legacy_sgd": lambda: OLD.SGD(0.05, momentum=0.8, decay=0.1),
    "legacy_adam": lambda: OLD.Adam(0.01, decay=0.05),
    "legacy_rmsprop": lambda: OLD.RMSprop(0.01, momentum=0.5, centered=True),
    "legacy_adagrad": lambda: OLD.Adagrad(0.05),
    "legacy_adadelta": lambda: OLD.Adadelta(0.5),
    "legacy_adamax": lambda: OLD.Adamax(0.01),
    "legacy_nadam": lambda: OLD.Nadam(0.01),
    "legacy_ftrl": lambda: OLD.Ftrl(0.05),
}


def trained(name: str, optimizer: Any) -> dict[str, Any]:
    """A small model after three steps, saved; and its weights after a fourth."""
    model = keras.Sequential([L.Dense(3, activation="tanh", input_shape=(2,)), L.BatchNormalization(), L.Dense(1)])
    model.compile(optimizer, keras.losses.MeanSquaredError(), metrics=["mae", keras.metrics.RootMeanSquaredError()])
    x, target = floats(8, 2), floats(8, 1)
    for _ in range(3):
        model.train_on_batch(x, target)
    model.save(FOLDER / f"{name}.h5")
    answer = model(x, training=False).numpy()
    model.train_on_batch(x, target)
    after = {f"after/{index}": weight for index, weight in enumerate(model.get_weights())}
    return {"x0": x, "y0": answer, "target": target, **after}


def randomized(model: Any) -> None:
    """Weights as if trained: no bias is zero, no variance one."""
    for weight in model.weights:
        if weight.dtype.is_floating and not weight.name.startswith(("mean", "variance", "count")):
            values = RANDOM.uniform(0.1, 0.6, weight.shape)
            sign = 1 if "variance" in weight.name else RANDOM.choice([-1, 1], weight.shape)
            weight.assign((sign * values).astype("float32"))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    answers: dict[str, Any] = {}
    architectures: dict[str, Any] = {}
    for name, make in KINDS.items():
        keras.backend.clear_session()
        model, inputs = make()
        randomized(model)
        model.compile("adam", "mse")
        model.save(FOLDER / f"{name}.h5")
        if name in ALONE:
            model.save_weights(FOLDER / f"{name}-weights.h5")
        architectures[name] = json.loads(model.to_json())
        given = dict(zip(model.input_names, inputs, strict=True)) if name == "dictionaries" else inputs
        outputs = tf.nest.flatten(model(given if len(inputs) > 1 else inputs[0], training=False))
        answers |= {f"{name}/x{index}": x for index, x in enumerate(inputs)}
        answers |= {f"{name}/y{index}": y.numpy() for index, y in enumerate(outputs)}
    for name, optimizer in TRAINED.items():
        keras.backend.clear_session()
        answers |= {f"{name}/{key}": value for key, value in trained(name, optimizer()).items()}
    np.savez_compressed(FOLDER / "answers.npz", **answers)
    (FOLDER / "architectures.json").write_text(json.dumps(architectures, indent=None) + "\n")


if __name__ == "__main__":
    main()
