"""Small models of every kind that must come back as they were, each with a batch to run and train it on.

``ZOO[name].build()`` gives a compiled (where ``targets`` are given) model that was never trained;
``inputs`` and ``targets`` are one batch. A step costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

ANYWHERE = ("tensorflow", "jax", "torch")


@dataclass(frozen=True)
class Specimen:
    build: Callable[[], keras.Model]
    inputs: Any
    targets: Any = None
    backends: tuple[str, ...] = ANYWHERE

    def use(self, model: keras.Model, steps: int = 2) -> list[Any]:
        """Train on the batch where the model is compiled, else predict; what Keras reports after each step."""
        if not model.compiled:
            return [model.predict_on_batch(self.inputs) for _ in range(steps)]
        return [model.train_on_batch(self.inputs, self.targets) for _ in range(steps)]


ZOO: dict[str, Specimen] = {}


def specimen(inputs: Any, targets: Any = None, backends: tuple[str, ...] = ANYWHERE) -> Callable[..., Any]:
    """Put a build function into the zoo under its own name."""

    def add(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
        ZOO[build.__name__] = Specimen(build, inputs, targets, backends)
        return build

    return add


def here() -> list[str]:
    """The names of those that run on this backend."""
    return [name for name, one in ZOO.items() if keras.backend.backend() in one.backends]


_random = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return _random.standard_normal(shape).astype("float32")


def numbers(*shape: int, below: int = 20) -> np.ndarray[Any, Any]:
    return _random.integers(0, below, shape)


def _compiled(model: keras.Model, optimizer: Any = "adam", loss: Any = "mse", **more: Any) -> keras.Model:
    # Tracing costs more than it saves for a few steps, except under JAX, which compiles every operation by itself.
    model.compile(optimizer, loss, run_eagerly=keras.backend.backend() != "jax", **more)
    return model


# --- the three ways to make a model


@specimen(floats(8, 5), floats(8, 2))
def sequential() -> keras.Model:
    return _compiled(
        keras.Sequential([layers.Input((5,)), layers.Dense(4, "relu"), layers.Dropout(0.5), layers.Dense(2)]),
        metrics=["mae"],
    )


@specimen(floats(8, 5), floats(8, 2))
def sequential_without_input() -> keras.Model:
    model = keras.Sequential([layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)])
    model(floats(1, 5))
    return _compiled(model)


@specimen(
    {"left": floats(8, 5), "right": floats(8, 5)},
    {"score": floats(8, 1), "kind": numbers(8, 1, below=3)},
)
def functional() -> keras.Model:
    """Two inputs, two outputs, a shared layer and plain operations."""
    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    shared = layers.Dense(4, name="shared", activation="gelu")
    both = keras.ops.concatenate([shared(left), shared(right) * 2.0], axis=-1)
    outputs = {
        "score": layers.Dense(1, name="score")(both),
        "kind": layers.Dense(3, activation="softmax", name="kind")(layers.Dropout(0.3, seed=3)(both)),
    }
    return _compiled(
        keras.Model({"left": left, "right": right}, outputs),
        loss={"score": "mse", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"score": 1.0, "kind": 0.5},
        metrics={"score": ["mae"], "kind": ["accuracy"]},
    )


@specimen(floats(4, 6), floats(4, 1))
def nested() -> keras.Model:
    """A model in a model in a model, the innermost compiled, trained and frozen."""
    base = keras.Sequential(
        [layers.Input((6,)), layers.Dense(3, name="inner"), layers.BatchNormalization()], name="base"
    )
    _compiled(base)
    base.train_on_batch(floats(4, 6), floats(4, 3))
    base.trainable = False
    x = keras.Input((6,))
    middle = keras.Model(x, layers.Dense(2)(base(x)), name="middle")
    return _compiled(keras.Sequential([layers.Input((6,)), middle, layers.Dense(1)]))


@keras.saving.register_keras_serializable("zoo")
class Classifier(keras.Model):
    """Layers in attributes, lists and mappings; a metric of its own; built by being called."""

    def __init__(self, units: int = 4, depth: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.units, self.depth = units, depth
        self.first = layers.Dense(units, activation="relu")
        self.blocks = [layers.Dense(units) for _ in range(depth)]
        self.heads = {"a": layers.Dense(2), "b": layers.Dense(2)}
        self.noise = layers.GaussianNoise(0.1)
        self.seen = keras.metrics.Mean(name="seen")

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.noise(self.first(inputs), training=training)
        for block in self.blocks:
            x = keras.ops.relu(block(x))
        self.seen.update_state(keras.ops.mean(x))
        return self.heads["a"](x) + self.heads["b"](x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "depth": self.depth}


@specimen(floats(8, 5), floats(8, 2))
def subclassed() -> keras.Model:
    model = Classifier(units=3, depth=3)
    model(floats(1, 5))
    return _compiled(model)


@keras.saving.register_keras_serializable("zoo")
class OwnStep(keras.Model):
    """Built by ``build``, trained by its own ``train_step``."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.width = width
        self.inner = layers.Dense(width)

    def build(self, input_shape: Any) -> None:
        self.inner.build(input_shape)
        self.scale = self.add_weight(name="scale", shape=(self.width,), initializer="ones")

    def call(self, inputs: Any) -> Any:
        return self.inner(inputs) * self.scale

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return keras.ops.mean(keras.losses.mean_squared_error(y, y_pred)) + 0.01 * keras.ops.sum(self.scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@specimen(floats(8, 5), floats(8, 2))
def own_train_step() -> keras.Model:
    model = OwnStep(2)
    model.build((None, 5))
    return _compiled(model)


# --- layers with state of their own


@specimen(numbers(8, 6), numbers(8, 1, below=2))
def text() -> keras.Model:
    return _compiled(
        keras.Sequential(
            [
                layers.Input((6,), dtype="int32"),
                layers.Embedding(20, 4, mask_zero=True),
                layers.LSTM(3, dropout=0.2, recurrent_dropout=0.1),
                layers.Dropout(0.5),
                layers.Dense(1, activation="sigmoid"),
            ]
        ),
        loss="binary_crossentropy",
        metrics=["accuracy", keras.metrics.AUC(name="auc")],
    )


@specimen(floats(4, 6, 3), floats(4, 6, 2))
def bidirectional() -> keras.Model:
    return _compiled(
        keras.Sequential(
            [
                layers.Input((6, 3)),
                layers.Bidirectional(layers.GRU(2, return_sequences=True)),
                layers.TimeDistributed(layers.Dense(2)),
            ]
        )
    )


@specimen(floats(4, 6, 3))
def stateful_rnn() -> keras.Model:
    return keras.Sequential(
        [layers.Input(batch_shape=(4, 6, 3)), layers.LSTM(3, stateful=True), layers.Dense(1)], name="stateful"
    )


@specimen(floats(2, 8, 8, 3), numbers(2, below=4))
def images() -> keras.Model:
    return _compiled(
        keras.Sequential(
            [
                layers.Input((8, 8, 3)),
                layers.RandomFlip(seed=1),
                layers.RandomContrast(0.3),
                layers.Rescaling(0.5),
                layers.Conv2D(4, 3),
                layers.BatchNormalization(),
                layers.SeparableConv2D(4, 3, activation="silu"),
                layers.SpectralNormalization(layers.Conv2D(2, 1)),
                layers.GlobalAveragePooling2D(),
                layers.PReLU(),
                layers.Dense(4, activation="softmax"),
            ]
        ),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)],
    )


