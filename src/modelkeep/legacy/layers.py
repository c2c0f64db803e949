"""What changed in layers between Keras 2 and 3."""

from __future__ import annotations

from typing import Any

from modelkeep.legacy import functions
from modelkeep.legacy.rules import Node, Rules

RULES = rule = Rules()

_RECURRENT = ("RNN", "LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
_RANDOM = (
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomFlip",
    "RandomHeight",
    "RandomRotation",
    "RandomTranslation",
    "RandomWidth",
    "RandomZoom",
)
_SPATIAL = ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
_LOOKUPS = ("IntegerLookup", "StringLookup", "TextVectorization")

WITHOUT_EQUIVALENT = {
    "InstanceMethod": "a method of TensorFlow's tensors, used between layers",
    "InstanceProperty": "a property of TensorFlow's tensors, used between layers",
    "ClassMethod": "a method of one of TensorFlow's classes, used between layers",
    "DenseFeatures": "feature columns of TensorFlow's",
    "SequenceFeatures": "feature columns of TensorFlow's",
    "MaxoutDense": "Keras 2 dropped it",
    "Highway": "Keras 2 dropped it",
    "SReLU": "Keras 2 dropped it",
    "ParametricSoftplus": "Keras 2 dropped it",
}


# --- names of classes


@rule("functional", "Model", versions="1.0 to 2.2")
def functional(node: Node) -> str | None:
    """A functional model was written as a plain one; its graph tells."""
    if "input_layers" in node.config:
        node.class_name = "Functional"
    return None


RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "LayerNormalizationV1": "LayerNormalization",
    "LSTMV1": "LSTM",
    "LSTMV2": "LSTM",
    "GRUV1": "GRU",
    "GRUV2": "GRU",
    "LSTMCellV2": "LSTMCell",
    "GRUCellV2": "GRUCell",
    "DenseV1": "Dense",
    "MultiHeadAttentionV1": "MultiHeadAttention",
    "AveragePooling1DV1": "AveragePooling1D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Convolution1DTranspose": "Conv1DTranspose",
    "Convolution2DTranspose": "Conv2DTranspose",
    "Convolution3DTranspose": "Conv3DTranspose",
    "SeparableConvolution1D": "SeparableConv1D",
    "SeparableConvolution2D": "SeparableConv2D",
}


@rule("renamed-class", *RENAMED)
def renamed_class(node: Node) -> str:
    """What had two names, or two versions side by side, has one."""
    old, node.class_name = node.class_name, RENAMED[node.class_name]
    return f"{old} is {node.class_name}"


@rule("synchronized-normalization", "SyncBatchNormalization", versions="2.2 on")
def synchronized_normalization(node: Node) -> str:
    """Batch normalization across replicas is an argument of the usual one."""
    node.class_name = "BatchNormalization"
    node.config["synchronized"] = True
    return "SyncBatchNormalization is BatchNormalization(synchronized=True)"


@rule("cudnn-layer", "CuDNNLSTM", "CuDNNGRU", versions="2.0 on")
def cudnn_layer(node: Node) -> str:
    """Layers for cuDNN alone became the usual ones, which use it where they can."""
    old, node.class_name = node.class_name, node.class_name.removeprefix("CuDNN")
    node.config |= {"activation": "tanh", "recurrent_activation": "sigmoid"}
    if node.class_name == "GRU":
        node.config["reset_after"] = True
    return f"{old} is {node.class_name} with the activations that cuDNN has"


@rule("thresholded-relu", "ThresholdedReLU")
def thresholded_relu(node: Node) -> str:
    """A threshold is an argument of the usual one."""
    node.class_name = "ReLU"
    node.config["threshold"] = node.config.pop("theta", 1.0)
    return f"ThresholdedReLU is ReLU(threshold={_number(node.config['threshold']):.6g})"


def _number(value: Any) -> float:
    """A single number, which Keras 2.0 to 2.2 wrote as an array."""
    return float(value["value"] if isinstance(value, dict) else value)


@rule("locally-connected", "LocallyConnected1D", "LocallyConnected2D")
def locally_connected(node: Node) -> str | None:
    """Keras 3 has no such layers; modelkeep keeps them."""
    if node.config.pop("implementation", 1) != 1:
        node.refuse("its kernel is laid out in a way that modelkeep does not keep (implementation 2 or 3)")
    if node.config.pop("padding", "valid") != "valid":
        node.refuse("it pads, which modelkeep's does not")
    return _kept(node)


@rule("random-length", "RandomHeight", "RandomWidth", versions="2.4 on")
def random_length(node: Node) -> str:
    """Keras 3 has no such layers; modelkeep keeps them."""
    return _kept(node)


