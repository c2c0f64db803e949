"""Small trainings of every kind that must go on as if nothing had happened; run by ``exactness.py``, killed on the way.

Each one builds its model and data anew from fixed seeds, as a script does that is started again, and trains by its
:class:`Run`. An epoch is six steps, a step costs milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from keras import callbacks, layers, optimizers

ANYWHERE = ("tensorflow", "jax", "torch")
EPOCHS = 3
BATCH = 8


class Run(Protocol):
    """What a training is given: where to train, and whom to tell what it sees."""

    folder: Path
    checkpoints: Any

    def fit(self, model: keras.Model, *data: Any, **options: Any) -> Any:
        """Train as ``model.fit`` does, for three epochs; what every step gave is written down."""

    def tell(self, *event: Any, values: Any = None) -> None:
        """Write down what a loop of the training's own saw."""

    def finish(self, model: keras.Model, **more: Any) -> None:
        """Write down what training left."""


@dataclass(frozen=True)
class Training:
    section: str
    title: str
    train: Callable[[Run], None]
    backends: tuple[str, ...]
    options: dict[str, Any]  # of its checkpoints, beside the usual ones


TRAININGS: dict[str, Training] = {}


def section(name: str) -> Callable[..., Any]:
    """A part of the table; what it returns puts the function below it there under its own name."""

    def training(title: str, *, backends: tuple[str, ...] = ANYWHERE, **options: Any) -> Callable[..., Any]:
        def add(train: Callable[[Run], None]) -> Callable[[Run], None]:
            TRAININGS[train.__name__] = Training(name, title, train, backends, options)
            return train

        return add

    return training


def here() -> list[str]:
    """The names of those that run on this backend."""
    return [name for name, one in TRAININGS.items() if keras.backend.backend() in one.backends]


_random = np.random.default_rng(11)
X = _random.standard_normal((6 * BATCH, 6)).astype("float32")
Y = (X[:, :1] * 2 - X[:, 1:2] + 0.3 * _random.standard_normal((6 * BATCH, 1))).astype("float32")
KINDS = (Y[:, 0] > 0).astype("int32")
WEIGHTS = _random.uniform(0.2, 2.0, 6 * BATCH).astype("float32")
IMAGES = _random.uniform(0, 1, (6 * BATCH, 6, 6, 1)).astype("float32")
SEQUENCES = _random.standard_normal((6 * BATCH, 5, 3)).astype("float32")
HELD_OUT = (_random.standard_normal((2 * BATCH, 6)).astype("float32"), np.ones((2 * BATCH, 1), "float32"))


def chain(*parts: keras.Layer, shape: tuple[int, ...] = (6,), batch: int | None = None) -> keras.Model:
    return keras.Sequential([keras.Input(shape, batch_size=batch), *parts])


def compiled(model: keras.Model, optimizer: Any = "adam", loss: Any = "mse", **options: Any) -> keras.Model:
    model.compile(optimizer, loss, **{"metrics": ["mae"], **options})
    return model


def noisy(**options: Any) -> keras.Model:
    """A model whose every step draws random numbers."""
    return compiled(chain(layers.Dense(8, "relu"), layers.Dropout(0.3), layers.Dense(1)), **options)


# --- layers

layer = section("Layers")


@layer("dropout")
def dropout(run: Run) -> None:
    run.fit(noisy(), X, Y)


@layer("augmentation layers")
def augmentation_layers(run: Run) -> None:
    parts = [layers.RandomFlip(), layers.RandomRotation(0.2), layers.RandomContrast(0.5), layers.Flatten()]
    run.fit(compiled(chain(*parts, layers.Dense(1), shape=(6, 6, 1))), IMAGES, Y)


@layer("batch normalization")
def batch_normalization(run: Run) -> None:
    run.fit(compiled(chain(layers.Dense(8), layers.BatchNormalization(momentum=0.8), layers.Dense(1))), X, Y)


@layer("recurrent layers with dropout")
def recurrent_dropout(run: Run) -> None:
    recurrent = layers.SimpleRNN(4, dropout=0.2, recurrent_dropout=0.2)
    run.fit(compiled(chain(recurrent, layers.Dense(1), shape=(5, 3))), SEQUENCES, Y)


