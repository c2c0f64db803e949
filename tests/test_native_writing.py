"""What is written in Keras' own forms opens in plain Keras, whole; what a form cannot hold is told or refused."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from modelkeep.errors import NotFaithful, UnsafeContent, UsageError
from modelkeep.formats.forms import open_contents
from modelkeep.live import exporting
from modelkeep.live.writing import architecture, h5, keras_archive, weights
from modelkeep.report import Finding
from zoo import ZOO, floats

pytestmark = [pytest.mark.keras, pytest.mark.backends, pytest.mark.filterwarnings("ignore::UserWarning:keras")]


def trained(name: str = "sequential") -> keras.Model:
    model = ZOO[name].build()
    ZOO[name].use(model)
    return model


def not_held(findings: tuple[Finding, ...]) -> str:
    return "\n".join(finding.message for finding in findings if finding.check == "not-held")


def values(variables: Any) -> list[Any]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def same(some: list[Any], others: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


# --- .keras


def test_plain_keras_goes_on_training_from_the_file(tmp_path: Path) -> None:
    model = trained("functional")
    keras_archive.write(model, tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert same(values(model.optimizer.variables), values(loaded.optimizer.variables))


def test_the_optimizer_in_the_file_is_the_one_the_model_has_though_h5_made_keras_forget_it(tmp_path: Path) -> None:
    model = trained()
    model.save(tmp_path / "before.h5")  # Keras' own way of writing it
    keras_archive.write(model, tmp_path / "model.keras")
    assert isinstance(keras.saving.load_model(tmp_path / "model.keras").optimizer, keras.optimizers.Adam)


def test_the_file_names_optimizers_as_every_backend_does(tmp_path: Path) -> None:
    keras_archive.write(trained(), tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        config = json.loads(file.read("config.json"))
    assert config["compile_config"]["optimizer"]["module"] == "keras.optimizers"


def test_a_vocabulary_is_in_the_file(tmp_path: Path) -> None:
    lookup = layers.IntegerLookup()
    lookup.adapt(np.array([7, 7, 9]))
    if keras.backend.backend() == "jax":
        pytest.skip("lookups are TensorFlow's and torch's")
    inputs = keras.Input((2,), dtype="int64")
    model = keras.Model(inputs, layers.Embedding(4, 2)(lookup(inputs)))
    keras_archive.write(model, tmp_path / "model.keras")
    numbers = np.array([[7, 9], [5, 7]])
    found, expected = (
        np.asarray(keras.ops.convert_to_numpy(one(numbers)))
        for one in (keras.saving.load_model(tmp_path / "model.keras"), model)
    )
    assert np.array_equal(found, expected)


def test_what_no_file_of_keras_holds_is_told(tmp_path: Path) -> None:
    assert "state/layers/dropout/0" in not_held(keras_archive.write(trained(), tmp_path / "a"))
    assert "weights/layers/dense_1/vars/1" in not_held(keras_archive.write(trained("frozen"), tmp_path / "b"))
    assert "LoRA's matrices" in not_held(keras_archive.write(trained("lora"), tmp_path / "c"))


def test_bytecode_is_never_written(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((2,)), layers.Lambda(lambda x: x * 2)])
    for module in (keras_archive, h5, architecture):
        with pytest.raises(UnsafeContent, match="lambda"):
            module.write(model, tmp_path / "model")


def test_a_stateful_model_whose_state_counts_is_refused_with_the_numbers(tmp_path: Path) -> None:
    specimen, model = ZOO["stateful_rnn"], trained("stateful_rnn")
    model(specimen.inputs)  # under JAX nothing else leaves a state behind
    with pytest.raises(NotFaithful, match="values differ"):
        exporting.export(model, "keras", tmp_path / "model.keras", examples=specimen.inputs)
    assert not (tmp_path / "model.keras").exists()


# --- .h5


def test_plain_keras_opens_an_h5_file_and_the_model_is_as_before(tmp_path: Path) -> None:
    model = trained("text")
    before = keras.saving.serialize_keras_object(model)["compile_config"]
    assert "optimizer anew" in not_held(h5.write(model, tmp_path / "model.h5"))
    assert keras.saving.serialize_keras_object(model)["compile_config"] == before
    loaded = keras.saving.load_model(tmp_path / "model.h5")
    assert same(values(model.weights), values(loaded.weights))


def test_what_keras_thinks_of_h5_is_not_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = trained()
    h5.write(model, tmp_path / "model.h5")
    h5.reopen(tmp_path / "model.h5", model=model)
    assert not caplog.records


@pytest.mark.parametrize("loss", ["mse", "mae", {"only": "msle"}])
def test_a_loss_by_its_short_name_opens_again(loss: Any, tmp_path: Path) -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {"only": layers.Dense(2, name="only")(inputs)})
    model.compile("sgd", loss)
    h5.write(model, tmp_path / "model.h5")
    h5.reopen(tmp_path / "model.h5", model=model)


@pytest.mark.parametrize(
    ("name", "reasons"), [("subclassed", 1), ("bfloat16", 1), ("custom_objects", 2)], ids=lambda value: str(value)
)
def test_what_h5_cannot_hold_is_refused_with_every_reason(name: str, reasons: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"an \.h5 file cannot hold this model") as error:
        h5.write(ZOO[name].build(), tmp_path / "model.h5")
    assert len(error.value.report.failures) == reasons  # type: ignore[attr-defined]


def test_a_graph_of_operations_that_h5_loses_is_refused_when_it_is_opened_again(tmp_path: Path) -> None:
    model = ZOO["functional"].build()
    with pytest.raises(NotFaithful, match=r"Keras cannot open the \.h5 file"):
        exporting.export(model, "h5", tmp_path / "model.h5", examples=ZOO["functional"].inputs)
    assert not (tmp_path / "model.h5").exists()


# --- weights


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras 2 is TensorFlow's")
@pytest.mark.slow
def test_keras_2_reads_the_old_layout_by_order_and_by_name(tmp_path: Path) -> None:
    pytest.importorskip("tf_keras", reason="NOT TESTED: tf-keras is not installed")
    model = keras.Sequential(
        [
            layers.Input((4, 3)),
            layers.Conv1D(3, 2, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.LSTM(2, name="lstm"),
            layers.Dense(2, name="dense"),
        ]
    )
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).uniform(0.1, 1, weight.shape))
    weights.write(model, tmp_path / "model.h5", form="legacy_weights_h5")
    np.save(tmp_path / "inputs.npy", floats(3, 4, 3))
    script = """if True:
        import numpy as np
        from tf_keras import Sequential, layers
        for by_name in (False, True):
            model = Sequential([layers.Input((4, 3)), layers.Conv1D(3, 2, name="conv"),
                layers.BatchNormalization(name="norm"), layers.LSTM(2, name="lstm"), layers.Dense(2, name="dense")])
            model.load_weights("model.h5", by_name=by_name)
            np.save(f"{by_name}.npy", model(np.load("inputs.npy")))
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, cwd=tmp_path, capture_output=True)
    expected = keras.ops.convert_to_numpy(model(np.load(tmp_path / "inputs.npy")))
    for by_name in (False, True):
        assert np.allclose(np.load(tmp_path / f"{by_name}.npy"), expected, atol=1e-6)


