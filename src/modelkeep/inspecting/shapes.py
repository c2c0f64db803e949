"""What comes out of a layer, and how many numbers it holds, from its config alone.

The rules are those of Keras' documentation for each layer, for channels last unless the config says
otherwise. Nothing is built; where a rule does not know, the answer is None and the file's own weights or
the shapes that its config records tell instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod
from typing import Any

Length = int | None
Shape = tuple[Length, ...]
Config = Mapping[str, Any]

_SAME = (
    "Activation", "ActivityRegularization", "AlphaDropout", "AutoContrast", "BatchNormalization", "Dropout", "ELU",
    "GaussianDropout", "GaussianNoise", "GroupNormalization", "InputLayer", "LayerNormalization", "LeakyReLU",
    "Masking", "Normalization", "PReLU", "RMSNormalization", "RandomBrightness", "RandomContrast", "RandomFlip",
    "RandomRotation", "RandomTranslation", "RandomZoom", "ReLU", "Rescaling", "Softmax", "SpatialDropout1D",
    "SpatialDropout2D", "SpatialDropout3D", "SpectralNormalization", "ThresholdedReLU", "UnitNormalization",
    "StringLookup", "IntegerLookup", "Discretization", "Hashing", "Identity", "MultiHeadAttention",
    "GroupQueryAttention", "Attention", "AdditiveAttention",
)  # fmt: skip
_MERGED = ["Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"]


def output_shape(class_name: str, config: Config, inputs: Sequence[Shape]) -> Shape | None:
    """The shape that a layer gives for its inputs' shapes (batch first), or None where no rule knows."""
    rule = _RULES.get(class_name)
    if rule is None or not inputs:
        return None
    try:
        shape = rule(config, inputs)
        return shape if all(type(length) in (int, type(None)) for length in shape) else None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None  # the config is not what the class' own would be


# --- how lengths change


def _convolved(padding: str, length: Length, size: int, stride: int, dilation: int = 1) -> Length:
    if length is None:
        return None
    if padding == "same":
        return ceil(length / stride)
    reach = (size - 1) * dilation
    return (length + (reach if padding == "causal" else 0) - reach - 1) // stride + 1


def _grown(padding: str, length: Length, size: int, stride: int) -> Length:
    if length is None:
        return None
    return length * stride if padding == "same" else length * stride + max(size - stride, 0)


def _sequence(value: Any, rank: int) -> tuple[int, ...]:
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    return tuple(int(one) for one in values)


def _spatial(shape: Shape, config: Config) -> tuple[int, int, int]:
    """Where the channels stand, and the first and the end of the spatial axes."""
    first = config.get("data_format") == "channels_first"
    return (1, 2, len(shape)) if first else (len(shape) - 1, 1, len(shape) - 1)


def _with_spatial(shape: Shape, config: Config, lengths: Sequence[Length], channels: Length) -> Shape:
    if config.get("data_format") == "channels_first":
        return (shape[0], channels, *lengths)
    return (shape[0], *lengths, channels)


# --- rules


def _same(config: Config, inputs: Sequence[Shape]) -> Shape:
    return inputs[0]


def _dense(config: Config, inputs: Sequence[Shape]) -> Shape:
    return (*inputs[0][:-1], config["units"])


def _conv(config: Config, inputs: Sequence[Shape]) -> Shape:
    shape = inputs[0]
    _, start, end = _spatial(shape, config)
    rank = end - start
    sizes, strides = _sequence(config["kernel_size"], rank), _sequence(config.get("strides", 1), rank)
    dilations = _sequence(config.get("dilation_rate", 1), rank)
    padding = config.get("padding", "valid")
    lengths = [_convolved(padding, *how) for how in zip(shape[start:end], sizes, strides, dilations, strict=True)]
    return _with_spatial(shape, config, lengths, config["filters"])


def _depthwise(config: Config, inputs: Sequence[Shape]) -> Shape:
    channel, _, _ = _spatial(inputs[0], config)
    channels = inputs[0][channel]
    filters = None if channels is None else channels * config.get("depth_multiplier", 1)
    return _conv({**config, "filters": filters}, inputs)


def _transpose(config: Config, inputs: Sequence[Shape]) -> Shape:
    shape = inputs[0]
    _, start, end = _spatial(shape, config)
    rank = end - start
    sizes, strides = _sequence(config["kernel_size"], rank), _sequence(config.get("strides", 1), rank)
    if config.get("output_padding") is not None or _sequence(config.get("dilation_rate", 1), rank) != (1,) * rank:
        raise ValueError
    padding = config.get("padding", "valid")
    lengths = [_grown(padding, *how) for how in zip(shape[start:end], sizes, strides, strict=True)]
    return _with_spatial(shape, config, lengths, config["filters"])


def _pool(config: Config, inputs: Sequence[Shape]) -> Shape:
    shape = inputs[0]
    channel, start, end = _spatial(shape, config)
    rank = end - start
    size = config.get("pool_size", config.get("pool_length", 2))
    sizes, strides = _sequence(size, rank), _sequence(config.get("strides") or size, rank)
    padding = config.get("padding", "valid")
    lengths = [_convolved(padding, *how) for how in zip(shape[start:end], sizes, strides, strict=True)]
    return _with_spatial(shape, config, lengths, shape[channel])


def _global_pool(config: Config, inputs: Sequence[Shape]) -> Shape:
    shape = inputs[0]
    channel, start, end = _spatial(shape, config)
    lengths = (1,) * (end - start) if config.get("keepdims") else ()
    return _with_spatial(shape, config, lengths, shape[channel])


def _flatten(config: Config, inputs: Sequence[Shape]) -> Shape:
    shape = inputs[0]
    return (shape[0], _product(shape[1:]))