@rule("random-crop", "RandomCrop", versions="2.4 on")
def random_crop(node: Node) -> str:
    """Outside training it scaled and cut images; Keras 3's leaves them as they are."""
    return _kept(node)


@rule("causal-separable", "SeparableConv1D")
def causal_separable(node: Node) -> str | None:
    """Keras 3 has no separable convolution that looks back only; modelkeep keeps it."""
    return _kept(node) if node.config.get("padding") == "causal" else None


def _kept(node: Node) -> str:
    node.kept = True
    return f"{node.class_name} is modelkeep's, which does what it did"


@rule("lookup-argument-names", "StringLookup", "IntegerLookup", versions="2.4 to 2.5")
def lookup_argument_names(node: Node) -> str | None:
    """Early lookup layers called their arguments otherwise."""
    renamed = {"max_values": "max_tokens", "mask_value": "mask_token", "oov_value": "oov_token"}
    found = {old: new for old, new in renamed.items() if old in node.config}
    for old, new in found.items():
        node.config[new] = node.config.pop(old)
    return f"{', '.join(found)} are {', '.join(found.values())}" if found else None


# --- every layer


@rule("dtype-policy")
def dtype_policy(node: Node) -> str | None:
    """A dtype policy is written by its name."""
    policy = node.config.get("dtype")
    if not isinstance(policy, dict):
        return None
    name = _policy_name(policy)
    if name is None:
        node.refuse(f"its dtype policy {policy.get('class_name')} has no name")
        return None
    node.config["dtype"] = name
    return f"its dtype policy is {name}" if name != "float32" else None


def _policy_name(policy: Any) -> str | None:
    inner = policy.get("config")
    name = inner.get("name") if isinstance(inner, dict) else inner
    # The policy that followed the variables was what Keras 2.0 to 2.3 had by default.
    return {"_infer": "float32", "infer": "float32"}.get(name, name) if isinstance(name, str) else None


@rule("slash-in-name")
def slash_in_name(node: Node) -> str | None:
    """Slashes are kept for paths. Those of a model's own layers are renamed where their calls are known, too."""
    name = node.config.get("name")
    if not isinstance(name, str) or "/" not in name:
        return None
    node.config["name"] = name.replace("/", "_")
    return f"was called {name}"


@rule("input-layer", "InputLayer")
def input_layer(node: Node) -> str | None:
    """The shape of an input has another name; Keras 2 wrote inputs that sequences of any length share, too."""
    if "batch_input_shape" in node.config:
        node.config["batch_shape"] = node.config.pop("batch_input_shape")
    if "input_dtype" in node.config:
        node.config.setdefault("dtype", node.config.pop("input_dtype"))
    if node.config.pop("type_spec", None) is not None:
        node.refuse("its input is described by a type of TensorFlow's")
    return None


@rule("first-layer-shape", "Sequential")
def first_layer_shape(node: Node) -> str | None:
    """The first layer of a Sequential told the shape of its input; now an input does."""
    layers = node.config["layers"]
    first = layers[0] if layers else None
    if first is None or first["class_name"] == "InputLayer" or not isinstance(first["config"], dict):
        return None
    shape = first["config"].get("batch_input_shape")
    if shape is None:
        return None
    name = f"{first['config'].get('name', 'sequential')}_input"
    dtype = first["config"].get("input_dtype") or first["config"].get("dtype", "float32")
    layers.insert(
        0, {"class_name": "InputLayer", "config": {"batch_input_shape": shape, "dtype": _plain(dtype), "name": name}}
    )
    return f"its input of shape {shape} is a layer of its own"


def _plain(dtype: Any) -> Any:
    """What an input is under a policy: the numbers that the variables have."""
    name = _policy_name(dtype) if isinstance(dtype, dict) else dtype
    return "float32" if str(name).startswith("mixed_") else name


@rule("no-input-shape")
def no_input_shape(node: Node) -> str | None:
    """Only inputs have a shape of their own."""
    for name in ("batch_input_shape", "input_dtype"):
        node.config.pop(name, None)
    return None


# --- arguments that are gone, where they said what Keras 3 does anyway


def _drop(node: Node, name: str, *meaning_nothing: Any, why: str) -> None:
    """Drop an argument that says nothing, or refuse what it says."""
    if name in node.config:
        value = node.config.pop(name)
        if value not in meaning_nothing:
            node.refuse(f"{name}={value!r}: {why}")


@rule("time-major", *_RECURRENT, versions="2.0 on")
def time_major(node: Node) -> str | None:
    """Sequences are batch-major only."""
    _drop(node, "time_major", False, None, why="Keras 3 takes batch-major sequences only")
    return None


