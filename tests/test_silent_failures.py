"""What goes wrong without a word in Keras' own files, and what becomes of it here.

Each test is one row of the tables in ``docs/guide/silent-failures.md``: it shows first what Keras does (on the
release that the tables were measured with), then what modelkeep does. The tables are written by running this
file: ``python tests/test_silent_failures.py``.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import modelkeep as mk
from modelkeep.errors import IntegrityError, NotFaithful

pytestmark = [
    pytest.mark.keras,
    # Keras' advice about file formats, untraced layers and skipped variables.
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),
]

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "silent-failures.md"
MEASURED = keras.version().startswith("3.15.")
"""Whether this is the Keras whose own behaviour the tables tell."""

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="text is TensorFlow's alone")


@dataclass(frozen=True)
class Row:
    section: str
    case: str
    keras: str
    modelkeep: str


ROWS: list[Row] = []


def section(title: str) -> Callable[..., Callable[[Any], Any]]:
    """A table of the page; what it returns makes a row of the test below it."""

    def row(case: str, *, keras: str, modelkeep: str) -> Callable[[Any], Any]:
        ROWS.append(Row(title, case, keras, modelkeep))
        return lambda test: test

    return row


_random = np.random.default_rng(3)
X = _random.standard_normal((8, 3)).astype("float32")
Y = _random.standard_normal((8, 3)).astype("float32")


@pytest.fixture
def keep(tmp_path: Path) -> mk.Keep:
    return mk.open(tmp_path / "models")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def chain(*parts: keras.Layer, size: int = 3) -> keras.Model:
    return keras.Sequential([keras.Input((size,)), *parts])


def compiled(model: keras.Model, optimizer: Any = "sgd") -> keras.Model:
    """The model, trained for one step."""
    # Tracing costs more than it saves here, except under JAX, which compiles every operation by itself.
    eagerly = keras.backend.backend() != "jax"
    model.compile(
        optimizer,
        keras.losses.MeanSquaredError(),
        metrics=[keras.metrics.MeanAbsoluteError()],
        run_eagerly=eagerly,
    )
    model.train_on_batch(X, Y)
    return model


def answers(model: keras.Model, inputs: Any = X) -> Any:
    return keras.ops.convert_to_numpy(model(inputs))


def through(ending: str, model: keras.Model, *objects: Any) -> keras.Model:
    """The model after a round trip through one of Keras' own files."""
    model.save(f"model{ending}")
    return keras.models.load_model(f"model{ending}", custom_objects={thing.__name__: thing for thing in objects})


def differ(model: keras.Model, other: keras.Model) -> bool:
    return not np.allclose(answers(model), answers(other), atol=1e-3)


# --- code

code = section("Code that comes back as something else")


class Scaled(keras.Model):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs) * self.factor


@code(
    "a subclassed model without `get_config`",
    keras="`.keras`: comes back with the default arguments, and other answers",
    modelkeep="refused at save, with the arguments and the method to add",
)
def test_a_subclassed_model_without_get_config(keep):
    model = Scaled(factor=5.0)
    model(X)
    if MEASURED:
        loaded = through(".keras", model, Scaled)
        assert loaded.factor == 1.0
        assert differ(model, loaded)
    with pytest.raises(NotFaithful, match=r"factor: 5\.0 comes back as 1\.0.*get_config"):
        keep.save(model, "m")


class Forgetful(layers.Layer):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return super().get_config()


@pytest.mark.backends
@code(
    "an argument that `get_config` leaves out",
    keras="`.keras`: comes back with its default, and other answers",
    modelkeep="refused at save, with the argument and both values",
)
def test_an_argument_that_get_config_leaves_out(keep):
    model = chain(Forgetful(5.0))
    if MEASURED:
        assert differ(model, through(".keras", model, Forgetful))
    with pytest.raises(NotFaithful, match=r"get_config of Forgetful leaves out factor"):
        keep.save(model, "m")


class Helper:
    def __init__(self):
        self.dense = layers.Dense(3)


