from __future__ import annotations

import json

import blake3
import pytest

from modelkeep.diff import diff
from modelkeep.errors import IntegrityError
from modelkeep.manifest import (
    Asset,
    CustomObject,
    Environment,
    Golden,
    Lineage,
    Manifest,
    Part,
    Piece,
    Signature,
    Tensor,
    TensorSpec,
)


def digest(data: bytes) -> str:
    return f"blake3:{blake3.blake3(data).hexdigest()}"


class Parts(dict):
    """Parts in memory; ``parts.add`` gives the manifest's record of one."""

    def add(self, name, value):
        data = json.dumps(value).encode() if not isinstance(value, bytes) else value
        self[digest(data)] = data
        return Part(name=name, digest=digest(data), size=len(data))


def dense(name, units, **more):
    config = {"name": name, "units": units, "activation": "relu", "use_bias": True, **more}
    return {"class_name": "Dense", "config": config, "registered_name": None}


def sequential(*layers, name="sequential"):
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def functional(*layers):
    """Layers with the names of their inputs, as a functional config."""
    config = [
        {
            **layer,
            "name": layer["config"]["name"],
            "inbound_nodes": [{"args": [keras_tensor(i) for i in inputs], "kwargs": {}}],
        }
        for layer, inputs in layers
    ]
    return {"class_name": "Functional", "config": {"name": "functional", "layers": config}}


def keras_tensor(name):
    return {"class_name": "__keras_tensor__", "config": {"shape": [None, 4], "keras_history": [name, 0, 0]}}


def tensor(name, values, shape=(2, 2), variable=None):
    data = values.encode()
    piece = Piece(blob=digest(data), size=16)
    return Tensor(name=name, dtype="float32", shape=shape, digest=digest(data), pieces=(piece,), variable=variable)


def version(number, **fields):
    return Manifest(model="m", version=number, created="2026-05-01T00:00:00Z", writer="test", **fields)


def compared(section, old, new, parts=None, **options):
    """Subject → (kind, text) of each change in a section, and how many are the same."""
    found = diff(version("1.0.0", **old), version("1.1.0", **new), (parts or {}).__getitem__, **options)
    return {change.subject: (change.kind, str(change)) for change in found[section]}, found[section].same


def architectures(old, new):
    parts = Parts()
    sides = [{"parts": (parts.add("config.json", config),)} for config in (old, new)]
    return compared("architecture", *sides, parts)


def test_two_equal_versions_do_not_differ():
    parts = Parts()
    fields = {"parts": (parts.add("config.json", sequential(dense("dense", 2))),), "metrics": {"a": 1}}
    found = diff(version("1.0.0", **fields), version("1.0.1", **fields), parts.__getitem__)
    assert not found
    assert str(found) == "m:1.0.0 → m:1.0.1: no difference"


def test_a_layer_is_recognized_whatever_number_keras_gave_it():
    old = sequential(dense("dense", 64), dense("dense_1", 1))
    new = sequential(dense("dense_2", 64), dense("dense_3", 32), dense("dense_4", 1), name="sequential_1")
    assert architectures(old, new) == ({"dense_3": ("added", "Dense(units=32, activation=relu)")}, 2)
    assert architectures(new, old) == ({"dense_3": ("removed", "Dense(units=32, activation=relu)")}, 2)


def test_a_changed_layer_shows_each_value_before_and_after():
    zeros, ones = ({"class_name": name, "config": {"seed": seed}} for name, seed in (("Zeros", 1), ("Ones", 1)))
    seeded = {"class_name": "Zeros", "config": {"seed": 2}}
    old = sequential(dense("hidden", 64, kernel_initializer=zeros, bias_initializer=zeros), dense("head", 1))
    new = sequential(dense("hidden", 32, kernel_initializer=ones, bias_initializer=seeded), dense("head", 1))
    assert architectures(old, new) == (
        {
            "hidden.units": ("changed", "64 → 32"),
            "hidden.kernel_initializer": ("changed", "Zeros → Ones"),
            "hidden.bias_initializer.seed": ("changed", "1 → 2"),
        },
        1,
    )