@specimen(floats(2, 5, 8), floats(2, 5, 8))
def attention() -> keras.Model:
    x = inputs = keras.Input((5, 8))
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x) + x)
    x = layers.GroupNormalization(2)(layers.EinsumDense("abc,cd->abd", output_shape=(None, 8), bias_axes="d")(x))
    return _compiled(keras.Model(inputs, x), optimizer=keras.optimizers.AdamW(1e-3))


@specimen(floats(8, 3), floats(8, 1))
def normalized() -> keras.Model:
    normalization = layers.Normalization()
    normalization.adapt(floats(32, 3) * 5 + 2)
    return _compiled(keras.Sequential([layers.Input((3,)), normalization, layers.Dense(1)]))


@specimen(numbers(8, 2, below=40), floats(8, 1), backends=("tensorflow", "torch"))
def categories() -> keras.Model:
    lookup = layers.IntegerLookup(output_mode="int")
    lookup.adapt(np.arange(30))
    inputs = keras.Input((2,), dtype="int64")
    known = layers.Embedding(40, 2)(lookup(inputs))
    hashed = layers.Embedding(8, 2)(layers.Hashing(8)(inputs))
    bins = layers.Discretization(bin_boundaries=[5.0, 10.0, 20.0])(keras.ops.cast(inputs, "float32"))
    x = layers.Flatten()(keras.ops.concatenate([known, hashed, layers.Embedding(4, 2)(bins)], axis=-1))
    return _compiled(keras.Model(inputs, layers.Dense(1)(x)))


