"""Keras models brought back from SavedModels and checkpoints that TensorFlow 2.12, tf-keras and Keras 3 wrote."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from modelkeep.errors import CannotLoad, NotFaithful, UnsafeContent, UsageError
from modelkeep.formats import forms
from modelkeep.formats.protobuf import Message
from modelkeep.formats.saved_model import OWN
from modelkeep.live.opening import open_file
from modelkeep.live.reading import checkpoint, saved_model
from modelkeep.report import Severity

pytestmark = pytest.mark.keras
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="text needs TensorFlow")
not_on_torch = pytest.mark.skipif(keras.backend.backend() == "torch", reason="it exports through TensorFlow or JAX")

FOREIGN = Path(__file__).parent / "foreign" / "saved_models"


def read(path: Path, reader: Callable[..., Any] = saved_model.read, **terms: Any) -> Any:
    with forms.open_contents(path) as contents:
        return reader(contents, **terms)


def answers(name: str) -> tuple[Any, Any]:
    with np.load(FOREIGN / f"{name}.npz") as arrays:
        return arrays["x"], arrays["y"]


def network(**names: str) -> keras.Model:
    """The network of the fixture ``dense``, built by code."""
    inputs = keras.Input((3,), name="a")
    shared = layers.Dense(3, "tanh", name=names.get("shared", "shared"))
    outputs = layers.Dense(2, name="b")(layers.BatchNormalization(name="norm")(shared(shared(inputs))))
    return keras.Model(inputs, outputs, name="network")


@pytest.mark.backends
def test_a_network_of_keras_2_answers_as_it_did() -> None:
    found = read(FOREIGN / "dense")
    x, y = answers("dense")
    np.testing.assert_allclose(found.model.predict(x, verbose=0), y, atol=1e-6)
    assert not [finding for finding in found.findings if finding.severity is Severity.WARNING]


@pytest.mark.backends
def test_its_optimizer_goes_on_where_it_stood() -> None:
    model = read(FOREIGN / "dense").model
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert int(model.optimizer.iterations) == 2
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    slots = [v for v in model.optimizer.variables if v.path.endswith(("momentum", "velocity"))]
    assert len(slots) == 12
    assert all(np.any(keras.ops.convert_to_numpy(slot)) for slot in slots)


def test_without_compile_it_is_the_network_alone() -> None:
    assert not read(FOREIGN / "dense", compile=False).model.compiled


@on_tensorflow
def test_vocabularies_come_back_from_assets_and_tables() -> None:
    model = read(FOREIGN / "words").model
    x, y = answers("words")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(x))), y, atol=1e-6)


def test_a_model_built_by_code_takes_its_weights() -> None:
    x, y = answers("dense")
    model = network()
    read(FOREIGN / "dense", into=model)
    np.testing.assert_allclose(model.predict(x, verbose=0), y, atol=1e-6)


def test_a_graph_without_a_network_says_that_it_serves() -> None:
    with pytest.raises(CannotLoad, match="serves, and tells no Keras model"):
        read(FOREIGN / "tensorflow_1")


@on_tensorflow
def test_opened_it_answers_through_its_engine(tmp_path: Path) -> None:
    opened = open_file(shutil.copytree(FOREIGN / "tensorflow_1", tmp_path / "old"))
    with np.load(FOREIGN / "tensorflow_1.npz") as arrays:
        expected = np.ones((1, 4), "float32") @ arrays["w"] + arrays["parts"].sum()
    found = opened.predict({"x": np.ones((1, 4), "float32"), "words": np.array(["fig"])})
    np.testing.assert_allclose(found["y"], expected, rtol=1e-5)
    assert found["ids"] == [1]
    with pytest.raises(CannotLoad):
        _ = opened.model


# --- checkpoints


@pytest.mark.backends
@pytest.mark.parametrize("path", ["weights", "weights/ckpt"])
def test_a_checkpoint_fills_a_model_object_by_object(path: str) -> None:
    x, y = answers("dense")
    model = network()
    model.compile("adam", "mse")
    found = read(FOREIGN / path, checkpoint.read, into=model)
    np.testing.assert_allclose(model.predict(x, verbose=0), y, atol=1e-6)
    assert int(model.optimizer.iterations) == 2
    assert not [finding for finding in found.findings if finding.severity is Severity.WARNING]


def test_a_model_of_another_shape_is_refused_and_stays_as_it_was() -> None:
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)])
    before = model.get_weights()
    with pytest.raises(NotFaithful, match="the file has the shape"):
        read(FOREIGN / "weights", checkpoint.read, into=model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_no_layer_takes_are_named_and_may_be_left() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.BatchNormalization()(layers.Dense(3)(inputs)))
    with pytest.raises(NotFaithful, match="layer_with_weights-2/kernel"):
        read(FOREIGN / "weights", checkpoint.read, into=model)
    read(FOREIGN / "weights", checkpoint.read, into=model, skip=["layer_with_weights-2"])


def test_a_checkpoint_needs_a_model_that_is_built() -> None:
    with pytest.raises(UsageError, match="weights alone"):
        read(FOREIGN / "weights", checkpoint.read)
    with pytest.raises(UsageError, match="never built"):
        read(FOREIGN / "weights", checkpoint.read, into=keras.Sequential([layers.Dense(2)]))


def test_variables_of_tensorflow_1_are_found_by_a_map_of_names(tmp_path: Path) -> None:
    for file in (FOREIGN / "tensorflow_1" / "variables").iterdir():
        shutil.copy(file, tmp_path / file.name)
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2, use_bias=False, name="inner")])
    names = {"layer/w": "inner/kernel"}
    with pytest.raises(NotFaithful, match="parts"):
        read(tmp_path / "variables", checkpoint.read, into=model, names=names)
    read(tmp_path / "variables", checkpoint.read, into=model, names=names, skip=["parts"])
    with np.load(FOREIGN / "tensorflow_1.npz") as arrays:
        np.testing.assert_array_equal(model.get_weights()[0], arrays["w"])


# --- what this machine's own tf-keras and Keras 3 write


@pytest.fixture(scope="module")
def keras_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that tf-keras saved, in a process of its own: it and Keras 3 share one TensorFlow, not one session."""
    pytest.importorskip("tf_keras")
    folder = tmp_path_factory.mktemp("keras_2")
    program = """
        import sys, numpy as np, tensorflow as tf, tf_keras as keras
        L = keras.layers
        def kept(name, model, x):
            y = model(x, training=False)
            np.savez(f"{name}.npz", x=x, y=y)
            model.save(name, save_format="tf")
        def floats(*shape):
            return np.random.default_rng(1).standard_normal(shape).astype("float32")
        inner = keras.Sequential([L.Dense(3, "tanh"), L.BatchNormalization(), L.Dense(2)])
        inputs = keras.Input((5, 4))
        both = L.Bidirectional(L.SimpleRNN(3, return_sequences=True))(inputs)
        model = keras.Model(inputs, L.TimeDistributed(inner)(L.MultiHeadAttention(2, 3)(both, both)))
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", run_eagerly=True)
        model.fit(floats(4, 5, 4), floats(4, 5, 2), verbose=0)
        kept("recurrent", model, floats(3, 5, 4))
        old = keras.Sequential([L.Input((4,)), L.Dense(3), L.Dense(2)])
        old.compile(keras.optimizers.legacy.Adam(0.01), "mse", run_eagerly=True)
        old.fit(floats(4, 4), floats(4, 2), verbose=0)
        kept("old", old, floats(3, 4))
        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.first, self.rest = L.Dense(3), [L.Dense(2), L.Dense(1)]
            def call(self, x):
                return self.rest[1](self.rest[0](self.first(x)))
        model = Own()
        kept("subclass", model, floats(3, 4))
        model.save_weights("beside")
        tf.train.Checkpoint(network=model, steps=tf.Variable(3)).write("within")
        kept("code", keras.Sequential([L.Input((2,)), L.Lambda(lambda x: x + 1)]), floats(3, 2))
    """
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PATH": ""}
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=folder, env=environment, check=True, timeout=300
    )
    return folder


