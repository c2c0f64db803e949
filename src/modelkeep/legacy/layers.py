"""What changed in layers between Keras 2 and 3."""

from __future__ import annotations

from modelkeep.legacy.rules import Node, Rules

RULES = rule = Rules()


# --- names of classes


@rule("model-is-functional", "Model", versions="1.0 to 2.3")
def model_is_functional(node: Node) -> str | None:
    """Functional models were written as plain models; only their graph tells."""
    if "input_layers" not in node.config:
        return None
    node.class_name = "Functional"
    return None


RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}


@rule("renamed-class", *RENAMED)
def renamed_class(node: Node) -> str:
    """Versions of one layer under two names became one."""
    old, node.class_name = node.class_name, RENAMED[node.class_name]
    return f"{old} is {node.class_name}"


# --- every layer


@rule("dtype-policy")
def dtype_policy(node: Node) -> str | None:
    """Policies have plain names in configs now."""
    policy = node.config.get("dtype")
    if not isinstance(policy, dict):
        return None
    node.config["dtype"] = name = policy["config"]["name"]
    return f"dtype is {name}" if name != "float32" else None


@rule("input-layer", "InputLayer")
def input_layer(node: Node) -> str | None:
    """The shape of an input has another name."""
    if "batch_input_shape" not in node.config:
        return None
    node.config["batch_shape"] = node.config.pop("batch_input_shape")
    return None


@rule("first-layer-shape", "Sequential")
def first_layer_shape(node: Node) -> str | None:
    """The first layer of a Sequential told the shape of its input; now an input does."""
    layers = node.config["layers"]
    if not layers or layers[0]["class_name"] == "InputLayer":
        return None
    first = layers[0]["config"]
    shape = first.get("batch_input_shape") if isinstance(first, dict) else None
    if shape is None:
        return None
    name = f"{first['name']}_input"
    given = {"batch_input_shape": shape, "dtype": first.get("dtype", "float32"), "name": name}
    layers.insert(0, {"class_name": "InputLayer", "config": given})
    return f"the input {name} of shape {shape} is a layer of its own"


@rule("no-input-shape")
def no_input_shape(node: Node) -> str | None:
    """Only inputs have a shape of their own."""
    if node.class_name != "InputLayer":
        node.config.pop("batch_input_shape", None)
    return None


# --- arguments that are gone

_RECURRENT = ("RNN", "LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")


@rule("time-major", *_RECURRENT, versions="2.0 on")
def time_major(node: Node) -> str | None:
    """Sequences are batch-major only."""
    if node.config.pop("time_major", False):
        node.refuse("it takes sequences time-major, which Keras 3 does not")
    return None
