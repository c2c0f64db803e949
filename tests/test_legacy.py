"""Rules that make configs of Keras 1 and 2 new, one by one. Nothing here imports Keras."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from modelkeep.legacy.rules import Version
from modelkeep.legacy.upgrading import RULES, Upgraded, upgrade, upgrade_compile

FLOAT = {"class_name": "Policy", "config": {"name": "mixed_float16"}}


def sequential(*layers: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    named = [
        {"class_name": name, "config": {"name": f"layer_{index}", **config}}
        for index, (name, config) in enumerate(layers)
    ]
    return {"class_name": "Sequential", "config": {"name": "model", "layers": named}}


def upgraded(name: str, config: dict[str, Any], version: str = "2.12.0") -> tuple[str, dict[str, Any], Upgraded]:
    """The class and config that become of one layer's, and all that was said."""
    found = upgrade(sequential((name, config)), version)
    layer = found.config["config"]["layers"][-1]
    return layer["class_name"], {k: v for k, v in layer["config"].items() if k != "name"}, found


def rules_of(found: Upgraded) -> list[str]:
    return [note.rule for note in found.notes]


LAYERS = [
    ("LSTM", {"units": 2, "time_major": False, "implementation": 2}, "LSTM", {"units": 2}),
    ("CuDNNLSTM", {"units": 2}, "LSTM", {"units": 2, "activation": "tanh", "recurrent_activation": "sigmoid"}),
    ("BatchNormalizationV1", {"axis": [3], "fused": True}, "BatchNormalization", {"axis": 3}),
    ("BatchNormalizationV2", {"axis": 1}, "BatchNormalization", {"axis": 1}),
    ("LayerNormalization", {"axis": [2]}, "LayerNormalization", {"axis": 2}),
    ("SyncBatchNormalization", {}, "BatchNormalization", {"synchronized": True}),
    ("Conv2DTranspose", {"groups": 1}, "Conv2DTranspose", {}),
    ("DepthwiseConv2D", {"groups": 1, "filters": None}, "DepthwiseConv2D", {}),
    ("SeparableConv2D", {"groups": 1, "kernel_initializer": None, "kernel_constraint": None}, "SeparableConv2D", {}),
    ("MultiHeadAttention", {"query_shape": [2], "key_shape": [2], "value_shape": [2]}, "MultiHeadAttention", {}),
    ("LeakyReLU", {"alpha": 0.25}, "LeakyReLU", {"negative_slope": 0.25}),
    ("LeakyReLU", {"alpha": {"type": "ndarray", "value": 0.25}}, "LeakyReLU", {"negative_slope": 0.25}),
    ("ThresholdedReLU", {"theta": 0.5}, "ReLU", {"threshold": 0.5}),
    ("Dropout", {"rate": 0.5, "rng_type": "stateful"}, "Dropout", {"rate": 0.5}),
    ("SpatialDropout2D", {"noise_shape": None, "trainable": True}, "SpatialDropout2D", {}),
    ("Embedding", {"input_dim": 3, "input_length": 9}, "Embedding", {"input_dim": 3}),
    ("StringLookup", {"max_values": 4}, "StringLookup", {"max_tokens": 4}),
    ("StringLookup", {"output_mode": "binary"}, "StringLookup", {"output_mode": "multi_hot"}),
    ("Discretization", {"bins": [1.0], "trainable": True}, "Discretization", {"bin_boundaries": [1.0]}),
    ("Dense", {"dtype": FLOAT}, "Dense", {"dtype": "mixed_float16"}),
    ("Dense", {"dtype": {"class_name": "PolicyV1", "config": {"name": "_infer"}}}, "Dense", {"dtype": "float32"}),
    ("Dense", {"activation": "relu"}, "Dense", {"activation": "relu"}),
    ("Dense", {"activation": "log_softmax_v2"}, "Dense", {"activation": "log_softmax"}),
    ("Dense", {"kernel_initializer": "zero"}, "Dense", {"kernel_initializer": "zeros"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "config", "new_name", "new_config"), LAYERS)
def test_a_layer_of_keras_2_is_written_as_keras_3_reads_it(name, config, new_name, new_config):
    found_name, found, whole = upgraded(name, config)
    assert (found_name, found) == (new_name, new_config)
    assert whole.refusals == ()


def test_a_gru_from_before_the_choice_resets_before_the_product():
    _, config, found = upgraded("GRU", {"units": 2}, "2.1.2")
    assert config["reset_after"] is False
    assert rules_of(found) == ["gru-reset-after"]
    assert upgraded("CuDNNGRU", {"units": 2}, "2.1.2")[1]["reset_after"] is True


def test_hard_sigmoid_stays_what_it_was():
    config = {"units": 2, "recurrent_activation": "hard_sigmoid", "activation": "tanh"}
    _, new, found = upgraded("LSTM", config, "2.2.4")
    assert new["recurrent_activation"]["config"] == "modelkeep>old_hard_sigmoid"
    assert rules_of(found) == ["hard-sigmoid"]
    assert upgraded("LSTM", config, "3.0.0")[1]["recurrent_activation"] == "hard_sigmoid"


@pytest.mark.parametrize("name", ["LocallyConnected2D", "RandomHeight", "RandomWidth", "RandomCrop"])
def test_layers_that_keras_3_dropped_or_changed_are_modelkeeps(name):
    found = upgrade(sequential((name, {})), "2.12.0").config["config"]["layers"][0]
    assert found["registered_name"] == f"modelkeep>{name}"
    assert found["module"] == "modelkeep.live.legacy_objects"


REFUSED = [
    ("LSTM", {"time_major": True}, "batch-major"),
    ("BatchNormalization", {"axis": [1, 2]}, r"axes \[1, 2\]"),
    ("BatchNormalization", {"virtual_batch_size": 4}, "virtual_batch_size=4"),
    ("DepthwiseConv2D", {"groups": 2}, "groups=2"),
    ("RNN", {"num_constants": 1}, "num_constants=1"),
    ("LocallyConnected1D", {"implementation": 3}, "implementation 2 or 3"),
    ("InstanceMethod", {}, "a method of TensorFlow's tensors"),
    ("Merge", {"mode": "<lambda>"}, "a function of its own"),
]


@pytest.mark.parametrize(("name", "config", "reason"), REFUSED)
def test_what_no_rule_can_carry_over_is_refused_with_the_layer_and_the_reason(name, config, reason):
    (refusal,) = upgraded(name, config, "1.2.2" if name == "Merge" else "2.12.0")[2].refusals
    assert refusal.place == "layer_0"
    assert re.search(reason, refusal.message)


def test_an_upgrade_leaves_the_config_given_as_it_was():
    config = sequential(("LSTM", {"time_major": False, "batch_input_shape": [None, 3, 2]}))
    before = copy.deepcopy(config)
    upgrade(config, "2.12.0")
    assert config == before


def test_what_the_caller_gives_is_left_alone():
    config = sequential(("Attention", {"time_major": True, "groups": 1}), ("GRU", {"alpha": 1}))
    attention, gru = upgrade(config, "2.2.4", custom=("Attention", "GRU")).config["config"]["layers"]
    assert (attention["registered_name"], attention["config"]) == ("Attention", config["config"]["layers"][0]["config"])
    assert gru["config"] == config["config"]["layers"][1]["config"]


def test_a_sequential_gets_the_input_that_its_first_layer_told():
    config = sequential(("Dense", {"batch_input_shape": [None, 4], "dtype": "float32"}), ("Dense", {}))
    first, second, _ = upgrade(config, "2.3.1").config["config"]["layers"]
    assert first["class_name"] == "InputLayer"
    assert first["config"] == {"batch_shape": [None, 4], "dtype": "float32", "name": "layer_0_input"}
    assert "batch_input_shape" not in second["config"]


def test_a_sequential_that_is_a_bare_list_gets_a_name():
    config = {"class_name": "Sequential", "config": [{"class_name": "Flatten", "config": {"name": "flatten_1"}}]}
    found = upgrade(config, "2.0.5").config["config"]
    assert found["name"] == "sequential"
    assert [layer["config"]["name"] for layer in found["layers"]] == ["flatten_1"]


def test_wrapped_layers_and_cells_name_their_module():
    cell = {"class_name": "LSTMCell", "config": {"units": 2, "implementation": 1}}
    _, config, _ = upgraded("Bidirectional", {"layer": {"class_name": "RNN", "config": {"cell": cell}}})
    assert config["layer"]["module"] == config["layer"]["config"]["cell"]["module"] == "keras.layers"
    assert config["layer"]["config"]["cell"]["config"] == {"units": 2}


OBJECTS = [
    ("kernel_initializer", "GlorotUniformV2", {"seed": 1, "dtype": "float32"}, "GlorotUniform", {"seed": 1}),
    ("kernel_initializer", "VarianceScaling", {"distribution": "normal"},
     "VarianceScaling", {"distribution": "truncated_normal"}),
    ("kernel_regularizer", "L1L2", {"l1": {"type": "ndarray", "value": 0.5}}, "L1L2", {"l1": 0.5}),
    ("bias_constraint", "MaxNorm", {"m": 2, "axis": 0}, "MaxNorm", {"max_value": 2, "axis": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("argument", "name", "config", "new_name", "new_config"), OBJECTS)
def test_initializers_regularizers_and_constraints(argument, name, config, new_name, new_config):
    found = upgraded("Dense", {argument: {"class_name": name, "config": config}}, "2.1.0")[1][argument]
    assert (found["class_name"], found["config"]) == (new_name, new_config)


# --- functional models


def functional(*layers: dict[str, Any], inputs: Any, outputs: Any) -> dict[str, Any]:
    config = {"name": "model", "layers": list(layers), "input_layers": inputs, "output_layers": outputs}
    return {"class_name": "Model", "config": config}


def layer(name: str, *calls: Any, kind: str = "Dense", **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}, "name": name, "inbound_nodes": list(calls)}


def history(tensor: dict[str, Any]) -> list[Any]:
    return tensor["config"]["keras_history"]


def test_calls_are_by_position_and_by_name():
    config = functional(
        layer("a", kind="InputLayer"),
        layer("b", [["a", 0, 0, {"training": True, "mask": None}]], kind="Dropout"),
        layer("c", [["a", 0, 0, {}], ["b", 0, 0, {}]], kind="Add"),
        inputs=[["a", 0, 0]],
        outputs=[["c", 0, 0]],
    )
    found = upgrade(config, "2.12.0").config
    b, c = found["config"]["layers"][1:]
    assert found["class_name"] == "Functional"
    assert b["inbound_nodes"][0]["kwargs"] == {"training": True}
    assert history(b["inbound_nodes"][0]["args"][0]) == ["a", 0, 0]
    assert [history(tensor) for tensor in c["inbound_nodes"][0]["args"][0]] == [["a", 0, 0], ["b", 0, 0]]
    assert found["config"]["output_layers"] == ["c", 0, 0]


def test_the_calls_of_a_nested_model_are_counted_from_zero():
    inner = functional(layer("x", kind="InputLayer"), inputs=[["x", 0, 0]], outputs=[["x", 0, 0]])["config"]
    del inner["name"]
    config = functional(
        layer("a", kind="InputLayer"),
        layer("inner", [["a", 0, 0, {}]], [["a", 0, 0, {}]], kind="Model", **inner),
        layer("c", [["inner", 1, 0, {}], ["inner", 2, 0, {}]], kind="Add"),
        inputs=[["a", 0, 0]],
        outputs=[["c", 0, 0], ["inner", 1, 0]],
    )  # fmt: skip
    found = upgrade(config, "2.2.4").config["config"]
    added = found["layers"][2]["inbound_nodes"][0]["args"][0]
    assert [history(tensor)[1] for tensor in added] == [0, 1]
    # Of an output that a nested model gives, Keras 3 counts from one.
    assert found["output_layers"] == [["c", 0, 0], ["inner", 1, 0]]


def test_slashes_leave_names_and_what_refers_to_them():
    config = functional(
        layer("in/put", kind="InputLayer"),
        layer("b/c", [["in/put", 0, 0, {}]]),
        layer("b_c", [["b/c", 0, 0, {}]]),
        inputs=[["in/put", 0, 0]],
        outputs=[["b_c", 0, 0]],
    )
    found = upgrade(config, "2.12.0")
    assert [each["name"] for each in found.config["config"]["layers"]] == ["in_put", "b_c_1", "b_c"]
    assert found.renamed == {"in_put": "in/put", "b_c_1": "b/c"}
    assert history(found.config["config"]["layers"][2]["inbound_nodes"][0]["args"][0]) == ["b_c_1", 0, 0]


def test_what_a_state_began_with_is_an_argument_of_its_own():
    config = functional(
        layer("a", kind="InputLayer"),
        layer("h", kind="InputLayer"),
        layer("gru", [["a", 0, 0, {}], ["h", 0, 0, {}]], kind="GRU", reset_after=True),
        inputs=[["a", 0, 0], ["h", 0, 0]],
        outputs=[["gru", 0, 0]],
    )
    (call,) = upgrade(config, "2.4.0").config["config"]["layers"][2]["inbound_nodes"]
    assert history(call["args"][0]) == ["a", 0, 0]
    assert [history(state) for state in call["kwargs"]["initial_state"]] == [["h", 0, 0]]


def operation(name: str, node: Any, kind: str = "TFOpLambda", **config: Any) -> Upgraded:
    whole = functional(
        layer("a", kind="InputLayer"),
        layer("op", node, kind=kind, function=name, **config),
        inputs=[["a", 0, 0]],
        outputs=[["op", 0, 0]],
    )
    return upgrade(whole, "2.12.0")


def test_an_operation_of_tensorflow_is_one_of_keras():
    found = operation("math.reduce_mean", ["a", 0, 0, {"axis": [1], "keepdims": True, "name": None}])
    made = found.config["config"]["layers"][1]
    assert (made["module"], made["class_name"]) == ("keras.src.ops.numpy", "Mean")
    assert made["config"] == {"name": "op", "axis": [1], "keepdims": True}
    assert rules_of(found) == ["tensorflow-operation"]


def test_a_slice_is_written_as_keras_writes_it():
    spec = [{"start": None, "stop": None, "step": None}, 1, {"class_name": "__ellipsis__"}, None]
    found = operation("__operators__.getitem", ["a", 0, 0, {"slice_spec": spec}], "SlicingOpLambda")
    _, key = found.config["config"]["layers"][1]["inbound_nodes"][0]["args"]
    assert [part["class_name"] if isinstance(part, dict) else part for part in key] == [
        "__slice__",
        1,
        "__ellipsis__",
        None,
    ]


def test_a_constant_may_come_first():
    found = operation("math.subtract", ["_CONSTANT_VALUE", -1, 2.0, {"y": ["a", 0, 0]}])
    first, second = found.config["config"]["layers"][1]["inbound_nodes"][0]["args"]
    assert (first, history(second)) == (2.0, ["a", 0, 0])


def test_an_operation_in_two_steps_becomes_two():
    found = operation("math.squared_difference", ["a", 0, 0, {"y": 1.0}]).config["config"]["layers"]
    assert [(each["name"], each["class_name"]) for each in found[1:]] == [("op_inner", "Subtract"), ("op", "Square")]


def test_a_node_of_tensorflows_graph_is_an_operation_of_keras():
    node = {"name": "add", "op": "AddV2", "input": ["x", "y"], "attr": {"T": {"type": "DT_FLOAT"}}}
    found = operation("", [["a", 0, 0, {}]], "TensorFlowOpLayer", node_def=node, constants={"1": 3.0})
    made = found.config["config"]["layers"][1]
    assert made["class_name"] == "Add"
    assert made["inbound_nodes"][0]["args"][1] == 3.0


def test_an_operation_without_its_like_is_refused_by_name():
    (refusal,) = operation("signal.stft", ["a", 0, 0, {}]).refusals
    assert "tf.signal.stft" in refusal.message
    (refusal,) = operation("cumsum", ["a", 0, 0, {"exclusive": True}]).refusals
    assert "exclusive" in refusal.message


# --- Keras 1


KERAS1 = [
    ("Convolution2D", {"nb_filter": 4, "nb_row": 3, "nb_col": 2, "border_mode": "same", "dim_ordering": "tf"},
     "Conv2D", {"filters": 4, "padding": "same", "kernel_size": [3, 2], "data_format": "channels_last"}),
    ("Dense", {"output_dim": 3, "init": "uniform", "bias": True, "input_dim": 4},
     "Dense", {"units": 3, "kernel_initializer": "uniform", "use_bias": True}),
    ("LSTM", {"output_dim": 3, "inner_init": "orthogonal", "consume_less": "cpu", "forget_bias_init": "one"},
     "LSTM", {"units": 3, "recurrent_initializer": "orthogonal", "unit_forget_bias": True}),
    ("GRU", {"output_dim": 3, "dropout_W": 0.1, "dropout_U": 0.2},
     "GRU", {"units": 3, "dropout": 0.1, "recurrent_dropout": 0.2, "reset_after": False}),
    ("Dropout", {"p": 0.5}, "Dropout", {"rate": 0.5}),
    ("BatchNormalization", {"mode": 0, "beta_init": "zero"}, "BatchNormalization", {"beta_initializer": "zeros"}),
    ("Merge", {"mode": "concat", "concat_axis": 2, "layers": None}, "Concatenate", {"axis": 2}),
    ("MaxPooling1D", {"pool_length": 2, "stride": 2, "border_mode": "valid"},
     "MaxPooling1D", {"pool_size": 2, "strides": 2, "padding": "valid"}),
    ("ZeroPadding2D", {"padding": {"top_pad": 1, "left_pad": 2}}, "ZeroPadding2D", {"padding": [[1, 0], [2, 0]]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "config", "new_name", "new_config"), KERAS1)
def test_a_layer_of_keras_1_is_written_as_keras_3_reads_it(name, config, new_name, new_config):
    found_name, found, _ = upgraded(name, config, "1.2.2")
    assert (found_name, found) == (new_name, new_config)


def test_regularizers_of_keras_1_are_objects():
    _, config, _ = upgraded("Dense", {"W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.1}}, "1.0.8")
    assert config["kernel_regularizer"]["class_name"] == "L1L2"
    assert config["kernel_regularizer"]["config"] == {"l1": 0.0, "l2": 0.1}


# --- compile


def optimizer(name: str, **config: Any) -> Any:
    return upgrade_compile({"optimizer_config": {"class_name": name, "config": config}}, "2.12.0")


def test_an_optimizer_has_its_own_name_and_one_learning_rate():
    found = optimizer("Custom>Adam", lr=0.1, is_legacy_optimizer=False, jit_compile=True).config["optimizer"]
    assert (found["module"], found["class_name"]) == ("keras.optimizers", "Adam")
    assert found["config"] == {"learning_rate": 0.1}


def test_a_decay_is_the_schedule_that_computes_the_same():
    found = optimizer("SGD", learning_rate=0.1, decay=0.01)
    schedule = found.config["optimizer"]["config"]["learning_rate"]
    assert schedule["class_name"] == "InverseTimeDecay"
    assert schedule["config"] == {"initial_learning_rate": 0.1, "decay_steps": 1, "decay_rate": 0.01}
    assert rules_of(found) == ["optimizer-learning-rate"]


def test_losses_and_metrics_are_known_by_their_names_now():
    given = {
        "loss": {"a": "mse", "b": "kullback_leibler_divergence", "c": "mine"},
        "metrics": [["mae", {"class_name": "MeanMetricWrapper", "config": {"name": "m", "fn": "mean_absolute_error"}}]],
    }
    found = upgrade_compile(given, "2.12.0").config
    assert (found["loss"]["a"], found["loss"]["b"]) == ("mse", "kl_divergence")
    assert found["loss"]["c"]["config"] == "mine"
    assert found["metrics"][0] == "mae"
    assert found["metrics"][1]["config"]["fn"]["config"] == "mean_absolute_error"


def test_automatic_reduction_is_the_mean_over_the_batch():
    given = {"loss": {"class_name": "MeanSquaredError", "config": {"reduction": "auto", "name": "mse"}}}
    assert upgrade_compile(given, "2.12.0").config["loss"]["config"]["reduction"] == "sum_over_batch_size"


# --- all


def test_a_version_is_read_from_what_files_say():
    assert Version.of("2.2.4-tf") == Version(2, 2)
    assert Version.of(None) == Version(1, 0)
    assert not Version.of("3.15.1").is_legacy


def test_a_config_that_nobody_dates_tells_its_age():
    assert Version.told_by(sequential(("Dense", {"border_mode": "same"}))).major == 1
    assert Version.told_by(sequential(("Dense", {"kernel_initializer": "ones"}))).major == 2
    assert Version.told_by({"module": "keras", "class_name": "Sequential", "config": {}}).major == 3


def test_each_rule_has_an_id_of_its_own_and_says_why():
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert all(rule.why.endswith((".", ":")) for rule in RULES)