class Own(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.rest = layers.Dense(3), [layers.Dense(2), layers.Dense(1)]

    def call(self, x: Any) -> Any:
        return self.rest[1](self.rest[0](self.first(x)))


def arrays_of(path: Path) -> tuple[Any, Any]:
    with np.load(path.with_suffix(".npz")) as arrays:
        return arrays["x"], arrays["y"]


@pytest.mark.slow
def test_an_optimizer_of_the_old_kind_goes_on_by_its_slots(keras_2: Path) -> None:
    model = open_file(keras_2 / "old").model
    assert int(model.optimizer.iterations) == 1
    slots = [v for v in model.optimizer.variables if v.path.endswith(("momentum", "velocity"))]
    assert len(slots) == 8
    assert all(np.any(keras.ops.convert_to_numpy(slot)) for slot in slots)


@pytest.mark.slow
def test_recurrent_nested_and_attending_layers_come_back(keras_2: Path) -> None:
    opened = open_file(keras_2 / "recurrent")
    x, y = arrays_of(keras_2 / "recurrent")
    np.testing.assert_allclose(opened.predict(x), y, atol=1e-5)
    assert int(opened.model.optimizer.iterations) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["beside", "within", "subclass"])
def test_a_subclass_takes_its_weights_by_its_attributes(keras_2: Path, name: str) -> None:
    x, y = arrays_of(keras_2 / "subclass")
    model = Own()
    model(x)
    found = read(keras_2 / name, saved_model.read if name == "subclass" else checkpoint.read, into=model)
    np.testing.assert_allclose(model.predict(x, verbose=0), y, atol=1e-5)
    beside = [finding.subject for finding in found.findings if finding.check == "weights-beside"]
    assert beside == (["steps"] if name == "within" else [])