@layer("recurrent layers that keep their state between batches")
def stateful_recurrent(run: Run) -> None:
    recurrent = layers.SimpleRNN(4, stateful=True)
    run.fit(compiled(chain(recurrent, layers.Dense(1), shape=(5, 3), batch=BATCH)), SEQUENCES, Y, shuffle=False)


# --- optimizers

optimizer = section("Optimizers")


def _trained_by(title: str, name: str, **options: Any) -> None:
    if not hasattr(optimizers, name):
        return

    def train(run: Run) -> None:
        run.fit(noisy(optimizer=getattr(optimizers, name)(**options)), X, Y)

    train.__name__ = name.lower()
    optimizer(title)(train)


_trained_by("SGD with momentum", "SGD", learning_rate=0.01, momentum=0.9, nesterov=True)
_trained_by("Adam (amsgrad)", "Adam", amsgrad=True)
for _name in ("AdamW", "Adamax", "Adadelta", "Adafactor", "Adagrad", "Ftrl", "Lamb", "Lion", "Muon", "Nadam"):
    _trained_by(_name, _name)
_trained_by("RMSprop (centered, with momentum)", "RMSprop", centered=True, momentum=0.5)
_trained_by("ScheduleFreeAdamW", "ScheduleFreeAdamW", warmup_steps=4)


@optimizer("gradient accumulation")
def gradient_accumulation(run: Run) -> None:
    run.fit(noisy(optimizer=optimizers.Adam(gradient_accumulation_steps=5)), X, Y)


@optimizer("weight averaging (`use_ema`)")
def weight_averaging(run: Run) -> None:
    averaged = optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=5)
    run.fit(noisy(optimizer=averaged), X, Y)


@optimizer("clipping, weight decay")
def clipping(run: Run) -> None:
    run.fit(noisy(optimizer=optimizers.SGD(0.05, global_clipnorm=0.5, weight_decay=0.01)), X, Y)


@optimizer("a learning rate schedule object")
def learning_rate_schedule(run: Run) -> None:
    schedule = optimizers.schedules.CosineDecay(0.05, 15, warmup_target=0.1, warmup_steps=4)
    run.fit(noisy(optimizer=optimizers.SGD(schedule, momentum=0.5)), X, Y)


# --- precision

precision = section("Precision")


@precision("`mixed_float16`, dynamic loss scale")
def mixed_float16(run: Run) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    parts = [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(1)]
    # Large enough to overflow at first, so that it shrinks, and then grows every three steps.
    scaled = optimizers.LossScaleOptimizer(optimizers.Adam(0.01), initial_scale=2.0**22, dynamic_growth_steps=3)
    run.fit(compiled(chain(*parts), scaled), X, Y)


@precision("`mixed_bfloat16`")
def mixed_bfloat16(run: Run) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    run.fit(noisy(), X, Y)


# --- fit's arguments

argument = section("Arguments of `fit` and `compile`")


@argument("`steps_per_execution=4`", backends=("tensorflow", "jax"))
def steps_per_execution(run: Run) -> None:
    run.fit(noisy(steps_per_execution=4), np.concatenate([X, X[:16]]), np.concatenate([Y, Y[:16]]))


@argument("`class_weight`")
def class_weight(run: Run) -> None:
    model = compiled(
        chain(layers.Dense(8, "relu"), layers.Dropout(0.3), layers.Dense(2, "softmax")),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=[keras.metrics.SparseCategoricalCrossentropy(name="entropy")],
    )
    run.fit(model, X, KINDS, class_weight={0: 0.3, 1: 2.5})


@argument("`sample_weight`")
def sample_weight(run: Run) -> None:
    run.fit(noisy(weighted_metrics=["mse"]), X, Y, sample_weight=WEIGHTS)


@argument("`validation_data`")
def validation_data(run: Run) -> None:
    run.fit(noisy(), X, Y, validation_data=HELD_OUT)