@rule("implementation", *_RECURRENT, "LSTMCell", "GRUCell", "SimpleRNNCell")
def implementation(node: Node) -> str | None:
    """How the gates are computed is no longer chosen by hand; the numbers are the same."""
    for name in ("implementation", "input_dim", "input_length"):
        node.config.pop(name, None)
    return None


@rule("groups-of-one", *_TRANSPOSED, *_DEPTHWISE, *_SEPARABLE, versions="2.3 on")
def groups_of_one(node: Node) -> str | None:
    """Groups were written for convolutions that have none."""
    _drop(node, "groups", 1, None, why="Keras 3 has no groups there")
    return None


@rule("separable-kernels", *_SEPARABLE)
def separable_kernels(node: Node) -> str | None:
    """A separable convolution has two kernels; arguments for a third were written and never used."""
    for name in ("kernel_initializer", "kernel_regularizer", "kernel_constraint"):
        node.config.pop(name, None)
    return None


@rule("depthwise-kernels", *_DEPTHWISE)
def depthwise_kernels(node: Node) -> str | None:
    """A depthwise convolution has a depthwise kernel only; arguments for another were written and never used."""
    for name in ("kernel_initializer", "kernel_regularizer", "kernel_constraint", "filters"):
        node.config.pop(name, None)
    return None


@rule("attention-shapes", "MultiHeadAttention", versions="2.4 on")
def attention_shapes(node: Node) -> str | None:
    """Shapes that the layer was built for are not arguments."""
    for name in ("query_shape", "key_shape", "value_shape"):
        node.config.pop(name, None)
    _drop(node, "softmax_robust_masking", False, why="Keras 3 masks in one way only")
    return None


@rule("random-generator", *_RANDOM, "Dropout", "GaussianNoise", "GaussianDropout", "AlphaDropout", *_SPATIAL)
def random_generator(node: Node) -> str | None:
    """Which generator a layer draws from is no longer chosen by layer."""
    for name in ("rng_type", "force_generator"):
        node.config.pop(name, None)
    return None


@rule("spatial-dropout", *_SPATIAL)
def spatial_dropout(node: Node) -> str | None:
    """Arguments that its base class wrote for it; it has no weights to train."""
    for name in ("noise_shape", "trainable"):
        node.config.pop(name, None)
    return None


@rule("discretization", "Discretization", versions="2.4 on")
def discretization(node: Node) -> str | None:
    """It has no weights to train; early ones called their boundaries bins."""
    node.config.pop("trainable", None)
    if "bins" in node.config:
        bins = node.config.pop("bins")
        node.config["num_bins" if isinstance(bins, int) else "bin_boundaries"] = bins
    return None


@rule("vocabulary-size", *_LOOKUPS, versions="2.4 on")
def vocabulary_size(node: Node) -> str | None:
    """How large a vocabulary is follows from the vocabulary."""
    for name in ("vocabulary_size", "has_input_vocabulary", "pad_to_max"):
        if name != "pad_to_max" or node.config.get(name) is None:
            node.config.pop(name, None)
    return None


@rule("embedding-length", "Embedding")
def embedding_length(node: Node) -> str | None:
    """How long sequences are is no longer told to an embedding."""
    for name in ("input_length", "dropout"):
        node.config.pop(name, None)
    return None


@rule("lookup-of-experimental", "CategoryEncoding", versions="2.4 to 2.5")
def lookup_of_experimental(node: Node) -> str | None:
    """Early ones called the number of tokens max_tokens."""
    if "max_tokens" in node.config and "num_tokens" not in node.config:
        node.config["num_tokens"] = node.config.pop("max_tokens")
    if node.config.get("output_mode") == "binary":
        node.config["output_mode"] = "multi_hot"
    for name in ("sparse",):
        _drop(node, name, False, None, why="give a sparse layer by hand")
    return None


@rule("multi-hot", *_LOOKUPS, versions="2.4 to 2.5")
def multi_hot(node: Node) -> str | None:
    """One of the output modes has another name."""
    modes = {"binary": "multi_hot", "tf-idf": "tf_idf"}
    mode = node.config.get("output_mode")
    if mode not in modes:
        return None
    node.config["output_mode"] = modes[mode]
    return f"output_mode {mode} is {modes[mode]}"


# --- arguments that are written otherwise


