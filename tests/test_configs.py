"""A config may name what Keras itself would have written; all else is custom, or worse, wherever it stands."""

from __future__ import annotations

import base64
import json
import marshal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hostile import dense, layer, network
from modelkeep.errors import LimitExceeded
from modelkeep.formats.limits import Limits
from modelkeep.safety import configs

CODE = base64.b64encode(marshal.dumps(compile("x", "<lambda>", "eval"))).decode()
JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(),
    lambda inner: (
        some.lists(inner)
        | some.dictionaries(
            some.sampled_from(["class_name", "config", "module", "name", "function", "units", "x"]), inner
        )
    ),
    max_leaves=20,
)


def found(config: Any, parameters: int | None = None) -> list[tuple[str, str]]:
    return [(problem.rule, problem.place) for problem in configs.check(config, parameters=parameters)]


def rules(config: Any, parameters: int | None = None) -> set[str]:
    return {rule for rule, _ in found(config, parameters)}


def function(name: str, module: str = "builtins") -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}


# --- what Keras writes


@pytest.mark.parametrize(
    "config",
    [
        network(dense(), layer("keras.layers", "LSTM", units=8)),
        dense(activation=function("relu")),
        dense(activation=function("gelu", "keras.activations")),
        {"class_name": "Sequential", "config": [{"class_name": "Convolution2D", "config": {"nb_filter": 3}}]},
        {"class_name": "TFOpLambda", "config": {"name": "tf.math.add", "function": "math.add"}},
        {"class_name": "TFOpLambda", "config": {"name": "png", "function": "io.decode_png"}},
        layer("keras.src.models.functional", "Functional", "Functional"),
        layer("keras", "DTypePolicy", name="mixed_float16"),
        layer("tf_keras.src.layers.core.dense", "Dense", units=3),
        layer("keras.layers", "StringLookup", vocabulary=["a", "http://x", "/etc", "../up"]),
        layer("keras.layers", "TextVectorization", split="whitespace", vocabulary=None),
        layer("keras.layers", "EinsumDense", equation="...x,xy->...y"),
        {
            "class_name": "Lambda",
            "config": {"function": "relu", "function_type": "function", "module": "keras.activations"},
        },
        {"class_name": "Custom>Adam", "config": {"learning_rate": 0.001}},
        {"class_name": "__tuple__", "items": [1, 2]},
        {"class_name": "__numpy__", "config": {"value": [1.0], "dtype": "float32"}},
        {
            "class_name": "__typespec__",
            "spec_name": "TensorSpec",
            "module": "tensorflow.python.framework",
            "config": [],
        },
        {"class_name": "Dense", "config": {"name": "block1/dense", "units": 3}},
    ],
    ids=lambda config: str(config["class_name"]),
)
def test_what_keras_writes_is_in_order(config: Any) -> None:
    assert found(config) == []


@pytest.mark.parametrize(
    "config",
    [
        layer("mine.layers", "Scale", "mine>Scale"),
        layer("__main__", "Scale"),
        {"class_name": "Custom>Scale", "config": {}},
        function("mine>squared"),
        function("squared", "__main__"),
        layer("keras.layers", "LayerOfTomorrow"),
        {"class_name": "Lambda", "config": {"function": "scale", "function_type": "function", "module": "__main__"}},
        layer("keras_hub.src.models", "Backbone"),
    ],
)
def test_what_is_not_keras_own_is_custom_and_no_more(config: Any) -> None:
    assert rules(config) == {"custom-object"}


# --- what it does not


@pytest.mark.parametrize(
    "value",
    [
        {"class_name": "__lambda__", "config": {"code": CODE, "defaults": None, "closure": None}},
        {"class_name": "Lambda", "config": {"function": [CODE, None, None], "function_type": "lambda"}},
        {"class_name": "Lambda", "config": {"function": {"class_name": "__tuple__", "items": ["x"]}}},
        {"class_name": "Lambda", "config": {"function": "name", "output_shape": ["x"], "output_shape_type": "lambda"}},
        dense(activation=CODE),
        [[[{"x": {"y": [CODE[:60] + "\n" + CODE[60:]]}}]]],
        marshal.dumps(compile("x", "<lambda>", "eval")).decode("latin-1"),
    ],
)
def test_code_is_found_wherever_it_is(value: Any) -> None:
    assert "code-by-value" in rules(value)