def test_a_function_is_shown_by_its_name_and_a_value_newly_known_to_keras_as_none_is_no_change():
    gelu = {"class_name": "function", "config": "my_gelu", "module": "builtins"}
    old = sequential(dense("a1", 1), dense("b1", 1))
    new = sequential(dense("a1", 1, activation=gelu), dense("b1", 1, quantization_config=None))
    assert architectures(old, new) == ({"a1.activation": ("changed", "relu → my_gelu")}, 1)


def test_layers_of_nested_models_are_named_by_their_path():
    old = sequential(sequential(dense("dense", 4), name="encoder"), dense("head", 1))
    new = sequential(sequential(dense("dense_1", 8), name="encoder"), dense("head", 1))
    assert architectures(old, new) == ({"encoder/dense_1.units": ("changed", "4 → 8")}, 2)


def test_a_renamed_layer_another_class_and_another_kind_of_model_are_told():
    old, new = sequential(dense("first", 4), dense("last", 1)), sequential(dense("start", 4), dense("last", 1))
    assert architectures(old, new)[0] == {"start.name": ("changed", "first → start")}
    norm = {"class_name": "BatchNormalization", "config": {"name": "first"}}
    assert architectures(old, sequential(norm, dense("last", 1)))[0] == {
        "first": ("changed", "Dense → BatchNormalization")
    }
    assert architectures(old, functional())[0]["model"] == ("changed", "Sequential → Functional")


def test_layers_in_another_order_are_told_once():
    old, new = sequential(dense("a1", 1), dense("b1", 1)), sequential(dense("b1", 1), dense("a1", 1))
    assert architectures(old, new) == ({"model.order": ("changed", "[a1, b1] → [b1, a1]")}, 2)


def test_other_connections_are_told_and_other_automatic_names_are_not():
    old = functional((dense("dense", 1), ["x"]), (dense("out", 1), ["dense"]))
    same = functional((dense("dense_7", 1), ["x"]), (dense("out", 1), ["dense_7"]))
    skipped = functional((dense("dense", 1), ["x"]), (dense("out", 1), ["x"]))
    assert architectures(old, same) == ({}, 2)
    assert architectures(old, skipped) == ({"out.inputs": ("changed", "dense → x")}, 1)


def test_a_call_with_other_arguments_is_told():
    def masked(**kwargs):
        config = functional((dense("out", 1), ["x"]))
        config["config"]["layers"][0]["inbound_nodes"] = [{"args": [keras_tensor("x"), 1], "kwargs": kwargs}]
        return config

    assert architectures(masked(mask=None), masked()) == ({}, 1)
    told = ("changed", "[x, 1] → [x, 1, {mask: m}]")
    assert architectures(masked(), masked(mask=keras_tensor("m"))) == ({"out.inputs": told}, 0)


def test_weights_follow_their_layer_and_say_how_far_they_moved():
    parts = Parts()
    grown = sequential(dense("dense_2", 64), dense("dense_3", 32), dense("dense_4", 1), name="sequential_1")
    old = {
        "parts": (parts.add("config.json", sequential(dense("dense", 64), dense("dense_1", 1))),),
        "tensors": (
            tensor("weights/layers/dense/vars/0", "a", variable="sequential/dense/kernel"),
            tensor("weights/layers/dense_1/vars/0", "b", variable="sequential/dense_1/kernel"),
        ),
    }
    new = {
        "parts": (parts.add("config.json", grown),),
        "tensors": (
            tensor("weights/layers/dense/vars/0", "a", variable="sequential_1/dense_2/kernel"),
            tensor("weights/layers/dense_1/vars/0", "c", (4, 2), variable="sequential_1/dense_3/kernel"),
            tensor("weights/layers/dense_2/vars/0", "d", variable="sequential_1/dense_4/kernel"),
        ),
    }
    assert compared("weights", old, new, parts, distance=lambda a, b: 0.0312) == (
        {
            "dense_3/kernel": ("added", "float32 (4, 2)"),
            "dense_4/kernel": ("changed", "float32 (2, 2), relative L2 0.0312"),
        },
        1,
    )