@pytest.mark.slow
def test_a_lambda_is_refused_before_anything_is_built(keras_2: Path) -> None:
    with pytest.raises(UnsafeContent, match="code-by-value"):
        open_file(keras_2 / "code")


def test_metadata_inside_the_graph_is_read_as_tensorflow_2_0_kept_it(tmp_path: Path) -> None:
    saved_model_pb2 = pytest.importorskip("tensorflow.core.protobuf.saved_model_pb2")
    path = Path(shutil.copytree(FOREIGN / "dense", tmp_path / "dense"))
    graph = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for one in Message((path / "keras_metadata.pb").read_bytes()).messages(1):
        user = graph.meta_graphs[0].object_graph_def.nodes[one.integer(2)].user_object
        user.metadata = one.text(5)
    (path / "saved_model.pb").write_bytes(graph.SerializeToString())
    (path / "keras_metadata.pb").unlink()
    x, y = answers("dense")
    np.testing.assert_allclose(read(path).model.predict(x, verbose=0), y, atol=1e-6)


@not_on_torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what JAX exports through
@pytest.mark.backends
@pytest.mark.slow
def test_what_keras_3_exports_serves_and_fills_a_model(tmp_path: Path) -> None:
    model = network()
    x, _ = answers("dense")
    model.export(tmp_path / "exported", verbose=False)
    opened = open_file(tmp_path / "exported")
    np.testing.assert_allclose(next(iter(opened.predict(x).values())), model.predict(x, verbose=0), atol=1e-6)
    other = network()
    found = read(tmp_path / "exported", into=other)
    assert found.findings[0].details["matched"] == 8
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))


@not_on_torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what JAX exports through
@pytest.mark.backends
@pytest.mark.slow
def test_the_model_that_rides_along_is_the_one_that_the_graph_serves(tmp_path: Path) -> None:
    model, other = network(), network()
    model.export(tmp_path / "own", verbose=False)
    (tmp_path / "own" / OWN).parent.mkdir(parents=True)
    model.save(tmp_path / "own" / OWN)
    found = read(tmp_path / "own")
    x, _ = answers("dense")
    np.testing.assert_array_equal(found.model.predict(x, verbose=0), model.predict(x, verbose=0))
    assert "graph-compared" in {finding.check for finding in found.findings}
    other.save(tmp_path / "own" / OWN)
    with pytest.raises(NotFaithful, match="not the one that its graph serves"):
        read(tmp_path / "own")
