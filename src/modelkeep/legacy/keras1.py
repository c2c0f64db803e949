"""What Keras 1 wrote, made what Keras 2 made of it when it read it.

Keras 2 renamed most arguments and took the old names for some years; its own conversions are repeated here.
"""

from __future__ import annotations

from typing import Any

from modelkeep.legacy.rules import JSON, Node, Rules

RULES = rule = Rules()

_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "SeparableConv2D")
_POOLINGS = tuple(f"{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3))
_GLOBAL_POOLINGS = tuple(f"Global{pooling}" for pooling in _POOLINGS)
_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "ConvLSTM2D")
_SPATIAL = (
    *_CONVOLUTIONS,
    *_POOLINGS,
    *_GLOBAL_POOLINGS,
    "ConvLSTM2D",
    *(f"{kind}{rank}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for rank in (2, 3)),
    "SpatialDropout2D",
    "SpatialDropout3D",
)

_CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
}


@rule("keras1-class", *_CLASSES, versions="1")
def keras1_class(node: Node) -> str | None:
    """Convolutions have shorter names; a dilated one is the usual one with an argument."""
    old, node.class_name = node.class_name, _CLASSES[node.class_name]
    _rename(node.config, {"atrous_rate": "dilation_rate"})
    return f"{old} is {node.class_name}"


# Argument of Keras 1 → of Keras 2, by what has it.
_EVERYWHERE = {
    "init": "kernel_initializer",
    "W_regularizer": "kernel_regularizer",
    "b_regularizer": "bias_regularizer",
    "W_constraint": "kernel_constraint",
    "b_constraint": "bias_constraint",
    "bias": "use_bias",
    "border_mode": "padding",
    "subsample": "strides",
}
_BY_CLASS: dict[tuple[str, ...], dict[str, str]] = {
    ("Dense", *_CONVOLUTIONS, "ConvLSTM2D"): _EVERYWHERE,
    ("Dense",): {"output_dim": "units"},
    ("Embedding",): {
        "init": "embeddings_initializer",
        "W_regularizer": "embeddings_regularizer",
        "W_constraint": "embeddings_constraint",
    },
    (*_RECURRENT,): {
        **_EVERYWHERE,
        "output_dim": "units",
        "inner_init": "recurrent_initializer",
        "inner_activation": "recurrent_activation",
        "U_regularizer": "recurrent_regularizer",
        "dropout_W": "dropout",
        "dropout_U": "recurrent_dropout",
    },
    (*_CONVOLUTIONS, "ConvLSTM2D"): {"nb_filter": "filters"},
    ("Conv1D",): {"filter_length": "kernel_size", "subsample_length": "strides"},
    (*_POOLINGS,): {"pool_length": "pool_size", "stride": "strides", "border_mode": "padding"},
    ("UpSampling1D",): {"length": "size"},
    ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout"): {"p": "rate"},
    ("GaussianNoise",): {"sigma": "stddev"},
    ("PReLU",): {"init": "alpha_initializer"},
    ("BatchNormalization",): {
        "beta_init": "beta_initializer",
        "gamma_init": "gamma_initializer",
    },
}


@rule("keras1-arguments", *{name for names in _BY_CLASS for name in names}, versions="1")
def keras1_arguments(node: Node) -> str | None:
    """Most arguments were renamed."""
    renamed: dict[str, str] = {}
    for classes, names in _BY_CLASS.items():
        if node.class_name in classes:
            renamed |= _rename(node.config, names)
    return f"{', '.join(renamed)} are {', '.join(renamed.values())}" if renamed else None