def _words(*texts: str) -> Any:
    """A column of text, which only TensorFlow has a dtype for."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.constant([[text] for text in texts])


@specimen(_words("a fine film", "not a film", "ünïcode fine"), floats(3, 1), backends=("tensorflow",))
def vectorized_text() -> keras.Model:
    vectorize = layers.TextVectorization(output_sequence_length=4)
    vectorize.adapt(np.array(["a fine film", "a bad film", "ünïcode words"]))
    return _compiled(
        keras.Sequential(
            [
                layers.Input((1,), dtype="string"),
                vectorize,
                layers.Embedding(20, 3),
                layers.GlobalAveragePooling1D(),
                layers.Dense(1),
            ]
        )
    )


@specimen(_words("red", "green", "blue"), floats(3, 1), backends=("tensorflow",))
def looked_up_strings() -> keras.Model:
    weighted = layers.StringLookup(output_mode="tf_idf")
    weighted.adapt(np.array([["red", "green"], ["red", "blue"], ["red", "red"]]))
    inputs = keras.Input((1,), dtype="string")
    given = layers.StringLookup(vocabulary=["red", "green"], output_mode="one_hot")(inputs)
    return _compiled(keras.Model(inputs, layers.Dense(1)(keras.ops.concatenate([weighted(inputs), given], axis=-1))))


@specimen(
    {"age": keras.ops.convert_to_tensor(floats(6, 1)), "colour": _words("r", "g", "b", "r", "g", "b")},
    floats(6, 1),
    backends=("tensorflow",),
)
def feature_space() -> keras.Model:
    import tensorflow as tf

    space = keras.utils.FeatureSpace({"age": "float_normalized", "colour": "string_categorical"}, output_mode="concat")
    rows = {"age": np.arange(6.0), "colour": np.array(["r", "g", "b", "r", "g", "b"])}
    space.adapt(tf.data.Dataset.from_tensor_slices(rows))
    return _compiled(keras.Model(space.get_inputs(), layers.Dense(1)(space.get_encoded_features())))


# --- dtypes


@specimen(floats(8, 5), floats(8, 2))
def mixed_float16() -> keras.Model:
    policy = "mixed_float16"
    model = keras.Sequential(
        [layers.Input((5,)), layers.Dense(4, dtype=policy), layers.Dense(2, dtype=policy)], name="mixed"
    )
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), dynamic_growth_steps=2)
    return _compiled(model, optimizer)


@specimen(floats(8, 5), floats(8, 2))
def bfloat16() -> keras.Model:
    return _compiled(
        keras.Sequential([layers.Input((5,)), layers.Dense(4, dtype="bfloat16"), layers.Dense(2)], name="brain"), "sgd"
    )


def _for_quantizing() -> keras.Model:
    return keras.Sequential([layers.Input((8,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")])


@specimen(floats(8, 8))
def int8() -> keras.Model:
    model = _for_quantizing()
    model.quantize("int8")
    return model


@specimen(floats(8, 8))
def int4() -> keras.Model:
    model = _for_quantizing()
    model.quantize("int4")
    return model


@specimen(floats(8, 8), floats(8, 2), backends=("jax", "torch"))
def float8() -> keras.Model:
    """Quantized in place, its layers list their variables in another order than when they are built so."""
    model = _for_quantizing()
    model.quantize("float8")
    return _compiled(model)


@specimen(numbers(8, 6), floats(8, 2))
def lora() -> keras.Model:
    model = keras.Sequential(
        [layers.Input((6,), dtype="int32"), layers.Embedding(20, 4), layers.Flatten(), layers.Dense(2)], name="lora"
    )
    for layer in (model.layers[0], model.layers[2]):
        layer.enable_lora(2)
    return _compiled(model)


@specimen(floats(8, 8), floats(8, 2))
def int8_lora() -> keras.Model:
    model = _for_quantizing()
    model.quantize("int8")
    model.layers[0].enable_lora(2)
    return _compiled(model)


# --- optimizers, losses, metrics


@specimen(floats(8, 5), floats(8, 2))
def averaged() -> keras.Model:
    """Exponential moving averages, accumulated gradients, a schedule."""
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-2, 2, 0.5)
    optimizer = keras.optimizers.SGD(
        schedule, momentum=0.9, use_ema=True, ema_overwrite_frequency=3, gradient_accumulation_steps=2
    )
    return _compiled(keras.Sequential([layers.Input((5,)), layers.Dense(2)]), optimizer)


@specimen(floats(8, 5), floats(8, 2))
def nadam() -> keras.Model:
    """An optimizer that makes a variable from a value, which Keras allows only outside a StatelessScope."""
    return _compiled(keras.Sequential([layers.Input((5,)), layers.Dense(2)]), keras.optimizers.Nadam(2e-3))


@specimen(floats(8, 5), floats(8, 2))
def frozen() -> keras.Model:
    """A frozen layer, and a single frozen variable."""
    model = keras.Sequential([layers.Input((5,)), layers.Dense(4), layers.Dense(3), layers.Dense(2)])
    model.layers[0].trainable = False
    model.layers[1].bias.trainable = False
    return _compiled(model)


@specimen(floats(8, 5), floats(8, 2))
def never_compiled() -> keras.Model:
    return keras.Sequential([layers.Input((5,)), layers.Dense(2)])


@specimen(floats(8, 5), floats(8, 2))
def odd_names() -> keras.Model:
    inputs = keras.Input((5,), name="the input")
    x = layers.Dense(3, name="a layer, with spaces & ümlauts")(inputs)
    return _compiled(keras.Model(inputs, layers.Dense(2, name="vars")(x), name="model with spaces"))


@keras.saving.register_keras_serializable("zoo")
def squared(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.square(keras.ops.subtract(y_true, y_pred)), axis=-1)


@keras.saving.register_keras_serializable("zoo")
class Largest(keras.metrics.Metric):
    def __init__(self, name: str = "largest", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.value = self.add_weight(name="value", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.value.assign(keras.ops.maximum(keras.ops.convert_to_tensor(self.value), keras.ops.max(y_pred)))

    def result(self) -> Any:
        return keras.ops.convert_to_tensor(self.value)


@specimen(floats(8, 5), floats(8, 2))
def custom_objects() -> keras.Model:
    return _compiled(keras.Sequential([layers.Input((5,)), Noted(2)]), loss=squared, metrics=[Largest(), squared])


@keras.saving.register_keras_serializable("zoo")
class Noted(layers.Layer):
    """Saves itself: a variable under a name of its own, an array that is no variable, a file."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.table = np.arange(units, dtype="float32")
        self.note = "trained in spring"
        self.generator = keras.random.SeedGenerator(5)

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.units))
        self.step = self.add_weight(name="step", shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self.step.assign_add(1)
            inputs = inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.generator)
        return keras.ops.add(keras.ops.matmul(inputs, self.kernel), self.table)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}

    def save_own_variables(self, store: Any) -> None:
        store["the kernel"] = self.kernel
        store["table"] = self.table

    def load_own_variables(self, store: Any) -> None:
        self.kernel.assign(store["the kernel"])
        self.table = np.array(store["table"])

    def save_assets(self, folder: str) -> None:
        Path(folder, "note.txt").write_text(self.note)

    def load_assets(self, folder: str) -> None:
        self.note = Path(folder, "note.txt").read_text()