@argument("`validation_split`, `validation_freq=2`")
def validation_split(run: Run) -> None:
    run.fit(noisy(), X, Y, validation_split=0.25, validation_freq=2)


@argument("`initial_epoch`")
def initial_epoch(run: Run) -> None:
    run.fit(noisy(), X, Y, initial_epoch=2, epochs=5)


@argument("`steps_per_epoch` that is no whole pass")
def steps_per_epoch(run: Run) -> None:
    run.fit(noisy(), X, Y, steps_per_epoch=4, epochs=3)


@argument("a smaller last batch")
def smaller_last_batch(run: Run) -> None:
    run.fit(noisy(), X[:45], Y[:45])


@argument("`shuffle` over arrays")
def shuffle(run: Run) -> None:
    run.fit(compiled(chain(layers.Dense(8, "tanh"), layers.Dense(1)), "sgd"), X, Y, shuffle=True)


@argument("a list of metrics")
def metrics(run: Run) -> None:
    model = compiled(
        chain(layers.Dense(8, "relu"), layers.Dropout(0.3), layers.Dense(1, "sigmoid")),
        loss="binary_crossentropy",
        metrics=[
            keras.metrics.AUC(num_thresholds=20),
            keras.metrics.Precision(),
            keras.metrics.F1Score(threshold=0.5),
            keras.metrics.BinaryAccuracy(),
        ],
    )
    run.fit(model, X, KINDS.reshape(-1, 1).astype("float32"))


@argument("several inputs and outputs")
def several_outputs(run: Run) -> None:
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    both = layers.Dropout(0.3)(layers.Concatenate()([layers.Dense(4)(left), layers.Dense(4)(right)]))
    outputs = {"score": layers.Dense(1, name="score")(both), "kind": layers.Dense(2, "softmax", name="kind")(both)}
    model = compiled(
        keras.Model({"left": left, "right": right}, outputs),
        loss={"score": "mse", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"score": 1.0, "kind": 0.5},
        metrics={"score": ["mae"], "kind": ["accuracy"]},
    )
    run.fit(model, {"left": X, "right": -X}, {"score": Y, "kind": KINDS})


# --- callbacks

callback = section("Callbacks")


@callback("`LearningRateScheduler`")
def learning_rate_scheduler(run: Run) -> None:
    slower = callbacks.LearningRateScheduler(lambda epoch, rate: rate * math.exp(-0.3 * epoch))
    run.fit(noisy(), X, Y, callbacks=[slower])


@callback("`ReduceLROnPlateau`")
def reduce_learning_rate(run: Run) -> None:
    plateau = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2, min_delta=10.0, cooldown=1)
    run.fit(noisy(), X, Y, callbacks=[plateau], epochs=6)


@callback("`EarlyStopping(restore_best_weights=True)`")
def early_stopping(run: Run) -> None:
    patience = callbacks.EarlyStopping("loss", patience=2, min_delta=10.0, restore_best_weights=True)
    run.fit(noisy(), X, Y, callbacks=[patience], epochs=6)


@callback("`ModelCheckpoint(save_best_only=True)`")
def model_checkpoint(run: Run) -> None:
    best = run.folder / "best.weights.h5"
    saves = callbacks.ModelCheckpoint(str(best), monitor="mae", mode="max", save_best_only=True, save_weights_only=True)
    model = noisy()
    run.fit(model, X, Y, callbacks=[saves], finish=False)
    model.load_weights(best)
    run.finish(model, best=saves.best)


@callback("`CSVLogger`")
def csv_logger(run: Run) -> None:
    path = run.folder / "log.csv"
    model = noisy()
    run.fit(model, X, Y, callbacks=[callbacks.CSVLogger(str(path))], finish=False)
    run.finish(model, log=path.read_text())


if hasattr(callbacks, "SwapEMAWeights"):

    @callback("`SwapEMAWeights`")
    def swap_ema_weights(run: Run) -> None:
        averaged = optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8)
        swaps = callbacks.SwapEMAWeights(swap_on_epoch=True)
        run.fit(noisy(optimizer=averaged), X, Y, callbacks=[swaps])


