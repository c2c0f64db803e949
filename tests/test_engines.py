"""Forms run by their runtimes: what they tell of themselves, what they answer, and what they refuse."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelkeep.engines.engine import MODULES, open_engine
from modelkeep.errors import CannotLoad, MissingExtra, UsageError
from modelkeep.manifest import Signature, TensorSpec

LEFT = np.arange(6, dtype="float32").reshape(3, 2)
TIMES = np.array([2], dtype="int32")


def write_onnx(path: Path) -> Path:
    """``product = left * times``, of any number of rows."""
    from onnx import TensorProto, helper, save

    inputs = [
        helper.make_tensor_value_info("left", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("times", TensorProto.INT32, [1]),
    ]
    nodes = [
        helper.make_node("Cast", ["times"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["left", "factor"], ["product"]),
    ]
    outputs = [helper.make_tensor_value_info("product", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def write_openvino(path: Path) -> Path:
    import openvino

    path.mkdir()
    source = write_onnx(path / "source.onnx")
    openvino.save_model(openvino.Core().read_model(str(source)), str(path / "model.xml"), compress_to_fp16=False)
    source.unlink()
    return path


def _module() -> Any:
    import tensorflow as tf

    class Product(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], name="left"), tf.TensorSpec([1], "int32", name="times")])
        def product(self, left: Any, times: Any) -> Any:
            return {"product": left * tf.cast(times, "float32")}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
        def shout(self, word: Any) -> Any:
            return {"loud": tf.strings.upper(word, encoding="utf-8")}

    return Product()


def write_saved_model(path: Path) -> Path:
    import tensorflow as tf

    module = _module()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.product, "shout": module.shout})
    return path


def write_litert(path: Path) -> Path:
    import tensorflow as tf

    module = _module()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.product.get_concrete_function()], module)
    path.write_bytes(converter.convert())
    return path


WRITERS = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "saved_model": write_saved_model,
    "litert": write_litert,
}
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "saved_model": "tensorflow", "litert": "ai_edge_litert"}
FORMS = [pytest.param(form, marks=[pytest.mark.keras] if form in ("saved_model", "litert") else []) for form in MODULES]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, made = tmp_path_factory.mktemp("engines"), {}

    def write(form: str) -> Path:
        if form not in made:
            made[form] = WRITERS[form](folder / form)
        return made[form]

    return write


@pytest.mark.parametrize("form", FORMS)
def test_an_engine_tells_names_shapes_and_dtypes_of_the_file(form: str, written: Any) -> None:
    engine = open_engine(form, written(form))
    by_name = {spec.name: spec for spec in engine.signature.inputs}
    assert by_name == {
        "left": TensorSpec(name="left", shape=(None, 2), dtype="float32"),
        "times": TensorSpec(name="times", shape=(1,), dtype="int32"),
    }
    assert engine.signature.outputs == (TensorSpec(name="product", shape=(None, 2), dtype="float32"),)
    engine.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 3])
def test_an_engine_answers_by_name_at_any_batch_size(form: str, rows: int, written: Any) -> None:
    engine = open_engine(form, written(form))
    found = engine.run({"times": TIMES, "left": LEFT[:rows]})
    assert found.keys() == {"product"}
    np.testing.assert_array_equal(found["product"], LEFT[:rows] * 2, strict=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"left": LEFT}, "other names: found left, expected left, times"),
        ({"left": LEFT, "right": TIMES}, "other names"),
        ({"left": LEFT, "times": TIMES.astype("int64")}, "input times has another dtype: found int64, expected int32"),
        ({"left": LEFT[:, :1], "times": TIMES}, r"input left has another shape: found \(3, 1\), expected \(None, 2\)"),
        ({"left": LEFT[0], "times": TIMES}, "input left has another shape"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(form: str, inputs: Any, reason: str, written: Any) -> None:
    engine = open_engine(form, written(form))
    with pytest.raises(UsageError, match=reason):
        engine.run(inputs)


@pytest.mark.parametrize("form", FORMS)
def test_threads_that_ask_at_once_each_get_their_own_answer(form: str, written: Any) -> None:
    engine = open_engine(form, written(form))

    def ask(number: int) -> bool:
        left = np.full((1 + number % 4, 2), number, "float32")
        return bool((engine.run({"left": left, "times": TIMES})["product"] == 2 * left).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_none_is_refused_with_the_runtimes_reason(form: str, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CannotLoad, match="cannot load broken"):
        open_engine(form, path)


@pytest.mark.parametrize("form", MODULES)
def test_a_runtime_that_is_not_installed_is_named_with_its_extra(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (RUNTIMES[form], "ai_edge_litert.interpreter", "tensorflow.lite"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"pip install 'modelkeep\["):
        open_engine(form, tmp_path)


def test_a_form_that_no_engine_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one of onnx, saved_model, litert, openvino"):
        open_engine("keras", tmp_path)


@pytest.mark.keras
def test_a_saved_model_answers_by_another_signature_with_text(written: Any) -> None:
    from modelkeep.engines.saved_model import load

    engine = load(written("saved_model"), "shout")
    assert engine.signature.inputs == (TensorSpec(name="word", shape=(None,), dtype="string"),)
    found = engine.run({"word": np.array(["ünder", "a"])})
    assert found["loud"].tolist() == ["ÜNDER", "A"]
    with pytest.raises(UsageError, match="found other, expected serving_default or shout"):
        load(written("saved_model"), "other")


@pytest.mark.keras
def test_a_saved_model_whose_objects_cannot_be_made_answers_by_its_graph(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from modelkeep.engines.saved_model import load

    def without_keras_2(*_: Any) -> None:  # what TensorFlow raises for the slots of an optimizer of Keras 2
        raise AttributeError("'_UserObject' object has no attribute 'add_slot'")

    path = written("saved_model")
    whole = {name: load(path, name).signature for name in ("serving_default", "shout")}
    monkeypatch.setattr(tf.saved_model, "load", without_keras_2)
    assert {name: load(path, name).signature for name in whole} == whole
    assert load(path, "shout").run({"word": np.array(["ünder", "a"])})["loud"].tolist() == ["ÜNDER", "A"]
    with pytest.raises(UsageError, match="has no such signature: found other"):
        load(path, "other")


@pytest.mark.keras
def test_a_saved_model_of_tensorflow_1_answers(tmp_path: Path) -> None:
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None], "x")
        weight = tf1.get_variable("w", initializer=3.0, use_resource=False)
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(session, str(tmp_path / "model"), {"x": x}, {"y": x * weight})
    found = open_engine("saved_model", tmp_path / "model").run({"x": np.ones(2, "float32")})
    assert found["y"].tolist() == [3.0, 3.0]


def test_text_in_onnx_goes_in_and_out_as_str(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    word = helper.make_tensor_value_info("word", TensorProto.STRING, [None])
    same = helper.make_tensor_value_info("same", TensorProto.STRING, [None])
    graph = helper.make_graph([helper.make_node("Identity", ["word"], ["same"])], "g", [word], [same])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "m.onnx")
    engine = open_engine("onnx", tmp_path / "m.onnx")
    assert engine.signature == Signature(
        inputs=(TensorSpec(name="word", shape=(None,), dtype="string"),),
        outputs=(TensorSpec(name="same", shape=(None,), dtype="string"),),
    )
    assert engine.run({"word": np.array(["ü", "b"])})["same"].tolist() == ["ü", "b"]


def test_the_runtimes_are_installed_where_the_tests_run() -> None:
    assert [name for name in RUNTIMES.values() if importlib.util.find_spec(name) is None] == []