def _product(lengths: Sequence[Length]) -> Length:
    known = [length for length in lengths if length is not None]
    return prod(known) if len(known) == len(lengths) else None


def _reshape(config: Config, inputs: Sequence[Shape]) -> Shape:
    target, count = tuple(config["target_shape"]), _product(inputs[0][1:])
    rest = -prod(target)
    return (
        inputs[0][0],
        *((None if count is None else count // rest) if length == -1 else length for length in target),
    )


def _permute(config: Config, inputs: Sequence[Shape]) -> Shape:
    return (inputs[0][0], *(inputs[0][axis] for axis in config["dims"]))


def _embedding(config: Config, inputs: Sequence[Shape]) -> Shape:
    return (*inputs[0], config["output_dim"])


def _recurrent(config: Config, inputs: Sequence[Shape]) -> Shape:
    units = config["units"] if "units" in config else config["cell"]["config"]["units"]
    return (*inputs[0][:2], units) if config.get("return_sequences") else (inputs[0][0], units)


def _bidirectional(config: Config, inputs: Sequence[Shape]) -> Shape:
    inner = config["layer"]
    shape = output_shape(inner["class_name"], inner["config"], inputs)
    if shape is None or shape[-1] is None:
        raise ValueError
    return (*shape[:-1], 2 * shape[-1]) if config.get("merge_mode", "concat") == "concat" else shape


def _time_distributed(config: Config, inputs: Sequence[Shape]) -> Shape:
    inner = config["layer"]
    shape = output_shape(inner["class_name"], inner["config"], [(inputs[0][0], *inputs[0][2:])])
    if shape is None:
        raise ValueError
    return (shape[0], inputs[0][1], *shape[1:])


def _concatenate(config: Config, inputs: Sequence[Shape]) -> Shape:
    axis = config.get("axis", -1) % len(inputs[0])
    lengths = [shape[axis] for shape in inputs]
    known = [length for length in lengths if length is not None]
    return (*inputs[0][:axis], sum(known) if len(known) == len(lengths) else None, *inputs[0][axis + 1 :])


def _merged(config: Config, inputs: Sequence[Shape]) -> Shape:
    # Lengths of 1 are stretched, as in any elementwise operation.
    return tuple(next((n for n in lengths if n not in (1, None)), lengths[0]) for lengths in zip(*inputs, strict=True))


def _padded(config: Config, inputs: Sequence[Shape], sign: int = 1) -> Shape:
    shape = inputs[0]
    channel, start, end = _spatial(shape, config)
    given = config.get("padding" if sign == 1 else "cropping", 1)
    if end - start == 1 and not isinstance(given, int) and isinstance(given[0], int):
        given = [given]
    pairs = [
        (one, one) if isinstance(one, int) else one
        for one in ([given] * (end - start) if isinstance(given, int) else given)
    ]
    lengths = [None if n is None else n + sign * sum(pair) for n, pair in zip(shape[start:end], pairs, strict=True)]
    return _with_spatial(shape, config, lengths, shape[channel])


def _cropped(config: Config, inputs: Sequence[Shape]) -> Shape:
    return _padded(config, inputs, sign=-1)


def _upsampled(config: Config, inputs: Sequence[Shape]) -> Shape:
    shape = inputs[0]
    channel, start, end = _spatial(shape, config)
    sizes = _sequence(config.get("size", 2), end - start)
    lengths = [None if n is None else n * size for n, size in zip(shape[start:end], sizes, strict=True)]
    return _with_spatial(shape, config, lengths, shape[channel])


def _sized(config: Config, inputs: Sequence[Shape]) -> Shape:
    channel, _, _ = _spatial(inputs[0], config)
    return _with_spatial(inputs[0], config, (config["height"], config["width"]), inputs[0][channel])


def _repeated(config: Config, inputs: Sequence[Shape]) -> Shape:
    return (inputs[0][0], config["n"], inputs[0][1])


def _vectorized(config: Config, inputs: Sequence[Shape]) -> Shape:
    if config.get("output_mode", "int") != "int":
        return (inputs[0][0], config.get("max_tokens"))
    return (inputs[0][0], config.get("output_sequence_length"))


def _encoded(config: Config, inputs: Sequence[Shape]) -> Shape:
    return (*inputs[0][:-1], config["num_tokens"])


Rule = Callable[[Config, Sequence[Shape]], Shape]
_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "SeparableConv1D", "SeparableConv2D", "Convolution1D", "Convolution2D")
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_MERGED, _merged),
    **dict.fromkeys(_CONVOLUTIONS, _conv),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transpose),
    **{f"{kind}Pooling{rank}D": _pool for kind in ("Max", "Average") for rank in (1, 2, 3)},
    **{f"Global{kind}Pooling{rank}D": _global_pool for kind in ("Max", "Average") for rank in (1, 2, 3)},
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "RNN", "CuDNNLSTM", "CuDNNGRU"), _recurrent),
    **{f"ZeroPadding{rank}D": _padded for rank in (1, 2, 3)},
    **{f"Cropping{rank}D": _cropped for rank in (1, 2, 3)},
    **{f"UpSampling{rank}D": _upsampled for rank in (1, 2, 3)},
    **dict.fromkeys(("Resizing", "CenterCrop", "RandomCrop"), _sized),
    "Bidirectional": _bidirectional,
    "CategoryEncoding": _encoded,
    "Concatenate": _concatenate,
    "Dense": _dense,
    "Embedding": _embedding,
    "Flatten": _flatten,
    "Permute": _permute,
    "RepeatVector": _repeated,
    "Reshape": _reshape,
    "TextVectorization": _vectorized,
    "TimeDistributed": _time_distributed,
}