# --- data

data = section("Data")


class Augmented(keras.utils.PyDataset):
    """Draws by NumPy's global generator and by one of its own, and shuffles at an epoch's end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.order = np.arange(len(X))

    def __len__(self) -> int:
        return len(X) // BATCH

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        rows = self.order[index * BATCH : (index + 1) * BATCH]
        return X[rows] + np.random.normal(0, 0.1, (BATCH, 6)).astype("float32"), Y[rows]

    def on_epoch_end(self) -> None:
        self.order = np.random.permutation(self.order)


@data("`PyDataset` that augments by NumPy")
def py_dataset(run: Run) -> None:
    run.fit(noisy(), Augmented(), batched=True)


@data("`tf.data` with `shuffle`")
def tf_data(run: Run) -> None:
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(20, seed=4).batch(BATCH).prefetch(2)
    run.fit(noisy(), dataset, batched=True)


@data("`tf.data` that repeats and draws in `map`")
def tf_data_repeated(run: Run) -> None:
    import tensorflow as tf

    def noise(index: Any, pair: Any) -> Any:
        return pair[0] + tf.random.stateless_normal((6,), (index, 3)), pair[1]

    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(20, seed=4).repeat()
    dataset = dataset.enumerate().map(noise, num_parallel_calls=2).batch(BATCH)
    run.fit(noisy(), dataset, batched=True, steps_per_epoch=5)


@data("torch `DataLoader` with a generator")
def data_loader(run: Run) -> None:
    import torch

    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    generator = torch.Generator().manual_seed(9)
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, generator=generator)
    run.fit(noisy(), loader, batched=True)


@data("torch `DataLoader` that shuffles by torch's own generator")
def data_loader_unseeded(run: Run) -> None:
    import torch

    torch.manual_seed(9)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    run.fit(noisy(), torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True), batched=True)


class Stream:
    """An endless iterator that can tell where it is, as grain's can."""

    def __init__(self) -> None:
        self.random = np.random.Generator(np.random.PCG64(2))
        self.given = 0

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> tuple[Any, Any]:
        rows = self.random.integers(0, len(X), BATCH)
        self.given += 1
        return X[rows], Y[rows]

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given, "random": self.random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.given = state["given"]
        self.random.bit_generator.state = state["random"]


@data("an iterator with `state_dict`")
def stateful_iterator(run: Run) -> None:
    run.fit(noisy(), Stream(), batched=True, steps_per_epoch=5)


@data("a plain generator, with `fast_forward=True`", fast_forward=True)
def generator(run: Run) -> None:
    def batches() -> Iterator[tuple[Any, Any]]:
        random = np.random.default_rng(2)
        while True:
            rows = random.integers(0, len(X), BATCH)
            yield X[rows], Y[rows]

    run.fit(noisy(), batches(), batched=True, steps_per_epoch=5)


# --- the ways to train

way = section("Ways to train")