@rule("keras1-kernel-size", *_CONVOLUTIONS, "ConvLSTM2D", versions="1")
def keras1_kernel_size(node: Node) -> str | None:
    """Each length of a kernel was an argument of its own."""
    for names in (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3")):
        if names[0] in node.config:
            node.config["kernel_size"] = [node.config.pop(name) for name in names]
    for name in ("output_shape", "input_dim", "input_length", "weights"):
        node.config.pop(name, None)
    return None


@rule("keras1-data-format", *_SPATIAL, versions="1")
def keras1_data_format(node: Node) -> str | None:
    """Where the channels are was told by the name of a backend."""
    if "dim_ordering" not in node.config:
        return None
    ordering = node.config.pop("dim_ordering")
    node.config["data_format"] = {"tf": "channels_last", "th": "channels_first"}.get(ordering)
    return f"dim_ordering {ordering} is {node.config['data_format']}"


@rule("keras1-input-dim", "Dense", *_RECURRENT, versions="1")
def keras1_input_dim(node: Node) -> str | None:
    """How long the input is was told twice."""
    for name in ("input_dim", "input_length", "weights", "consume_less"):
        node.config.pop(name, None)
    return None


@rule("keras1-forget-bias", "LSTM", "ConvLSTM2D", versions="1")
def keras1_forget_bias(node: Node) -> str | None:
    """Whether the bias of the forget gate begins at one became a switch."""
    if "forget_bias_init" in node.config:
        node.config["unit_forget_bias"] = node.config.pop("forget_bias_init") == "one"
    return None


@rule("keras1-normalization-mode", "BatchNormalization", versions="1")
def keras1_normalization_mode(node: Node) -> str | None:
    """There is one way to normalize: by feature, with statistics kept from training."""
    mode = node.config.pop("mode", 0)
    if mode:
        node.refuse(f"it normalizes in mode {mode}, which Keras 2 dropped")
    return None


@rule("keras1-padding", "ZeroPadding2D", "Cropping2D", "Cropping1D", "ZeroPadding1D", versions="1")
def keras1_padding(node: Node) -> str | None:
    """How much is added to each side could be told by the names of the sides."""
    padding = node.config.get("padding")
    if isinstance(padding, dict):
        sides = [[padding.get("top_pad", 0), padding.get("bottom_pad", 0)]]
        sides.append([padding.get("left_pad", 0), padding.get("right_pad", 0)])
        node.config["padding"] = sides
    return None


@rule("keras1-time-distributed-dense", "TimeDistributedDense", versions="1")
def keras1_time_distributed_dense(node: Node) -> str:
    """A wrapper does the same for every layer."""
    inner = dict(node.config)
    for name in ("batch_input_shape", "input_dtype", "input_length"):
        inner.pop(name, None)
    node.class_name = "TimeDistributed"
    kept: JSON = {name: node.config[name] for name in ("name", "trainable", "batch_input_shape") if name in node.config}
    node.config = {
        **kept,
        "layer": {"class_name": "Dense", "config": {**inner, "name": f"{inner.get('name', '')}_dense"}},
    }
    return "TimeDistributedDense is TimeDistributed(Dense)"


_MERGES = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate"}


@rule("keras1-merge", "Merge", versions="1")
def keras1_merge(node: Node) -> str | None:
    """Each way to merge became a layer."""
    config = node.config
    mode = config.get("mode")
    if config.get("layers"):
        node.refuse("it merges models that a Sequential begins with; Keras 2 has no such layer either")
        return None
    kept: JSON = {name: config[name] for name in ("name", "trainable") if name in config}
    if mode in _MERGES:
        node.class_name = _MERGES[mode]
        if mode == "concat":
            kept["axis"] = config.get("concat_axis", -1)
    elif mode in ("dot", "cos"):
        node.class_name = "Dot"
        kept |= {"axes": config.get("dot_axes", -1), "normalize": mode == "cos"}
    else:
        node.refuse(f"it merges by a function of its own ({mode!r})")
        return None
    node.config = kept
    return f"Merge by {mode} is {node.class_name}"


@rule("keras1-regularizer", kind="regularizer", versions="1")
def keras1_regularizer(node: Node) -> str | None:
    """Regularizers of weights and of outputs became one."""
    if node.class_name in ("WeightRegularizer", "ActivityRegularizer", "L1L2Regularizer"):
        node.class_name = "L1L2"
    node.config.pop("name", None)
    return None


def named_objects(config: JSON) -> JSON:
    """Regularizers and constraints, which Keras 1 wrote with their name among their arguments, as objects."""
    return {key: _as_object(key, value) for key, value in config.items()}


def _as_object(key: str, value: Any) -> Any:
    is_one = key.endswith(("regularizer", "constraint")) and isinstance(value, dict)
    if not is_one or "class_name" in value or not isinstance(value.get("name"), str):
        return value
    return {"class_name": value["name"], "config": {name: inner for name, inner in value.items() if name != "name"}}


def _rename(config: JSON, names: dict[str, str]) -> dict[str, str]:
    """Rename what is there, and say what was."""
    found = {old: new for old, new in names.items() if old in config and old != new}
    for old, new in found.items():
        config[new] = config.pop(old)
    return found
