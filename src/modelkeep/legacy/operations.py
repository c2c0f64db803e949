"""Operations of TensorFlow between layers (``TFOpLambda``, ``SlicingOpLambda``) as operations of ``keras.ops``.

Keras 2.2 and 2.3 wrote the node of TensorFlow's graph (``TensorFlowOpLayer``).

Keras 2.4 and later wrote an operation that somebody used between layers as a layer with the operation's name, its
first argument as the layer's input and all others by name. Keras 3 has operations of its own, which a config names
like layers: what may differ from call to call are inputs, the rest is its config.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelkeep.legacy.rules import JSON

CLASSES = frozenset({"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"})


class Unknown(Exception):
    """Nothing in Keras does it; the text says what."""


@dataclass
class Call:
    """One call of an operation of TensorFlow: its arguments by name, the first of which has no name here."""

    name: str  # as TensorFlow exports it: "math.multiply"
    first: Any
    arguments: JSON
    used: set[str] = field(default_factory=set)

    def take(self, name: str, default: Any = None) -> Any:
        """An argument; none may be left over."""
        self.used.add(name)
        value = self.arguments.get(name)
        return default if value is None else value

    def left(self) -> list[str]:
        """The arguments that mean something and that nobody took."""
        unused = self.arguments.keys() - self.used - {"name"}
        return sorted(name for name in unused if self.arguments[name] is not None)


@dataclass(frozen=True)
class Operation:
    """One operation of Keras: where it is, what it is made with, and what it is called on."""

    place: str  # "numpy.Multiply" in keras.src.ops, or "layers.Add" in keras
    inputs: list[Any]
    config: JSON = field(default_factory=dict)
    keywords: JSON = field(default_factory=dict)
    then: str = ""  # an operation of one input on what comes out, as `place`


Make = Callable[[Call], Operation]


def operation(name: str, first: Any, arguments: JSON) -> Operation:
    """What Keras 3 has for a call. Raises Unknown."""
    short = _short(name)
    if short not in _MAKERS:
        raise Unknown(f"Keras has no operation for tf.{name}")
    call = Call(short, first, arguments)
    made = _MAKERS[short](call)
    if call.left():
        raise Unknown(f"Keras has nothing for {', '.join(call.left())} of tf.{name}")
    return made


def of_node(config: JSON, inputs: Any) -> Operation:
    """What Keras 3 has for a node of TensorFlow's graph, as Keras 2.2 and 2.3 wrote operations between layers.

    ``config`` has the node as ``node_def`` and, by the number of the input, those inputs that are ``constants``.
    """
    node = config["node_def"]
    if not isinstance(node, dict) or node.get("op") not in _NODES:
        raise Unknown(f"Keras has no operation for TensorFlow's {node.get('op') if isinstance(node, dict) else 'node'}")
    function, names, attributes = _NODES[node["op"]]
    values = list(inputs) if isinstance(inputs, list) and not _is_tensor(inputs) else [inputs]
    for index, value in sorted((int(index), value) for index, value in (config.get("constants") or {}).items()):
        values.insert(index, value)
    if names == (_ALL,):
        return operation(function, values[:-1], {"axis": values[-1]})
    arguments = dict(zip(names, values[1:], strict=False))
    given = node.get("attr", {})
    arguments |= {name: _attribute(given[key]) for key, name in attributes.items() if key in given}
    return operation(function, values[0], arguments)


def _attribute(value: JSON) -> Any:
    """An attribute of a node as protobuf writes it in JSON."""
    (kind, inner), *_ = value.items()
    if kind == "type":
        name = str(inner).removeprefix("DT_").lower()
        return {"float": "float32", "half": "float16", "double": "float64"}.get(name, name)
    if kind == "i":
        return int(inner)
    if kind == "list":
        return [int(each) for each in inner.get("i", ())]
    return inner


_ALL = "values"
# A node's operation → the function that makes it, the names of its second and further inputs, and of its attributes.
_NODES: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
    **{
        op: (function, ("y",), {})
        for op, function in {
            "Add": "add", "AddV2": "add", "Sub": "subtract", "Mul": "multiply", "RealDiv": "truediv", "Div": "truediv",
            "Pow": "pow", "Maximum": "maximum", "Minimum": "minimum", "FloorDiv": "floordiv", "FloorMod": "floormod",
            "SquaredDifference": "squared_difference", "DivNoNan": "divide_no_nan", "Equal": "equal",
            "Greater": "greater", "GreaterEqual": "greater_equal", "Less": "less", "LessEqual": "less_equal",
            "LogicalAnd": "logical_and", "LogicalOr": "logical_or",
        }.items()
    },
    **{
        op: (function, (), {})
        for op, function in {
            "Neg": "negative", "Abs": "abs", "Square": "square", "Sqrt": "sqrt", "Rsqrt": "rsqrt", "Exp": "exp",
            "Log": "log", "Log1p": "log1p", "Sin": "sin", "Cos": "cos", "Tanh": "tanh", "Sigmoid": "sigmoid",
            "Relu": "relu", "Relu6": "relu6", "Elu": "elu", "Selu": "selu", "Softplus": "softplus",
            "Softsign": "softsign", "Softmax": "softmax", "LogSoftmax": "log_softmax", "Identity": "identity",
            "StopGradient": "stop_gradient", "LogicalNot": "logical_not", "Sign": "sign", "Floor": "floor",
            "Ceil": "ceil", "Round": "round", "Erf": "erf",
        }.items()
    },
    **{
        op: (function, ("axis",), {"keep_dims": "keepdims"})
        for op, function in {
            "Sum": "reduce_sum", "Mean": "reduce_mean", "Max": "reduce_max", "Min": "reduce_min", "Prod": "reduce_prod",
            "Any": "reduce_any", "All": "reduce_all",
        }.items()
    },
    "BiasAdd": ("bias_add", ("bias",), {}),
    "MatMul": ("matmul", ("b",), {"transpose_a": "transpose_a", "transpose_b": "transpose_b"}),
    "BatchMatMulV2": ("matmul", ("b",), {"adj_x": "adjoint_a", "adj_y": "adjoint_b"}),
    "Reshape": ("reshape", ("shape",), {}),
    "Transpose": ("transpose", ("perm",), {}),
    "ExpandDims": ("expand_dims", ("axis",), {}),
    "Squeeze": ("squeeze", (), {"squeeze_dims": "axis"}),
    "Tile": ("tile", ("multiples",), {}),
    "Pad": ("pad", ("paddings",), {}),
    "GatherV2": ("gather", ("indices", "axis"), {}),
    "Cast": ("cast", (), {"DstT": "dtype"}),
    "LeakyRelu": ("leaky_relu", (), {"alpha": "alpha"}),
    "ConcatV2": ("concat", (_ALL,), {}),
    "Select": ("where", ("x", "y"), {}),
    "SelectV2": ("where", ("x", "y"), {}),
    "Slice": ("slice", ("begin", "size"), {}),
    "StridedSlice": (
        "strided_slice",
        ("begin", "end", "strides"),
        {
            "begin_mask": "begin_mask",
            "end_mask": "end_mask",
            "ellipsis_mask": "ellipsis_mask",
            "new_axis_mask": "new_axis_mask",
            "shrink_axis_mask": "shrink_axis_mask",
        },
    ),
}  # fmt: skip


def module_of(place: str) -> tuple[str, str]:
    """The module and the class of an operation, as Keras 3 writes them."""
    module, _, name = place.partition(".")
    return ("keras.layers" if module == "layers" else f"keras.src.ops.{module}"), name


def _short(name: str) -> str:
    """One function is exported under several names; those of one meaning end alike."""
    module, _, short = name.removeprefix("compat.v1.").rpartition(".")
    return short if module in ("", "math", "nn", "linalg", "__operators__", "keras.activations", "dtypes") else name


# --- constants


def constant(value: Any) -> Any:
    """A constant that an operation was called on; lists stand for arrays."""
    if isinstance(value, list):
        return {"class_name": "__numpy__", "config": {"value": value, "dtype": _dtype(value)}}
    return value


def _dtype(value: Any) -> str:
    while isinstance(value, list):
        value = value[0] if value else 0.0
    return "bool" if isinstance(value, bool) else "int32" if isinstance(value, int) else "float32"


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") in ("__keras_tensor__", "__numpy__")


def _has_tensor(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_tensor, value))
    return _is_tensor(value) or (isinstance(value, dict) and any(map(_has_tensor, value.values())))


def _fixed(call: Call, name: str, default: Any = None) -> Any:
    """An argument that Keras wants to know when the operation is made."""
    value = call.take(name, default)
    if _has_tensor(value):
        raise Unknown(f"Keras wants {name} of tf.{call.name} to be fixed, here it is computed")
    return value


def _operand(value: Any) -> Any:
    return constant(value) if isinstance(value, list) and not _has_tensor(value) else value


# --- how most are made


def _unary(place: str) -> Make:
    return lambda call: Operation(place, [_operand(call.first)])


def _binary(place: str, second: str = "y") -> Make:
    return lambda call: Operation(place, [_operand(call.first), _operand(call.take(second))])


def _reduction(place: str) -> Make:
    def make(call: Call) -> Operation:
        config = {"axis": _fixed(call, "axis"), "keepdims": _fixed(call, "keepdims", False)}
        return Operation(place, [call.first], config)

    return make


def _along(place: str, default: Any, name: str = "axis") -> Make:
    """Of one input, along an axis."""
    return lambda call: Operation(place, [call.first], {"axis": _fixed(call, name, default)})


# --- those that need more


def _cast(call: Call) -> Operation:
    return Operation("core.Cast", [_operand(call.first)], {"dtype": _fixed(call, "dtype")})


def _to(dtype: str) -> Make:
    return lambda call: Operation("core.Cast", [_operand(call.first)], {"dtype": dtype})


def _index(call: Call) -> Operation:
    """Slices as Keras writes them; what is no slice stays a number, an ellipsis, or a new axis."""
    spec = call.take("slice_spec")
    parts = spec if isinstance(spec, list) else [spec]
    if _has_tensor(parts):
        raise Unknown("Keras slices by fixed numbers, here they are computed")
    return Operation("numpy.GetItem", [call.first, [_slice(part) for part in parts]])


def _slice(part: Any) -> Any:
    if isinstance(part, dict) and part.keys() == {"start", "stop", "step"}:
        return {"class_name": "__slice__", "config": part}
    if isinstance(part, dict) and part.get("class_name") == "__ellipsis__":
        return {"class_name": "__ellipsis__", "config": {}}
    return part


def _strided_slice(call: Call) -> Operation:
    begin, end = _fixed(call, "begin"), _fixed(call, "end")
    strides = _fixed(call, "strides", [1] * len(begin))
    masks = {name: _fixed(call, f"{name}_mask", 0) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    parts: list[Any] = []
    for index, (start, stop, step) in enumerate(zip(begin, end, strides, strict=True)):
        bit = 1 << index
        if masks["ellipsis"] & bit:
            parts.append({"class_name": "__ellipsis__", "config": {}})
        elif masks["new_axis"] & bit:
            parts.append(None)
        elif masks["shrink_axis"] & bit:
            parts.append(start)
        else:
            first, last = (None if masks["begin"] & bit else start), (None if masks["end"] & bit else stop)
            parts.append(_slice({"start": first, "stop": last, "step": step}))
    return Operation("numpy.GetItem", [call.first, parts])


def _slice_by_sizes(call: Call) -> Operation:
    begin, size = _fixed(call, "begin"), _fixed(call, "size")
    ends = [None if length == -1 else start + length for start, length in zip(begin, size, strict=True)]
    parts = [_slice({"start": start, "stop": end, "step": None}) for start, end in zip(begin, ends, strict=True)]
    return Operation("numpy.GetItem", [call.first, parts])


def _reshape(call: Call) -> Operation:
    shape = call.take("shape")
    if isinstance(shape, list) and shape and _is_tensor(shape[0]) and not _has_tensor(shape[1:]):
        # The batch's length, computed from its shape: Keras' layer keeps the batch by itself.
        return Operation("layers.Reshape", [call.first], {"target_shape": shape[1:]})
    if _has_tensor(shape):
        raise Unknown("Keras reshapes to fixed lengths beyond the batch, here they are computed")
    return Operation("numpy.Reshape", [call.first], {"newshape": shape})


def _split(call: Call) -> Operation:
    sizes = _fixed(call, "num_or_size_splits")
    if isinstance(sizes, list):
        ends = [sum(sizes[: index + 1]) for index in range(len(sizes) - 1)]
        return Operation("numpy.Split", [call.first], {"indices_or_sections": ends, "axis": _fixed(call, "axis", 0)})
    call.take("num")
    return Operation("numpy.Split", [call.first], {"indices_or_sections": sizes, "axis": _fixed(call, "axis", 0)})


def _matmul(call: Call) -> Operation:
    second = _operand(call.take("b"))
    transposed = [_fixed(call, f"{how}_{which}", False) for how in ("transpose", "adjoint") for which in "ab"]
    for name in ("a_is_sparse", "b_is_sparse"):
        call.take(name)
    first_turned, second_turned = transposed[0] or transposed[2], transposed[1] or transposed[3]
    if not (first_turned or second_turned):
        return Operation("numpy.Matmul", [_operand(call.first), second])
    subscripts = f"...{'ji' if first_turned else 'ij'},...{'kj' if second_turned else 'jk'}->...ik"
    return Operation("numpy.Einsum", [_operand(call.first), second], {"subscripts": subscripts})


def _einsum(call: Call) -> Operation:
    inputs = call.take("inputs")
    if not isinstance(inputs, list):
        raise Unknown("what tf.einsum was called on was not written by Keras 2")
    return Operation("numpy.Einsum", inputs, {"subscripts": call.first})


def _gather(call: Call) -> Operation:
    if _fixed(call, "batch_dims", 0):
        raise Unknown("Keras has no gather by batch")
    call.take("validate_indices")
    axis = _fixed(call, "axis", 0)
    return Operation("numpy.Take", [_operand(call.first), _operand(call.take("indices"))], {"axis": axis})


def _where(call: Call) -> Operation:
    if call.arguments.get("x") is None:
        raise Unknown("the places where a condition holds have no fixed number")
    return Operation("numpy.Where", [_operand(call.first), _operand(call.take("x")), _operand(call.take("y"))])


def _pad(call: Call) -> Operation:
    mode = str(_fixed(call, "mode", "CONSTANT")).lower()
    value = _fixed(call, "constant_values", 0)
    keywords = {"constant_values": value} if mode == "constant" and value else {}
    return Operation("numpy.Pad", [call.first], {"pad_width": _fixed(call, "paddings"), "mode": mode}, keywords)


def _clip(call: Call) -> Operation:
    low, high = call.take("clip_value_min"), call.take("clip_value_max")
    if _has_tensor([low, high]):
        raise Unknown("Keras clips to fixed numbers, here they are computed")
    return Operation("numpy.Clip", [call.first], {"x_min": low, "x_max": high})


def _one_hot(call: Call) -> Operation:
    if _fixed(call, "on_value", 1) != 1 or _fixed(call, "off_value", 0) != 0:
        raise Unknown("Keras' one_hot has ones and zeros only")
    config = {"num_classes": _fixed(call, "depth"), "axis": _fixed(call, "axis", -1)}
    return Operation("nn.OneHot", [call.first], {**config, "dtype": _fixed(call, "dtype", "float32")})


def _l2_normalize(call: Call) -> Operation:
    # TensorFlow adds its epsilon to the square of the norm.
    epsilon = float(_fixed(call, "epsilon", 1e-12)) ** 0.5
    return Operation("nn.Normalize", [call.first], {"axis": _fixed(call, "axis", -1), "order": 2, "epsilon": epsilon})


def _leaky_relu(call: Call) -> Operation:
    return Operation("nn.LeakyRelu", [call.first], {"negative_slope": _fixed(call, "alpha", 0.2)})


def _gelu(call: Call) -> Operation:
    return Operation("nn.Gelu", [call.first], {"approximate": _fixed(call, "approximate", False)})


def _resize(call: Call) -> Operation:
    for name in ("preserve_aspect_ratio",):
        if _fixed(call, name, False):
            raise Unknown(f"Keras resizes images without {name}")
    config = {"size": _fixed(call, "size"), "interpolation": _fixed(call, "method", "bilinear")}
    return Operation("image.Resize", [call.first], {**config, "antialias": _fixed(call, "antialias", False)})


def _pool(place: str) -> Make:
    def make(call: Call) -> Operation:
        if _fixed(call, "data_format", "NHWC") != "NHWC":
            raise Unknown("pooling with the channels first")
        size, strides = (_inner(_fixed(call, name)) for name in ("ksize", "strides"))
        padding = str(_fixed(call, "padding")).lower()
        config = {"pool_size": size, "strides": strides, "padding": padding, "data_format": "channels_last"}
        return Operation(place, [call.first], config)

    return make


def _inner(lengths: Any) -> Any:
    """Without the lengths for batch and channels."""
    return lengths[1:-1] if isinstance(lengths, list) and len(lengths) == 4 else lengths


def _tensordot(call: Call) -> Operation:
    return Operation(
        "numpy.Tensordot", [_operand(call.first), _operand(call.take("b"))], {"axes": _fixed(call, "axes")}
    )


def _norm(call: Call) -> Operation:
    order = _fixed(call, "ord", "euclidean")
    config = {"ord": None if order == "euclidean" else order, "axis": _fixed(call, "axis")}
    return Operation("linalg.Norm", [call.first], {**config, "keepdims": _fixed(call, "keepdims", False)})


def _top_k(call: Call) -> Operation:
    return Operation("math.TopK", [call.first], {"k": _fixed(call, "k", 1), "sorted": _fixed(call, "sorted", True)})


def _cumulative(place: str) -> Make:
    def make(call: Call) -> Operation:
        if _fixed(call, "exclusive", False) or _fixed(call, "reverse", False):
            raise Unknown(f"Keras has no exclusive or reversed {call.name}")
        return Operation(place, [call.first], {"axis": _fixed(call, "axis", 0)})

    return make


def _softmax(place: str) -> Make:
    return lambda call: Operation(place, [call.first], {"axis": _fixed(call, "axis", -1)})


def _transpose(call: Call) -> Operation:
    if _fixed(call, "conjugate", False):
        raise Unknown("a transposition that conjugates")
    return Operation("numpy.Transpose", [call.first], {"axes": _fixed(call, "perm")})


def _argument(place: str) -> Make:
    def make(call: Call) -> Operation:
        call.take("dimension")
        dtype = _fixed(call, "output_type", "int64")
        if dtype not in ("int32", "int64"):
            raise Unknown(f"{call.name} as {dtype}")
        return Operation(place, [call.first], {"axis": _fixed(call, "axis", 0)})

    return make


def _like(place: str) -> Make:
    def make(call: Call) -> Operation:
        call.take("optimize")
        return Operation(place, [call.first], {"dtype": _fixed(call, "dtype")})

    return make


def _squeeze(call: Call) -> Operation:
    axis = _fixed(call, "axis", _fixed(call, "squeeze_dims"))
    return Operation(
        "numpy.Squeeze", [call.first], {"axis": axis[0] if isinstance(axis, list) and len(axis) == 1 else axis}
    )


def _bias_add(call: Call) -> Operation:
    if str(_fixed(call, "data_format", "NHWC")).startswith("NC"):
        raise Unknown("adding a bias to channels that are first")
    return Operation("numpy.Add", [call.first, _operand(call.take("bias"))])


def _repeat(call: Call) -> Operation:
    return Operation("numpy.Repeat", [call.first], {"repeats": _fixed(call, "repeats"), "axis": _fixed(call, "axis")})


def _roll(call: Call) -> Operation:
    return Operation("numpy.Roll", [call.first], {"shift": _fixed(call, "shift"), "axis": _fixed(call, "axis")})


def _unstack(call: Call) -> Operation:
    return Operation("core.Unstack", [call.first], {"num": _fixed(call, "num"), "axis": _fixed(call, "axis", 0)})


def _expand_dims(call: Call) -> Operation:
    return Operation("numpy.ExpandDims", [call.first], {"axis": _fixed(call, "axis", _fixed(call, "dim"))})


def _round(call: Call) -> Operation:
    return Operation("numpy.Round", [call.first])


_MAKERS: dict[str, Make] = {
    # arithmetic
    "add": _binary("numpy.Add"),
    "multiply": _binary("numpy.Multiply"),
    "subtract": _binary("numpy.Subtract"),
    "sub": _binary("numpy.Subtract"),
    "mul": _binary("numpy.Multiply"),
    "truediv": _binary("numpy.TrueDivide"),
    "divide": _binary("numpy.TrueDivide"),
    "div": _binary("numpy.TrueDivide"),
    "divide_no_nan": _binary("numpy.DivideNoNan"),
    "floordiv": _binary("numpy.FloorDivide"),
    "floor_div": _binary("numpy.FloorDivide"),
    "floormod": _binary("numpy.Mod"),
    "mod": _binary("numpy.Mod"),
    "pow": _binary("numpy.Power"),
    "maximum": _binary("numpy.Maximum"),
    "minimum": _binary("numpy.Minimum"),
    "atan2": _binary("numpy.Arctan2", "x"),
    "add_n": lambda call: Operation("layers.Add", [call.first]),
    "accumulate_n": lambda call: Operation("layers.Add", [call.first]),
    "bias_add": _bias_add,
    "squared_difference": lambda call: Operation(
        "numpy.Subtract", [_operand(call.first), _operand(call.take("y"))], then="numpy.Square"
    ),
    "neg": _unary("numpy.Negative"),
    "negative": _unary("numpy.Negative"),
    "abs": _unary("numpy.Absolute"),
    "sign": _unary("numpy.Sign"),
    "square": _unary("numpy.Square"),
    "sqrt": _unary("numpy.Sqrt"),
    "rsqrt": _unary("math.Rsqrt"),
    "exp": _unary("numpy.Exp"),
    "expm1": _unary("numpy.Expm1"),
    "log": _unary("numpy.Log"),
    "log1p": _unary("numpy.Log1p"),
    "reciprocal": _unary("numpy.Reciprocal"),
    "reciprocal_no_nan": lambda call: Operation("numpy.DivideNoNan", [1.0, call.first]),
    "floor": _unary("numpy.Floor"),
    "ceil": _unary("numpy.Ceil"),
    "round": _round,
    "sin": _unary("numpy.Sin"),
    "cos": _unary("numpy.Cos"),
    "tan": _unary("numpy.Tan"),
    "asin": _unary("numpy.Arcsin"),
    "acos": _unary("numpy.Arccos"),
    "atan": _unary("numpy.Arctan"),
    "sinh": _unary("numpy.Sinh"),
    "cosh": _unary("numpy.Cosh"),
    "tanh": _unary("numpy.Tanh"),
    "erf": _unary("math.Erf"),
    "clip_by_value": _clip,
    "stop_gradient": _unary("core.StopGradient"),
    "identity": _unary("layers.Identity"),
    # comparisons
    "equal": _binary("numpy.Equal"),
    "eq": _binary("numpy.Equal"),
    "not_equal": _binary("numpy.NotEqual"),
    "ne": _binary("numpy.NotEqual"),
    "greater": _binary("numpy.Greater"),
    "greater_equal": _binary("numpy.GreaterEqual"),
    "less": _binary("numpy.Less"),
    "less_equal": _binary("numpy.LessEqual"),
    "logical_and": _binary("numpy.LogicalAnd"),
    "logical_or": _binary("numpy.LogicalOr"),
    "logical_xor": _binary("numpy.LogicalXor"),
    "logical_not": _unary("numpy.LogicalNot"),
    "is_nan": _unary("numpy.Isnan"),
    "is_inf": _unary("numpy.Isinf"),
    "is_finite": _unary("numpy.Isfinite"),
    "where": _where,
    # reductions
    "reduce_sum": _reduction("numpy.Sum"),
    "reduce_mean": _reduction("numpy.Mean"),
    "reduce_max": _reduction("numpy.Max"),
    "reduce_min": _reduction("numpy.Min"),
    "reduce_prod": _reduction("numpy.Prod"),
    "reduce_std": _reduction("numpy.Std"),
    "reduce_variance": _reduction("numpy.Var"),
    "reduce_any": _reduction("numpy.Any"),
    "reduce_all": _reduction("numpy.All"),
    "reduce_logsumexp": _reduction("math.Logsumexp"),
    "reduce_euclidean_norm": _reduction("linalg.Norm"),
    "norm": _norm,
    "argmax": _argument("numpy.Argmax"),
    "argmin": _argument("numpy.Argmin"),
    "cumsum": _cumulative("numpy.Cumsum"),
    "cumprod": _cumulative("numpy.Cumprod"),
    "top_k": _top_k,
    "l2_normalize": _l2_normalize,
    # products
    "matmul": _matmul,
    "einsum": _einsum,
    "tensordot": _tensordot,
    # shapes
    "concat": _along("numpy.Concatenate", 0),
    "stack": _along("numpy.Stack", 0),
    "unstack": _unstack,
    "split": _split,
    "reshape": _reshape,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "tile": lambda call: Operation("numpy.Tile", [call.first], {"repeats": _fixed(call, "multiples")}),
    "repeat": _repeat,
    "roll": _roll,
    "reverse": _along("numpy.Flip", None),
    "pad": _pad,
    "gather": _gather,
    "getitem": _index,
    "strided_slice": _strided_slice,
    "slice": _slice_by_sizes,
    "zeros_like": _like("numpy.ZerosLike"),
    "ones_like": _like("numpy.OnesLike"),
    "one_hot": _one_hot,
    "cast": _cast,
    "to_float": _to("float32"),
    "to_int32": _to("int32"),
    "to_int64": _to("int64"),
    # networks
    "relu": _unary("nn.Relu"),
    "relu6": _unary("nn.Relu6"),
    "leaky_relu": _leaky_relu,
    "elu": _unary("nn.Elu"),
    "selu": _unary("nn.Selu"),
    "gelu": _gelu,
    "silu": _unary("nn.Silu"),
    "swish": _unary("nn.Silu"),
    "sigmoid": _unary("nn.Sigmoid"),
    "log_sigmoid": _unary("nn.LogSigmoid"),
    "softplus": _unary("nn.Softplus"),
    "softsign": _unary("nn.Softsign"),
    "softmax": _softmax("nn.Softmax"),
    "log_softmax": _softmax("nn.LogSoftmax"),
    "max_pool2d": _pool("nn.MaxPool"),
    "avg_pool2d": _pool("nn.AveragePool"),
    "max_pool": _pool("nn.MaxPool"),
    "avg_pool": _pool("nn.AveragePool"),
    # images
    "image.resize": _resize,
    "image.rgb_to_grayscale": _unary("image.RGBToGrayscale"),
    "image.flip_left_right": lambda call: Operation("numpy.Flip", [call.first], {"axis": -2}),
    "image.flip_up_down": lambda call: Operation("numpy.Flip", [call.first], {"axis": -3}),
}