@rule("normalization-axis", "BatchNormalization", versions="2.0 on")
def normalization_axis(node: Node) -> str | None:
    """An axis was written as a list of one; and what was there for one way to compute only is gone."""
    axis = node.config.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        node.config["axis"] = axis[0]
    elif isinstance(axis, list):
        node.refuse(f"it normalizes the axes {axis} together, Keras 3's one axis only")
    for name in ("virtual_batch_size", "adjustment"):
        _drop(node, name, None, why="Keras 3 has no such batch normalization")
    node.config.pop("fused", None)
    return None


@rule("layer-normalization-axis", "LayerNormalization", versions="2.2 on")
def layer_normalization_axis(node: Node) -> str | None:
    """An axis was written as a list of one."""
    axis = node.config.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        node.config["axis"] = axis[0]
    return None


@rule("leaky-relu-slope", "LeakyReLU")
def leaky_relu_slope(node: Node) -> str | None:
    """The slope has another name."""
    if "alpha" not in node.config:
        return None
    slope = node.config.pop("alpha")
    # Keras 2.0 to 2.2 wrote it as an array.
    node.config["negative_slope"] = slope["value"] if isinstance(slope, dict) else slope
    return f"alpha is negative_slope={node.config['negative_slope']:.6g}"


@rule("elu-array", "ELU", "ThresholdedReLU", "ReLU", versions="2.0 to 2.2")
def elu_array(node: Node) -> str | None:
    """Single numbers were written as arrays."""
    for name, value in node.config.items():
        if isinstance(value, dict) and value.get("type") == "ndarray":
            node.config[name] = value["value"]
    return None


@rule("gru-reset-after", "GRU", "GRUCell", versions="2.0 to 2.1")
def gru_reset_after(node: Node) -> str | None:
    """Before it was an argument, the reset gate came before the product; Keras 3 has it after, if not told."""
    if "reset_after" in node.config:
        return None
    node.config["reset_after"] = False
    return "reset_after=False, as it was before it could be chosen"


@rule("interpolation", "UpSampling2D", "Resizing")
def interpolation(node: Node) -> str | None:
    """Keras 3 lacks two ways to interpolate; modelkeep keeps them."""
    return _kept(node) if node.config.get("interpolation") in ("gaussian", "mitchellcubic") else None


@rule("time-distributed-weights", "TimeDistributed", "Bidirectional", versions="2.0 on")
def wrapper_weights(node: Node) -> str | None:
    """Wrappers wrote the weights to begin with, which the file has."""
    for name in ("weights", "input_dtype"):
        if node.config.get(name) is None:
            node.config.pop(name, None)
    return None


@rule("added-loss", "AddLoss", "AddMetric", versions="2.3 on")
def added_loss(node: Node) -> str:
    """Losses and metrics can no longer be added to a functional model between its layers."""
    old, node.class_name = node.class_name, "Identity"
    for name in ("unconditional", "aggregation", "metric_name"):
        node.config.pop(name, None)
    what = "loss" if old == "AddLoss" else "metric"
    return f"the {what} that it added is left out; the model's answers do not depend on it, its training does"


@rule("no-equivalent-class", *WITHOUT_EQUIVALENT)
def no_equivalent_class(node: Node) -> str | None:
    """These hold parts of TensorFlow's own that Keras 3 has no layers for."""
    node.refuse(f"Keras 3 has nothing for {node.class_name}: {WITHOUT_EQUIVALENT[node.class_name]}")
    return None


@rule("rnn-constants", "RNN", "Bidirectional", *_RECURRENT[1:], versions="2.1 on")
def rnn_constants(node: Node) -> str | None:
    """Cells are given no constants beside their states."""
    for name in ("num_constants", "_num_constants"):
        _drop(node, name, None, 0, why="Keras 3's cells take no constants")
    return None


@rule("merge-shape", "Dot", "Concatenate", "Add", "Multiply", "Average", "Maximum", "Minimum", "Subtract")
def merge_shape(node: Node) -> str | None:
    """Arguments of a base class that meant nothing."""
    for name in ("dims", "mode"):
        node.config.pop(name, None)
    return None


# --- functions by value


@rule("lambda-layer", "Lambda")
def lambda_layer(node: Node) -> str | None:
    """A function was written as bytecode or by its name, with how it was in arguments beside it."""
    config = node.config
    for name in ("function_type", "module", "output_shape_type", "output_shape_module", "mask_type", "mask_module"):
        config.pop(name, None)
    config["function"] = functions.by_value(config.get("function"))
    # Keras finds the shape by calling the function; and code for it is never run.
    shape = config.get("output_shape")
    if isinstance(shape, str | dict) or (isinstance(shape, list) and shape and isinstance(shape[0], str)):
        config["output_shape"] = None
    if config.get("mask") is not None:
        config["mask"] = functions.by_value(config["mask"])
    return None