class Hiding(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.helper = Helper()

    def call(self, inputs):
        return self.helper.dense(inputs)


@code(
    "a layer in a plain Python object",
    keras="`.keras`: its weights are not saved; it comes back with random ones",
    modelkeep="refused at save, with the place",
)
def test_a_layer_in_a_plain_python_object(keep):
    model = chain(Hiding())
    if MEASURED:
        assert differ(model, through(".keras", model, Hiding))
    with pytest.raises(NotFaithful, match=r"Hiding\.helper\.dense: a Dense with 2 variables"):
        keep.save(model, "m")


class Masked(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.mask = np.ones(3, "float32")

    def call(self, inputs):
        return inputs * self.mask


@code(
    "a NumPy array that `call` uses, changed since the constructor made it",
    keras="`.keras`: comes back as the constructor makes it, with other answers",
    modelkeep="refused at save, with the attribute and the numbers",
)
def test_an_array_that_call_uses(keep):
    model = chain(Masked())
    model.layers[0].mask = np.array([0, 5, 0], "float32")
    if MEASURED:
        assert differ(model, through(".keras", model, Masked))
    with pytest.raises(NotFaithful, match=r"values differ(.|\n)*Masked\.mask"):
        keep.save(model, "m")


class Noted(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = []

    def call(self, inputs):
        return inputs


@code(
    "a Python attribute set from outside, which no answer depends on",
    keras="`.keras`: gone",
    modelkeep="saved without it, and a notice that `show` and `verify` repeat",
)
def test_a_python_attribute_set_from_outside(keep):
    model = chain(Noted())
    model.layers[0].words = ["good", "bad"]
    if MEASURED:
        assert through(".keras", model, Noted).layers[0].words == []
    keep.save(model, "m")
    assert any("Noted.words" in notice for notice in keep.resolve("m").manifest.notices)


def before_the_edit() -> type[layers.Layer]:
    class Shift(layers.Layer):
        def call(self, inputs):
            return inputs + 1

    return Shift


def after_the_edit() -> type[layers.Layer]:
    class Shift(layers.Layer):
        def call(self, inputs):
            return inputs + 2

    return Shift


@code(
    "a custom class edited between save and load",
    keras="`.keras`: loads, with other answers",
    modelkeep="a warning with both digests; the old text is kept; `verify --live` fails with the numbers",
)
def test_a_custom_class_edited_between_save_and_load(keep):
    model, edited = chain(before_the_edit()()), after_the_edit()
    if MEASURED:
        assert differ(model, through(".keras", model, edited))
    keep.save(model, "m")
    with pytest.warns(UserWarning, match=r"source of .*Shift is not what it was at the save \(blake3:.*, now blake3:"):
        keep.load("m", custom_objects=[edited])
    assert not keep.verify("m", live=True, custom_objects=[edited]).ok


def relu(x):
    return -x


@code(
    "a function of yours with the name of one of Keras'",
    keras="`.keras`: without `custom_objects`, Keras' own is taken, with other answers",
    modelkeep="refused at save, with the line that registers it",
)
def test_a_function_with_the_name_of_one_of_keras_own(keep):
    model = chain(layers.Dense(3, activation=relu))
    if MEASURED:
        assert differ(model, through(".keras", model))
    with pytest.raises(NotFaithful, match="the function relu has the name of another of Keras' own"):
        keep.save(model, "m")


@code(
    "`keras.ops` between the layers of a functional model",
    keras="`.h5`: saves, and cannot be loaded",
    modelkeep="kept",
)
def test_operations_between_layers(keep):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.tanh(layers.Dense(3)(inputs)))
    if MEASURED:
        with pytest.raises(ValueError, match="Unknown layer: 'Tanh'"):
            through(".h5", model)
    keep.save(model, "m")
    np.testing.assert_array_equal(answers(keep.load("m").model), answers(model))


@code(
    "a subclassed model",
    keras="`.h5`: saves, and cannot be loaded",
    modelkeep="kept, if its class has `get_config`",
)
def test_a_subclassed_model(keep):
    model = Scaled()
    model(X)
    if MEASURED:
        with pytest.raises(ValueError, match="Layer count mismatch"):
            through(".h5", model, Scaled)
    keep.save(model, "m")
    np.testing.assert_array_equal(answers(keep.load("m", custom_objects=[Scaled]).model), answers(model))


# --- weights

weights = section("Weights that land in the wrong place, or nowhere")


def two_layers(first: str, second: str, size: int = 3) -> keras.Model:
    return chain(layers.Dense(3, name=first), layers.Dense(3, name=second), size=size)


@weights(
    "into a model with two layers of one shape swapped",
    keras="`.weights.h5`: each takes the other's, by position",
    modelkeep="refused, with the layers",
)
def test_weights_into_a_model_with_two_layers_swapped(keep):
    model, other = two_layers("block_1", "block_2"), two_layers("block_2", "block_1")
    keep.save(model, "m", architecture=False)
    with pytest.raises(NotFaithful, match=r"found block_2 \(layers/dense\)"):
        keep.load("m", into=other)
    if MEASURED:
        model.save_weights("m.weights.h5")
        other.load_weights("m.weights.h5")
        assert np.array_equal(other.get_layer("block_2").kernel, model.get_layer("block_1").kernel)


@weights(
    "into a model that lacks the last layer",
    keras="`.weights.h5`: loads the rest",
    modelkeep="refused, with the weights left over",
)
def test_weights_into_a_model_that_lacks_the_last_layer(keep):
    model, other = two_layers("a", "b"), chain(layers.Dense(3, name="a"))
    keep.save(model, "m", architecture=False)
    with pytest.raises(NotFaithful, match="weights/layers/dense_1/vars/0"):
        keep.load("m", into=other)
    if MEASURED:
        model.save_weights("m.weights.h5")
        other.load_weights("m.weights.h5")
        assert np.array_equal(other.get_layer("a").kernel, model.get_layer("a").kernel)


@weights(
    "into a model whose layers have other names",
    keras="`.h5`, `by_name=True`: loads nothing",
    modelkeep="refused, with the names",
)
def test_weights_into_a_model_whose_layers_have_other_names(keep):
    model, other = two_layers("a", "b"), two_layers("c", "d")
    keep.save(model, "m", architecture=False)
    before = answers(other)
    with pytest.raises(NotFaithful, match=r"found c \(layers/dense\), d"):
        keep.load("m", into=other)
    if MEASURED:
        model.save("m.h5")
        other.load_weights("m.h5", by_name=True)
    assert np.array_equal(answers(other), before)


@weights(
    "into a model with layers of other sizes",
    keras="`.h5`, `by_name=True, skip_mismatch=True`: a layer takes the bias, and keeps its own kernel",
    modelkeep="refused, with the shapes; the model is left as it was",
)
def test_weights_into_a_model_with_layers_of_other_sizes(keep):
    model, other = two_layers("a", "b"), two_layers("a", "b", size=5)
    model.get_layer("a").bias.assign([1, 2, 3])
    keep.save(model, "m", architecture=False)
    with pytest.raises(NotFaithful, match=r"a/kernel \(5, 3\), expected \(3, 3\)"):
        keep.load("m", into=other)
    assert not np.any(other.get_layer("a").bias)
    if MEASURED:
        model.save("m.h5")
        other.load_weights("m.h5", by_name=True, skip_mismatch=True)
        assert np.array_equal(other.get_layer("a").bias, [1, 2, 3])


@weights(
    "of bfloat16",
    keras="`.h5`: saves, and cannot be loaded",
    modelkeep="kept, to the bit",
)
def test_weights_of_bfloat16(keep):
    model = chain(layers.Dense(3, dtype="bfloat16"))
    if MEASURED:
        with pytest.raises(ValueError, match="No cast function"):
            through(".h5", model)
    keep.save(model, "m")
    loaded = keep.load("m").model
    assert loaded.layers[0].kernel.dtype == "bfloat16"
    assert np.array_equal(answers(loaded), answers(model))


@weights("int8-quantized", keras="`.keras`: kept", modelkeep="kept")
# Keras says so of every layer that has nothing to quantize.
@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`:UserWarning")
def test_weights_quantized_to_int8(keep):
    model = chain(layers.Dense(3))
    model.quantize("int8")
    if MEASURED:
        assert np.array_equal(answers(through(".keras", model)), answers(model))
    keep.save(model, "m")
    loaded = keep.load("m").model
    assert [(v.dtype, v.numpy().tolist()) for v in loaded.weights] == [
        (v.dtype, v.numpy().tolist()) for v in model.weights
    ]


@weights(
    "LoRA",
    keras="`.keras`: merged into the kernel; the adapter comes back as zeros",
    modelkeep="kernel and adapter kept, each as it was",
)
def test_lora_weights(keep):
    model = chain(layers.Dense(3))
    model.layers[0].enable_lora(1)
    model.layers[0].lora_kernel_b.assign(np.ones((1, 3)))
    if MEASURED:
        assert not np.any(through(".keras", model).layers[0].lora_kernel_b)
    keep.save(model, "m")
    for kept, was in zip(keep.load("m").model.weights, model.weights, strict=True):
        assert np.array_equal(kept, was)


@weights(
    "the vocabulary of a lookup layer",
    keras="`.h5`: lost; fails at the first prediction",
    modelkeep="kept",
)
@on_tensorflow
def test_the_vocabulary_of_a_lookup_layer(keep):
    import tensorflow as tf

    lookup = layers.StringLookup()
    lookup.adapt(np.array(["red", "green"]))
    model = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
    words = tf.constant([["red"], ["green"]])
    if MEASURED:
        with pytest.raises(tf.errors.FailedPreconditionError):
            answers(through(".h5", model), words)
    keep.save(model, "m")
    assert np.array_equal(answers(keep.load("m").model, words), answers(model, words))


@weights("a layer used twice", keras="kept", modelkeep="kept, and still one layer")
def test_a_layer_used_twice(keep):
    shared = layers.Dense(3)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, shared(shared(inputs)))
    if MEASURED:
        assert len(through(".keras", model).weights) == 2
    keep.save(model, "m")
    loaded = keep.load("m").model
    assert len(loaded.weights) == 2
    assert np.array_equal(answers(loaded), answers(model))


@weights(
    "names with spaces and accents",
    keras="kept; a `/` is refused when the layer is made",
    modelkeep="kept",
)
def test_names_with_spaces_and_accents(keep):
    model = chain(layers.Dense(3, name="für alle, too"))
    if MEASURED:
        assert through(".keras", model).layers[0].name == "für alle, too"
        with pytest.raises(ValueError, match="cannot contain character `/`"):
            layers.Dense(3, name="a/b")
    keep.save(model, "team/m")
    loaded = keep.load("team/m").model
    assert loaded.layers[0].name == "für alle, too"
    assert np.array_equal(answers(loaded), answers(model))


# --- training

training = section("Training that goes on from somewhere else")


def steps(model: keras.Model, count: int = 2) -> list[Any]:
    """What Keras reports of a few more steps."""
    return [model.train_on_batch(X, Y) for _ in range(count)]


@training(
    "the optimizer, in `.keras` after an `.h5`",
    keras="two saves in a row of one live model: `Adam(3e-4)` comes back as `RMSprop(0.001)`",
    modelkeep="`Adam(3e-4)`, with all its slots",
)
def test_the_optimizer_after_an_h5_save(keep):
    model = compiled(chain(layers.Dense(3)), keras.optimizers.Adam(3e-4))
    model.save("m.h5")
    if MEASURED:
        plain = through(".keras", model).optimizer
        assert isinstance(plain, keras.optimizers.RMSprop)
        assert float(plain.learning_rate) == pytest.approx(1e-3)
    keep.save(model, "m")
    optimizer = keep.load("m").model.optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(3e-4)
    for kept, was in zip(optimizer.variables, model.optimizer.variables, strict=True):
        assert np.array_equal(kept, was)


@training(
    "the optimizer's slots",
    keras="`.h5`: lost, and the next `fit` fails; `.weights.h5` into a freshly compiled model: lost, with a warning",
    modelkeep="kept, whole or `into=` a model compiled alike",
)
def test_the_slots_of_the_optimizer(keep):
    def fresh() -> keras.Model:
        model = chain(layers.Dense(3))
        model.compile(keras.optimizers.Adam(), keras.losses.MeanSquaredError())
        return model

    model = compiled(chain(layers.Dense(3)), "adam")
    keep.save(model, "m")
    into = fresh()
    keep.load("m", into=into)
    assert np.array_equal(into.optimizer.variables[2], model.optimizer.variables[2])
    if MEASURED:
        model.save_weights("m.weights.h5")
        into = fresh()
        into.load_weights("m.weights.h5")
        assert int(into.optimizer.iterations) == 0
        with pytest.raises(ValueError, match="Unknown variable"):
            steps(through(".h5", model))


@training(
    "momentum of SGD into a model compiled with RMSprop",
    keras="`.weights.h5`: taken for velocity, by position",
    modelkeep="refused, with both optimizers",
)
def test_momentum_taken_for_velocity(keep):
    model = compiled(chain(layers.Dense(3)), keras.optimizers.SGD(0.1, momentum=0.9))
    other = chain(layers.Dense(3))
    other.compile(keras.optimizers.RMSprop(0.1), "mse")
    other.optimizer.build(other.trainable_variables)
    keep.save(model, "m")
    with pytest.raises(NotFaithful, match=r"found RMSprop \(optimizer\), expected SGD"):
        keep.load("m", into=other)
    if MEASURED:
        model.save_weights("m.weights.h5")
        other.load_weights("m.weights.h5")
        momentum, velocity = model.optimizer.variables[2], other.optimizer.variables[2]
        assert velocity.name.endswith("velocity")
        assert np.array_equal(momentum, velocity)


@pytest.mark.backends
@training(
    "the seed generators of `Dropout` and its like",
    keras="`.keras`: start afresh; the next `fit` is another",
    modelkeep="kept; the next `fit` is the same to the bit",
)
def test_the_seed_generators_of_dropout(keep):
    model = compiled(chain(layers.Dense(3), layers.Dropout(0.5, seed=3), layers.Dense(3)))
    keep.save(model, "m")
    others = [through(".keras", model)] if MEASURED else []
    went_on = steps(model)
    assert steps(keep.load("m").model) == went_on
    assert all(steps(other) != went_on for other in others)


@training(
    "the states of a stateful RNN",
    keras="`.keras`: zero; the next prediction is another",
    modelkeep="kept",
)
def test_the_states_of_a_stateful_rnn(keep):
    model = keras.Sequential([keras.Input(batch_shape=(8, 1, 3)), layers.GRU(2, stateful=True)])
    sequence = X[:, None]
    model(sequence)
    keep.save(model, "m")
    if MEASURED:
        assert not np.any(through(".keras", model).layers[0].states[0])
    assert np.array_equal(answers(keep.load("m").model, sequence), answers(model, sequence))


@training(
    "the running values of metrics, in the middle of an epoch",
    keras="`.keras`: start from zero",
    modelkeep="kept",
)
def test_the_running_values_of_metrics(keep):
    model = compiled(chain(layers.Dense(3)))

    def values(model: keras.Model) -> list[float]:
        return [float(variable) for variable in model.metrics_variables]

    if MEASURED:
        assert not any(values(through(".keras", model)))
    keep.save(model, "m")
    assert values(keep.load("m").model) == values(model)
    assert all(values(model))


@training(
    "a single frozen variable",
    keras="`.keras`: thawed (frozen layers are kept)",
    modelkeep="kept, layers and variables",
)
def test_a_single_frozen_variable(keep):
    model = chain(layers.Dense(3), layers.Dense(3))
    model.layers[0].trainable = False
    model.layers[1].bias.trainable = False

    def flags(model: keras.Model) -> list[bool]:
        return [variable.trainable for variable in model.weights]

    if MEASURED:
        assert flags(through(".keras", model)) == [False, False, True, True]
    keep.save(model, "m")
    assert flags(keep.load("m").model) == [False, False, True, False]


# --- damage

damage = section("Damage that nobody notices")


def files_with(data: bytes, folder: Path) -> Iterator[tuple[Path, int]]:
    """The files that hold these bytes, and where."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (at := path.read_bytes().find(data)) >= 0:
            yield path, at


def flip(path: Path, at: int, bit: int = 6) -> bytes:
    """Flip one bit of a file; what it held before."""
    before = path.read_bytes()
    path.write_bytes(before[:at] + bytes([before[at] ^ 1 << bit]) + before[at + 1 :])
    return before


@damage(
    "one flipped bit",
    keras="`.h5`, `.weights.h5`: loads, with other answers; `.keras`: caught by the zip's checksum",
    modelkeep="refused, whichever bit of the version it is, naming the blob",
)
def test_one_flipped_bit(keep, tmp_path):
    model = chain(layers.Dense(3))
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel).tobytes()
    if MEASURED:
        for name in ("m.h5", "m.weights.h5"):
            model.save(name) if name == "m.h5" else model.save_weights(name)
            ((path, at),) = files_with(kernel, tmp_path)
            flip(path, at + 3)
            other = chain(layers.Dense(3))
            other.load_weights(name)
            assert differ(model, other)
            path.unlink()
        model.save("m.keras")
        ((path, at),) = files_with(kernel, tmp_path)
        flip(path, at + 3)
        # Python 3.13 reads on for longer, and Keras words it otherwise.
        with pytest.raises((zipfile.BadZipFile, ValueError), match=r"Bad CRC|could not be loaded"):
            keras.models.load_model("m.keras")
        path.unlink()
    keep.save(model, "m")
    ((path, at),) = files_with(kernel, tmp_path)
    before = flip(path, at + 3)
    with pytest.raises(IntegrityError, match=path.name):
        keep.load("m")
    path.write_bytes(before)
    for blob in sorted((tmp_path / "models" / "blobs").rglob("*")):
        for at in _random.integers(0, blob.stat().st_size, 8) if blob.is_file() else ():
            before = flip(blob, int(at), bit=int(at) % 8)
            with pytest.raises(IntegrityError):
                keep.verify("m").raise_for_failures()
            blob.write_bytes(before)


@damage(
    "a model that is NaN throughout",
    keras="saved, loaded, and passes a test that looks at shapes",
    modelkeep="refused at save, with the weights; `allow_non_finite=` lets one pass by name",
)
def test_a_model_that_is_nan_throughout(keep):
    model = chain(layers.Dense(3))
    model.layers[0].kernel.assign(np.full((3, 3), np.nan))
    if MEASURED:
        assert through(".keras", model).predict(X, verbose=0).shape == (8, 3)
    with pytest.raises(NotFaithful, match=r"/kernel: 9 of 9 values are NaN"):
        keep.save(model, "m")


# --- the page


def tables() -> str:
    """The tables of the page, one a section."""
    text = ""
    for title in dict.fromkeys(row.section for row in ROWS):
        text += f"\n## {title}\n| | Keras 3.15 | modelkeep |\n|---|---|---|\n"
        text += "".join(f"| {row.case} | {row.keras} | {row.modelkeep} |\n" for row in ROWS if row.section == title)
    return text


_TABLES = re.compile(r"(?<=<!-- tables -->\n).*(?=\n<!-- end of tables -->)", re.DOTALL)


def test_the_page_has_a_row_for_each_of_these_tests():
    (found,) = _TABLES.findall(PAGE.read_text(encoding="utf-8"))
    assert found == tables(), "python tests/test_silent_failures.py"


if __name__ == "__main__":
    PAGE.write_text(_TABLES.sub(lambda _: tables(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