class Stepping(keras.Model):
    """Trains by a step of its own, and counts what it saw in a metric of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = keras.Sequential([layers.Dense(8, "relu"), layers.Dropout(0.3), layers.Dense(1)])
        self.tracker = keras.metrics.Mean(name="loss")

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.inner(inputs, training=training)

    @property
    def metrics(self) -> list[Any]:
        return [self.tracker]

    def train_step(self, *arguments: Any) -> Any:
        return getattr(self, f"_{keras.backend.backend()}")(*arguments)

    def _tensorflow(self, batch: Any) -> Any:
        import tensorflow as tf

        x, y = batch
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(self(x, training=True) - y))
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}

    def _torch(self, batch: Any) -> Any:
        import torch

        x, y = batch
        self.zero_grad()
        loss = keras.ops.mean(keras.ops.square(self(x, training=True) - y))
        loss.backward()
        weights = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([weight.value.grad for weight in weights], weights)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}

    def _jax(self, state: Any, batch: Any) -> Any:
        import jax

        trainable, others, of_optimizer, of_metrics = state
        x, y = batch

        def loss_of(trainable: Any, others: Any) -> Any:
            answers, others = self.stateless_call(trainable, others, x, training=True)
            return keras.ops.mean(keras.ops.square(answers - y)), others

        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, others)
        trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
        of_metrics = self.tracker.stateless_update_state(of_metrics, loss)
        logs = {"loss": self.tracker.stateless_result(of_metrics)}
        return logs, (trainable, others, of_optimizer, of_metrics)


@way("a `train_step` of one's own")
def custom_train_step(run: Run) -> None:
    model = Stepping()
    model(X[:1])
    model.compile("adam")
    run.fit(model, X, Y)


@way("`callback()` given to `fit`, at the end of each epoch", every_steps=None, every_epochs=1)
def callback_at_epochs(run: Run) -> None:
    run.fit(noisy(), X, Y, by_callback=True, shuffle=False)


@way("`callback()` given to `fit`, within an epoch, `shuffle=False`")
def callback_within_an_epoch(run: Run) -> None:
    run.fit(noisy(), X, Y, by_callback=True, shuffle=False)


@way("`callback()` given to `fit`, within an epoch, shuffled by `fit`", backends=("jax", "torch"))
def callback_shuffled(run: Run) -> None:
    run.fit(noisy(), X, Y, by_callback=True)


def _rows(step: int) -> slice:
    return slice(step % 6 * BATCH, (step % 6 + 1) * BATCH)


def _loop(run: Run, model: keras.Model, train: Callable[[Any, Any], Any]) -> None:
    """A training loop of one's own, which draws by NumPy and keeps a sum."""
    restored = run.checkpoints.restore(model)
    step, total = (restored.step, restored.extra["total"]) if restored else (0, 0.0)
    with run.checkpoints:
        while step < 6 * EPOCHS:
            rows = _rows(step)
            logs = train(X[rows] + np.random.normal(0, 0.1, (BATCH, 6)).astype("float32"), Y[rows])
            total += logs["loss"]
            run.tell("step", step, values={**logs, "total": total})
            step += 1
            run.checkpoints.save(step, model, extra={"total": total})
    run.finish(model)


@way("a loop of one's own: `train_on_batch`")
def train_on_batch(run: Run) -> None:
    model = noisy()
    _loop(run, model, lambda x, y: {k: float(v) for k, v in model.train_on_batch(x, y, return_dict=True).items()})


@way("a loop of one's own: `GradientTape`", backends=("tensorflow",))
def gradient_tape(run: Run) -> None:
    import tensorflow as tf

    model = noisy()

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(model(x, training=True) - y))
        weights = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    _loop(run, model, lambda x, y: {"loss": float(step(x, y))})


@way("a loop of one's own: `loss.backward()`", backends=("torch",))
def backward(run: Run) -> None:
    import torch

    model = noisy()

    def step(x: Any, y: Any) -> dict[str, float]:
        model.zero_grad()
        loss = keras.ops.mean(keras.ops.square(model(x, training=True) - keras.ops.convert_to_tensor(y)))
        loss.backward()
        with torch.no_grad():
            model.optimizer.apply([weight.value.grad for weight in model.trainable_weights], model.trainable_weights)
        return {"loss": float(loss)}

    _loop(run, model, step)


@way("all at once")
def all_at_once(run: Run) -> None:
    parts = [layers.GaussianNoise(0.1), layers.Dense(8), layers.BatchNormalization(), layers.ReLU()]
    averaged = optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=7, gradient_accumulation_steps=2)
    model = compiled(
        chain(*parts, layers.Dropout(0.3), layers.Dense(1)),
        averaged,
        metrics=["mae", keras.metrics.RootMeanSquaredError()],
    )
    best = run.folder / "best.weights.h5"
    run.fit(
        model,
        Augmented(),
        batched=True,
        epochs=5,
        validation_data=HELD_OUT,
        callbacks=[
            callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9 if epoch % 2 else rate),
            callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=10.0),
            callbacks.EarlyStopping("val_loss", patience=4, min_delta=10.0, restore_best_weights=True),
            callbacks.ModelCheckpoint(str(best), save_best_only=True, save_weights_only=True),
        ],
    )
