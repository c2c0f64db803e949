"""Models written in every form that answers: right at every batch size, under their own names, or refused."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import zoo
from modelkeep.engines.engine import open_engine
from modelkeep.errors import AlreadyExists, MissingExtra, NotFaithful, StorageError, UsageError
from modelkeep.formats.forms import open_contents
from modelkeep.formats.saved_model import OWN
from modelkeep.live import exporting
from modelkeep.live.exporting import export, forms
from modelkeep.live.golden import outputs_of
from modelkeep.live.interface import interface, with_rows
from modelkeep.live.replaying import compare, examples_of
from modelkeep.live.signature import signature
from modelkeep.report import Severity

pytestmark = [
    pytest.mark.keras,
    # Of TensorFlow's, NumPy's and the converters' to each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*tf.lite.*:UserWarning"),
]
BACKEND = keras.backend.backend()
floats, numbers = zoo.floats, zoo.numbers


# --- the models of which Keras' own exports are wrong, or cannot be loaded, somewhere

TABLE: dict[str, tuple[Callable[[], keras.Model], Any]] = {}


def entry(inputs: Any) -> Callable[..., Any]:
    def add(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
        TABLE[build.__name__] = (build, inputs)
        return build

    return add


def _recurrent(steps: int | None) -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((steps,), dtype="int32"),
            layers.Embedding(20, 4, mask_zero=True),
            layers.LSTM(3),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


@entry(numbers(5, 6).astype("int32"))
def masked_lstm() -> keras.Model:
    return _recurrent(6)


@entry(numbers(5, 6).astype("int32"))
def lstm_of_any_length() -> keras.Model:
    return _recurrent(None)


@entry(floats(4, 5, 3))
def both_ways() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((5, 3)),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
            layers.GRU(3),
        ]
    )


@entry(floats(4, 8, 8, 3))
def convolutions() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(4, 3),
            layers.Conv2DTranspose(2, 3, strides=2),
            layers.GlobalAveragePooling2D(),
        ]
    )


@entry(floats(4, 5, 8))
def attention_of_any_length() -> keras.Model:
    x = keras.Input((None, 8))
    return keras.Model(x, layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(x, x) + x))


@entry({"left": floats(4, 5), "right": floats(4, 5)})
def mappings() -> keras.Model:
    return zoo.functional()


@entry(floats(4, 5))
def half_precision() -> keras.Model:
    return zoo.mixed_float16()


@entry(floats(4, 8))
def quantized() -> keras.Model:
    return zoo.int8()


@entry(floats(3, 10, 12, 3) * 100)
def preprocessed_images() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((10, 12, 3)),
            layers.Resizing(8, 8),
            layers.Rescaling(1 / 255),
            layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
            layers.Conv2D(2, 3),
            layers.GlobalAveragePooling2D(),
        ]
    )


@entry(floats(4, 6))
def activations() -> keras.Model:
    """Some for which converters lack an operator, or lose the names."""
    x = keras.Input((6,))
    parts = [layers.Dense(2, activation=name)(x) for name in ("gelu", "celu", "silu")]
    return keras.Model(x, layers.Concatenate(name="all")(parts))


@entry(floats(4, 6, 6, 2))
def grouped_convolution() -> keras.Model:
    """Which Keras compiles by itself under TensorFlow."""
    return keras.Sequential([layers.Input((6, 6, 2)), layers.Conv2D(4, 3, groups=2), layers.Flatten()])


@entry(floats(4, 6, 3))
def with_states() -> keras.Model:
    return zoo.stateful_rnn()


# What each backend's own exporter gets wrong or cannot write; the rest is as under TensorFlow, which writes all of it.
ELSEWHERE = {
    "jax": ["both_ways", "convolutions", "preprocessed_images"],
    "torch": ["lstm_of_any_length", "attention_of_any_length", "quantized"],
}


def answers(form: str, path: Path, model: keras.Model, inputs: Any) -> dict[str, Any]:
    """What a written form answers, and that it is what the model does, at the batch given."""
    asked = interface(model, signature(model), inputs)
    given = inputs if isinstance(inputs, dict) else {asked.inputs[0].name: inputs}
    return open_engine(form, path).run(given)


def flat(value: Any) -> list[Any]:
    return [np.asarray(one) for one in keras.tree.flatten(value)]


@pytest.mark.backends
@pytest.mark.slow
@pytest.mark.parametrize("name", ELSEWHERE.get(BACKEND, TABLE))
def test_onnx_answers_as_the_model_does_where_keras_own_is_wrong(name: str, tmp_path: Path) -> None:
    build, inputs = TABLE[name]
    model = build()
    report = export(model, "onnx", tmp_path / "m.onnx", examples=inputs)
    assert report.ok
    found = answers("onnx", tmp_path / "m.onnx", model, inputs)
    tolerance = 5e-3 if name == "half_precision" else 1e-5
    expected = outputs_of(model, inputs)
    for key, array in found.items():
        np.testing.assert_allclose(array, expected[key] if isinstance(expected, dict) else expected, atol=tolerance)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="the same graph as under TensorFlow")
@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("form", ["saved_model", "litert", "openvino"])
def test_other_forms_answer_as_the_model_does_or_say_what_they_have_no_operators_for(
    form: str, name: str, tmp_path: Path
) -> None:
    build, inputs = TABLE[name]
    model = build()
    refused = {
        "lstm_of_any_length": "no loops over time",
        "half_precision": "no operators",
        "quantized": "no operators",
    }
    if form == "litert" and name in refused:
        with pytest.raises(UsageError, match=refused[name]):
            export(model, form, tmp_path / "m", examples=inputs)
        assert list(tmp_path.iterdir()) == []
        return
    report = export(model, form, tmp_path / "m", examples=inputs)
    assert {f.subject for f in report if f.check == "export-replay"} == {s.name for s in signature(model).outputs}
    assert answers(form, tmp_path / "m", model, inputs)


@pytest.mark.backends
@pytest.mark.slow
def test_a_saved_model_serves_and_restores_whole(tmp_path: Path) -> None:
    model = zoo.functional()
    specimen = zoo.ZOO["functional"]
    specimen.use(model)
    export(model, "saved_model", tmp_path / "m", examples=specimen.inputs)
    assert answers("saved_model", tmp_path / "m", model, specimen.inputs).keys() == {"score", "kind"}
    restored = keras.saving.load_model(tmp_path / "m" / OWN)
    assert int(restored.optimizer.iterations) == 2
    for was, now in zip(
        flat(outputs_of(model, specimen.inputs)), flat(outputs_of(restored, specimen.inputs)), strict=True
    ):
        np.testing.assert_array_equal(was, now)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="text is TensorFlow's alone")
def test_text_goes_into_a_saved_model_and_nowhere_else(tmp_path: Path) -> None:
    model = zoo.vectorized_text()
    texts = np.array([["a fine film"], ["not a film"]])
    export(model, "saved_model", tmp_path / "m", examples=texts)
    found = answers("saved_model", tmp_path / "m", model, texts)
    np.testing.assert_allclose(next(iter(found.values())), outputs_of(model, texts), atol=1e-6)
    for form in ("onnx", "litert", "openvino"):
        with pytest.raises(UsageError, match="tables, which only a SavedModel can hold"):
            export(model, form, tmp_path / "other", examples=texts)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


# --- names, dtypes, rows


def exported_names(path: Path) -> tuple[list[str], list[str]]:
    with open_contents(path) as contents:
        found = next(iter(contents.signatures.values()))
        return sorted(s.name for s in found.inputs), sorted(s.name for s in found.outputs)


FORMS = ["onnx", "litert", "openvino", "saved_model"]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="names do not depend on the backend")
def test_names_are_the_models_own_in_every_form_and_at_every_export(tmp_path: Path) -> None:
    model = zoo.functional()
    for turn in range(2):
        for form in FORMS:
            path = tmp_path / f"{form}{turn}"
            export(model, form, path, examples=zoo.ZOO["functional"].inputs)
            assert exported_names(path) == (["left", "right"], ["kind", "score"])


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="names do not depend on the backend")
def test_names_and_lengths_are_the_same_in_another_process(tmp_path: Path) -> None:
    script = (
        "import sys, zoo; from pathlib import Path; from modelkeep.live.exporting import export\n"
        "export(zoo.functional(), 'onnx', Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = [sys.executable, "-c", script, str(tmp_path / "there.onnx")]
    subprocess.run(done, env=environment, check=True, capture_output=True)
    export(zoo.functional(), "onnx", tmp_path / "here.onnx")
    here, there = (values_of(tmp_path / name) for name in ("here.onnx", "there.onnx"))
    assert here == there
    assert here["left"] == ["batch", 5]


def values_of(path: Path) -> dict[str, list[Any]]:
    """The inputs and outputs of an ONNX file with their lengths, a name for each that is unknown."""
    import onnx

    graph = onnx.load(path).graph
    return {
        value.name: [length.dim_param or length.dim_value for length in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


@pytest.mark.skipif(BACKEND != "tensorflow", reason="names do not depend on the backend")
def test_names_that_no_form_takes_become_words_and_an_output_never_has_an_inputs(tmp_path: Path) -> None:
    inputs = {name: keras.Input((2,), name=name) for name in ("a b", "lambda", "_x", "same")}
    model = keras.Model(inputs, {"same": inputs["same"], "a-b": inputs["a b"] + inputs["_x"] + inputs["lambda"]})
    examples = {name: floats(3, 2) for name in inputs}
    for form in FORMS:
        export(model, form, tmp_path / form, examples=examples)
        assert exported_names(tmp_path / form) == (
            ["a_b", "input_lambda", "input_x", "same"],
            ["a_b_output", "same_output"],
        )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the signature does not depend on the backend")
def test_a_model_that_declares_no_input_takes_what_the_examples_are(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Embedding(20, 4), layers.LSTM(3), layers.Dense(1)])
    tokens = numbers(8, 6).astype("int32")
    model(tokens[:2])
    assert signature(model).inputs[0].dtype == "float32"
    export(model, "onnx", tmp_path / "m.onnx", examples=tokens)
    (spec,) = open_engine("onnx", tmp_path / "m.onnx").signature.inputs
    assert (spec.dtype, spec.shape) == ("int32", (None, 6))


def test_rows_are_repeated_or_cut_and_lone_numbers_stay() -> None:
    batch = {"rows": np.arange(3), "scale": np.array(2.0)}
    assert with_rows(batch, 5)["rows"].tolist() == [0, 1, 2, 0, 1]
    assert with_rows(batch, 1)["rows"].tolist() == [0]
    assert with_rows(batch, 5)["scale"] == 2.0


# --- wrong exports are refused


@keras.saving.register_keras_serializable("exporting")
class Counted(layers.Layer):
    """Takes the number of rows for a plain number: right in Keras, and a constant in every traced graph."""

    def call(self, inputs: Any) -> Any:
        return inputs * float(inputs.shape[0] or 1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere it fails sooner")
@pytest.mark.parametrize("form", FORMS)
def test_an_export_right_at_one_row_and_wrong_at_three_is_refused_with_numbers(form: str, tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((2,)), Counted(), layers.Dense(1)])
    with pytest.raises(NotFaithful, match=r"values differ.*was recorded.*found.*at . rows") as caught:
        export(model, form, tmp_path / "m", examples=floats(4, 2))
    assert caught.value.report.failures
    assert list(tmp_path.iterdir()) == []


@pytest.mark.backends
@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="Keras' own export is wrong under torch alone")
@pytest.mark.filterwarnings("ignore")  # Keras' own export warns of much; that this length is lost is not among it
def test_keras_own_export_with_a_length_that_became_a_constant_does_not_pass(tmp_path: Path) -> None:
    build, inputs = TABLE["lstm_of_any_length"]
    model = build()
    examples = examples_of(model, interface(model, signature(model), inputs), inputs)
    model.export(tmp_path / "keras.onnx", format="onnx", verbose=False)
    engine = open_engine("onnx", tmp_path / "keras.onnx")
    (given,) = engine.signature.inputs
    findings = compare(
        lambda batch: next(iter(engine.run({given.name: batch.astype(given.dtype)}).values())),
        model,
        examples,
        same_backend=False,
    )
    assert [finding.severity for finding in findings] == [Severity.FAILURE]


def test_examples_that_the_model_does_not_take_are_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing that this model answers"):
        export(zoo.sequential(), "onnx", tmp_path / "m.onnx", examples=floats(4, 7))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="states are dropped alike")
def test_states_that_change_with_each_answer_are_said_to_stay(tmp_path: Path) -> None:
    build, inputs = TABLE["with_states"]
    report = export(build(), "onnx", tmp_path / "m.onnx", examples=inputs)
    assert [finding.check for finding in report.warnings] == ["export-state"]
    engine = open_engine("onnx", tmp_path / "m.onnx")
    first, second = (engine.run({engine.signature.inputs[0].name: inputs}) for _ in range(2))
    np.testing.assert_array_equal(*first.values(), *second.values())


# --- files


@pytest.mark.skipif(BACKEND != "tensorflow", reason="files are published alike")
def test_what_is_there_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    model = zoo.sequential()
    for form in ("onnx", "saved_model"):
        export(model, form, tmp_path / form, examples=floats(2, 5))
        with pytest.raises(AlreadyExists):
            export(model, form, tmp_path / form, examples=floats(2, 5))
        export(model, form, tmp_path / form, examples=floats(2, 5), overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="holds other things"):
        export(model, "saved_model", tmp_path / "mine", examples=floats(2, 5), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "onnx", "saved_model"]


def test_every_form_can_be_written_where_the_tests_run() -> None:
    assert {form: missing for form, missing in forms().items() if missing} == {}


def test_a_form_whose_packages_are_missing_names_the_line_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    # A blocked module has no spec to find, just as one that is not installed.
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxruntime" else json)
    with pytest.raises(MissingExtra, match=r"writing onnx needs onnxruntime\n.*pip install 'modelkeep\[onnx\]'"):
        export(zoo.sequential(), "onnx", Path("never.onnx"))


def test_a_full_disk_is_no_fault_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"Can't close file ({os.strerror(errno.ENOSPC)})")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        export(zoo.sequential(), "h5", tmp_path / "m.h5")
    assert not list(tmp_path.iterdir())


def test_a_form_that_nobody_writes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"found pickle, expected one of keras, h5"):
        export(zoo.sequential(), "pickle", Path("never"))


# --- the backend's own exporter, where the model cannot be rebuilt elsewhere


@pytest.mark.backends
@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow is where models are rebuilt")
def test_a_model_with_a_lambda_goes_the_backends_own_way(tmp_path: Path) -> None:
    form = {"jax": "saved_model", "torch": "onnx"}[BACKEND]
    model = keras.Sequential([layers.Input((5,)), layers.Lambda(lambda x: x * 2), layers.Dense(2)])
    report = export(model, form, tmp_path / "m", examples=floats(4, 5))
    assert any("another way failed" in finding.message for finding in report if finding.check == "export-route")
    found = answers(form, tmp_path / "m", model, inputs := floats(3, 5))
    np.testing.assert_allclose(next(iter(found.values())), outputs_of(model, inputs), atol=1e-5)