@pytest.mark.parametrize("text", ["", "relu", "c", "cosine_similarity", "YW55IGNhcm5hbCBwbGVhc3VyZS4gYW55IGNhcm5hbA=="])
def test_text_is_no_code(text: str) -> None:
    assert not configs.is_code(text)


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (layer("os", "system"), "foreign-module"),
        (function("eval"), "foreign-module"),
        (function("__import__"), "foreign-module"),
        (layer("builtins", "dict"), "foreign-module"),
        (function("check_output", "subprocess"), "foreign-module"),
        ({"class_name": "Lambda", "config": {"function": "system", "module": "os"}}, "foreign-module"),
        (layer("keras.utils", "get_file"), "gadget"),
        (layer("keras.callbacks", "CSVLogger"), "gadget"),
        (layer("keras.src.saving.saving_lib", "load_model"), "gadget"),
        (layer("tf_keras.utils", "get_file"), "gadget"),
        (function("deserialize", "keras.layers"), "gadget"),
        (layer("keras.layers", "deserialize"), "gadget"),
        (layer("keras.layers", "TFSMLayer"), "foreign-layer"),
        ({"class_name": "TorchModuleWrapper", "config": {}}, "foreign-layer"),
        (layer("keras.layers", "FlaxLayer"), "function-layer"),
        (layer("keras.layers", "Dense", "mine>Dense"), "registered-name"),
        ({**function("relu"), "registered_name": "mine>relu"}, "registered-name"),
        ({"class_name": "TFOpLambda", "config": {"function": "io.read_file"}}, "tensorflow-operation"),
        ({"class_name": "TFOpLambda", "config": {"function": "compat.v1.py_func"}}, "tensorflow-operation"),
        ({"class_name": "TFOpLambda", "config": {"function": "raw_ops.WriteFile"}}, "tensorflow-operation"),
        ({"class_name": "ClassMethod", "config": {"function": "data.TFRecordDataset"}}, "tensorflow-operation"),
        ({"class_name": "TensorFlowOpLayer", "config": {"node_def": {"op": "WriteFile"}}}, "tensorflow-operation"),
        (layer("keras.layers", "IntegerLookup", vocabulary="words.txt"), "file-argument"),
        (layer("keras.layers", "IntegerLookup", idf_weights="gs://x/y"), "file-argument"),
        (layer("keras.layers", "Dense", units=1, kernel_initializer="/etc/passwd"), "file-argument"),
        (layer("mine", "Words", path="../words.txt"), "outside-reference"),
        (layer("keras.layers", "Dense", name="a/../../b"), "layer-name"),
        (layer("keras.layers", "Dense", name="a\\b"), "layer-name"),
        ({"class_name": 3, "config": {}}, "malformed-config"),
        ({"class_name": "Dense", "module": ["keras"], "config": {}}, "malformed-config"),
        ({"class_name": "function", "config": {}}, "malformed-config"),
        ({"class_name": "TFOpLambda", "config": {}}, "malformed-config"),
    ],
)
def test_what_keras_would_not_write_is_found_for_what_it_is(config: Any, rule: str) -> None:
    assert rule in rules(config)
    assert rule in rules(network(network({"x": [config]})))


def test_a_finding_says_where() -> None:
    place = "config.config.layers[1].config.activation"
    assert found(network(dense(activation=function("eval")))) == [("foreign-module", place)]


# --- sizes


@pytest.mark.parametrize(
    "one",
    [
        dense(60_000_000),
        layer("keras.layers", "Embedding", input_dim=10**7, output_dim=100),
        layer("keras.layers", "LSTM", units=20_000),
        layer("keras.layers", "GRU", units=20_000),
        layer("keras.layers", "Conv2D", filters=10**8, kernel_size=[3, 3]),
        layer("keras.layers", "MultiHeadAttention", num_heads=10**5, key_dim=10**4),
        layer("keras.layers", "InputLayer", batch_shape=[None, 10**6, 10**6]),
        layer("keras.layers", "RepeatVector", n=10**10),
    ],
    ids=lambda one: one["class_name"],
)
def test_layers_far_larger_than_the_weights_are_found(one: Mapping[str, Any]) -> None:
    assert rules(network(one), parameters=1000) == {"declared-size"}


def test_layers_whose_weights_are_there_are_in_order() -> None:
    assert rules(network(dense(60_000_000)), parameters=180_000_000) == set()
    assert rules(network(dense(50_000_000))) == set()  # an architecture alone


def test_an_architecture_alone_has_a_limit_too() -> None:
    assert rules(network(dense(100_000_000))) == {"declared-size"}


def test_layers_have_a_limit() -> None:
    with pytest.raises(LimitExceeded, match="too many objects"):
        list(configs.check(network(*[dense()] * 50), limits=Limits(layers=40)))


# --- whatever it is


@given(JSON)
def test_any_json_is_judged_without_an_error(config: Any) -> None:
    found(config)


def test_a_config_of_any_depth_is_walked() -> None:
    config: Any = CODE
    for _ in range(100_000):
        config = [config]
    ((rule, place),) = found(config)
    assert rule == "code-by-value"
    assert len(place) < 300


# --- the list of names


@pytest.mark.keras
def test_the_list_has_every_name_of_the_keras_that_is_here() -> None:
    from write_keras_names import PATH, of_keras_3

    known, here = json.loads(Path(PATH).read_text(encoding="utf-8")), of_keras_3()
    for part in ("classes", "functions"):
        own = {(name, place) for name, places in known[part].items() for place in places}
        ours = {(name, place) for name, places in here[part].items() for place in places if not _of_tests(place)}
        assert {(name, place) for name, place in ours - own if "." in place and place.startswith("keras.")} == set()


def _of_tests(place: str) -> bool:
    return place.endswith("_test") or ".backend." in place


def test_nothing_on_the_list_does_more_than_compute() -> None:
    names = configs._names()
    listed = {*names["classes"], *names["functions"], *names["legacy_classes"], *names["legacy_functions"]}
    gadgets = {"get_file", "load_model", "deserialize", "get", "enable_unsafe_deserialization", "model_from_json"}
    assert not listed & {
        *gadgets,
        "load_img",
        "save_img",
        "Progbar",
        "CSVLogger",
        "BackupAndRestore",
        "TensorFlowOpLayer",
    }