def test_names_longer_than_an_attribute_holds_are_split(tmp_path: Path) -> None:
    names = [f"{number:03}_{'x' * 250}" for number in range(300)]
    model = keras.Sequential([layers.Input((1,)), *(layers.Dense(1, name=name) for name in names)])
    weights.write(model, tmp_path / "model.h5", form="legacy_weights_h5")
    with open_contents(tmp_path / "model.h5") as contents:
        assert [layer["layer"] for layer in contents.details["layers"]] == names
        assert len(contents.tensors) == 600


# --- architecture, archives


def test_plain_keras_makes_a_model_of_the_json(tmp_path: Path) -> None:
    model = trained("functional")
    assert "no weights" in not_held(architecture.write(model, tmp_path / "model.json"))
    made = keras.models.model_from_json((tmp_path / "model.json").read_text())
    assert made.count_params() == model.count_params()
    assert made.optimizer.get_config() == {**model.optimizer.get_config(), "name": made.optimizer.name}


@pytest.mark.parametrize("form", ["zip", "tar.gz", "tar.zst"])
def test_an_archive_holds_the_form_that_was_asked_for(form: str, tmp_path: Path) -> None:
    model, path = trained(), tmp_path / f"model.{form}"
    exporting.export(model, form, path, examples=ZOO["sequential"].inputs, of="safetensors")
    with open_contents(path) as contents:
        assert contents.form == "safetensors"
        assert contents.parameters == model.count_params()
    if form == "tar.gz":
        with tarfile.open(path) as file:
            assert file.getnames() == ["model.safetensors"]


def test_a_form_within_is_for_archives(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="h5 is written without options"):
        exporting.export(ZOO["sequential"].build(), "h5", tmp_path / "model.h5", of="keras")


def test_an_archive_of_an_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another form"):
        exporting.export(trained(), "zip", tmp_path / "m.zip", examples=ZOO["sequential"].inputs, of="tar.gz")