def test_inputs_and_outputs_follow_the_layers_they_are_named_after():
    parts = Parts()

    def side(number, length):
        ends = {"inputs": f"input_layer{number}", "outputs": f"dense{number}"}
        specs = {kind: (TensorSpec(name=name, shape=(length,), dtype="int8"),) for kind, name in ends.items()}
        inputs = {"class_name": "InputLayer", "config": {"name": ends["inputs"]}}
        config = parts.add("config.json", sequential(inputs, dense(ends["outputs"], 1)))
        return {"parts": (config,), "signature": Signature(**specs)}

    assert compared("signature", side("", 3), side("_1", 3), parts) == ({}, 2)
    changes, _ = compared("signature", side("", 3), side("_1", 4), parts)
    assert changes["input input_layer_1"] == ("changed", "int8 (3) → int8 (4)")


def test_weights_without_an_architecture_are_matched_by_name_and_a_new_shape_is_told():
    old = {"tensors": (tensor("weights/a/vars/0", "1"), tensor("weights/b/vars/0", "2", (3,)))}
    new = {"tensors": (tensor("weights/a/vars/0", "3", (2, 3)), tensor("weights/c/vars/0", "4", ()))}
    assert compared("weights", old, new)[0] == {
        "weights/a/vars/0": ("changed", "float32 (2, 2) → float32 (2, 3)"),
        "weights/c/vars/0": ("added", "float32 ()"),
        "weights/b/vars/0": ("removed", "float32 (3)"),
    }
    renamed = {"tensors": (tensor("weights/a/vars/0", "9", variable="other/kernel"),)}
    assert compared("weights", old, renamed)[0]["other/kernel"] == ("changed", "float32 (2, 2), values")


def test_training_state_is_told_in_numbers():
    old = {"tensors": (tensor("optimizer/vars/0", "1"), tensor("optimizer/vars/1", "2"), tensor("state/seed/0", "s"))}
    new = {"tensors": (tensor("optimizer/vars/1", "3"), tensor("optimizer/vars/2", "4"), tensor("state/seed/0", "s"))}
    expected = {"optimizer": ("changed", "1 added, 1 removed, 1 changed of 3 tensors")}
    assert compared("training state", old, new)[0] == expected


def test_metrics_show_the_step_between_them():
    old, new = (
        {"accuracy": 0.78, "auc": 0.9, "gone": 1, "kind": "x"},
        {"accuracy": 0.82, "auc": 0.9, "top": {"k": 5}, "kind": 3},
    )
    assert compared("metrics", {"metrics": old}, {"metrics": new}) == (
        {
            "accuracy": ("changed", "0.78 → 0.82  +0.04"),
            "gone": ("removed", "1"),
            "kind": ("changed", "x → 3"),
            "top": ("added", "{k: 5}"),
        },
        1,
    )


def test_everything_else_a_version_says_is_compared():
    parts = Parts()
    source = {"kind": "layer", "name": "Mine", "module": "my.layers", "qualname": "Mine"}
    spec = TensorSpec(name="tokens", shape=(None, 100), dtype="int32")

    def side(n):
        vocabulary, tokens = parts.add("assets/vocabulary", f"words {n}"), parts.add("assets/tokenizer", "t")
        return {
            "metadata": {"dataset": f"set {n}", "lr": 1e-3},
            "tags": ("both", f"tag{n}"),
            "environment": Environment(python="3.11.7", platform="l", machine="m", packages={"keras": f"3.{n}"}),
            "lineage": Lineage(git_commit=f"c{n}"),
            "signature": Signature(inputs=(spec,), outputs=(TensorSpec(name="p", shape=(None, n), dtype="float32"),)),
            "assets": (
                Asset(name="vocabulary", kind="list", parts=(vocabulary.name,)),
                Asset(name="tokenizer", kind="keras-tokenizer", parts=(tokens.name,)),
            ),
            "pipeline": "pipeline.json",
            "custom_objects": (CustomObject(**source, source_digest=digest(f"{n}".encode())),),
            "parts": (
                vocabulary,
                tokens,
                parts.add("pipeline.json", {"steps": [{"step": "pad", "length": n}], "outputs": []}),
                parts.add("compile.json", {"optimizer": {"class_name": "Adam", "config": {"learning_rate": n}}}),
                parts.add("layer_assets/lookup/vocabulary.txt", f"{n}"),
            ),
            "parameters": n,
        }

    found = diff(version("1.0.0", **side(1)), version("1.1.0", **side(2)), parts.__getitem__)
    told = {f"{section.name}: {change.subject}": change.kind for section in found for change in section}
    assert told == {
        "compile: optimizer.learning_rate": "changed",
        "metadata: dataset": "changed",
        "tags: tag2": "added",
        "tags: tag1": "removed",
        "signature: output p": "changed",
        "assets: vocabulary": "changed",
        "pipeline: steps[0].length": "changed",
        "custom objects: layer my.layers.Mine": "changed",
        "files: layer_assets/lookup/vocabulary.txt": "changed",
        "environment: packages.keras": "changed",
        "lineage: git_commit": "changed",
        "size: parameters": "changed",
    }
    assert str(found["signature"].changes[0]) == "float32 (any, 1) → float32 (any, 2)"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (("x", "y"), ("x", "y"), {}),
        (("x", "y"), ("x", "z"), {"outputs": "other answers to the same 10 examples"}),
        (("x", "y"), ("w", "z"), {"inputs": "other examples, so their outputs are not compared"}),
        (None, ("x", "y"), {"examples": "10"}),
        (None, None, {}),
    ],
)
def test_golden_outputs_are_compared_where_the_inputs_are_the_same(old, new, told):
    def side(values):
        if values is None:
            return {}
        golden = Golden(count=10, inputs={"a": ["golden/in"]}, outputs="golden/out")
        return {"golden": golden, "tensors": (tensor("golden/in", values[0]), tensor("golden/out", values[1]))}

    changes, _ = compared("golden", side(old), side(new))
    assert {subject: text for subject, (_, text) in changes.items()} == told


def test_raw_golden_inputs_are_compared_by_their_part():
    parts = Parts()
    sides = [
        {"golden": Golden(count=1, raw="golden.json", outputs="o"), "parts": (parts.add("golden.json", [text]),)}
        for text in ("good", "bad")
    ]
    assert "inputs" in compared("golden", *sides, parts)[0]
    assert compared("golden", sides[0], sides[0], parts) == ({}, 1)


def test_sizes_say_how_much_is_shared():
    old, new = ({"tensors": (tensor("weights/a", "1"), *more)} for more in ((), (tensor("weights/b", "2"),)))
    assert compared("size", old, new)[0] == {"size": ("changed", "16 → 32  +16 B, 16 B shared")}


@pytest.mark.parametrize("config", [b"{", b"[" * 5000, b"\xff", b'{"a": NaN}'])
def test_a_config_that_cannot_be_read_is_an_integrity_error(config):
    parts = Parts()
    fields = {"parts": (parts.add("config.json", config),)}
    with pytest.raises(IntegrityError, match=r"config.json of m:1.0.0 cannot be read"):
        compared("architecture", fields, {}, parts)


@pytest.mark.parametrize(
    "config",
    [
        [],
        3,
        {"layers": 3},
        {"class_name": "X", "config": None},
        sequential(3, {"class_name": 4}),
        {"config": {"layers": {}}},
    ],
)
def test_json_that_is_no_config_is_compared_as_values(config):
    assert architectures(config, config)[0] == {}
    assert isinstance(architectures(config, sequential(dense("dense", 1)))[0], dict)


@pytest.mark.keras
def test_it_reads_what_keras_writes():
    keras = pytest.importorskip("keras")

    def build(units):
        left, right = keras.Input((4,), name="left"), keras.Input((4,))
        encoder = keras.Sequential([keras.layers.Dense(units), keras.layers.Dropout(0.1)], name="encoder")
        joined = keras.layers.Concatenate()([encoder(left), encoder(right)]) + 1
        return json.loads(keras.Model([left, right], keras.layers.Dense(1, name="head")(joined)).to_json())

    assert architectures(build(3), build(3)) == ({}, 9)
    [(subject, change)], same = architectures(build(3), build(5))[0].items(), architectures(build(3), build(5))[1]
    assert subject.startswith("encoder/dense")
    assert (change, same) == (("changed", "3 → 5"), 8)
