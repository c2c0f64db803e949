"""What the config of a Keras model asks for, told without building or importing any of it.

A config of Keras 1, 2 or 3 is a tree of records: ``class_name`` and ``config``, in newer ones also ``module``
and ``registered_name``. Whatever a record may name without being custom is listed in ``keras_names.json``,
which is written from the public API of several releases; all else is custom, or worse.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from modelkeep.formats.contents import Problem
from modelkeep.formats.limits import DEFAULT, Limits


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Values that are no objects, though written like one.
_VALUES = _words(
    "__keras_tensor__ __tensor__ __numpy__ __bytes__ __slice__ __ellipsis__ __tuple__ __shape__ TensorShape __set__"
)
_KERAS = (
    "keras.",
    "tf_keras.",
    "keras_core.",
    "tensorflow.keras.",
    "tensorflow.python.keras.",
    "tensorflow_core.keras.",
)
# Where classes of Keras live that a later release may add; anywhere else nothing is a part of a network.
_HOMES = _words(
    "layers models losses metrics optimizers initializers regularizers constraints activations ops dtype_policies "
    "quantizers mixed_precision random distillation engine applications"
)
_NETWORKS = frozenset({"Sequential", "Functional", "Model"})
_FOREIGN_LAYERS = frozenset({"TFSMLayer", "TorchModuleWrapper"})
_FUNCTION_LAYERS = frozenset({"JaxLayer", "FlaxLayer"})
# TensorFlow 2.11 and 2.12 registered these under a package of custom objects.
_OPTIMIZERS = _words("Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lion Nadam RMSprop SGD")
# Functions of Python that do more than compute.
_PYTHON = _words(
    "__import__ breakpoint compile delattr dir eval exec exit getattr globals help input locals memoryview open quit "
    "setattr vars"
)
_FILE_ARGUMENTS = frozenset({"vocabulary", "idf_weights"})
_OUTSIDE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|/\w[^/]*/|~/|\.\.[/\\]|[A-Za-z]:\\|\\\\\w|.*[/\\]\.\.(?:[/\\]|$)")
# Their text is for people, or is itself the data.
_FREE_TEXT = _words("name oov_token mask_token filters split separator equation doc description")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{40,}={0,2}\s*")
_MARSHALLED = re.compile(r"[cã]\0{0,3}.?\0\0\0", re.DOTALL)

# TensorFlow's functions that an operation of Keras 2 may name and that reach outside; of `io`, most only decode.
_TF_OUTSIDE = _words(
    "app autograph data distribute experimental feature_column gfile load_library load_op_library "
    "numpy_function print profiler py_func py_function python_io queue raw_ops read_file resource_loader saved_model "
    "summary sysconfig test tpu train write_file"
)
_TF_PURE_IO = ("decode", "encode", "parse", "serialize", "deserialize", "is_jpeg", "extract", "string", "match")
_NODE_OPERATION = re.compile(r'"?\bop"?\s*[:=]\s*"(\w+)"')
_TF_NODES = _words(
    "PyFunc PyFuncStateless EagerPyFunc ReadFile WriteFile Save SaveV2 SaveSlices Restore RestoreV2 RestoreSlice "
    "MatchingFiles PrintV2 WholeFileReader WholeFileReaderV2 TextLineDataset TFRecordDataset LoadDataset"
)

DECLARED_SIZE = "declared-size"
_FEW = 2**24  # numbers that a file may declare beyond what it holds: 64 MiB of float32
_MANY = 2**28  # numbers that an architecture without weights may declare: 1 GiB of float32
_PACKED = 4  # times as many numbers as there are elements in the file: int4 and the like lie packed
_LARGEST = 2**31 - 1


class _Place(NamedTuple):
    """A value, its key in what holds it, and what that is."""

    value: Any
    key: str | int
    holder: _Place | None
    of_keras: bool = True  # whether the innermost record around it is Keras' own

    def __str__(self) -> str:
        keys: list[str | int] = []
        place: _Place | None = self
        while place is not None:
            keys.append(place.key)
            place = place.holder
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key[:80]}" for key in reversed(keys))
        return path.lstrip(".") if len(path) < 300 else f"{path[1:100]}…{path[-150:]}"


def check(
    config: Any, *, place: str = "config", parameters: int | None = None, limits: Limits = DEFAULT
) -> Iterator[Problem]:
    """What is wrong with a config, from the outside in.

    ``parameters`` are the numbers in the file's weights, None where it holds none. Raises LimitExceeded where the
    config has too many layers.
    """
    layers = declared = 0
    waiting = [_Place(config, place, None)]
    while waiting:
        here = waiting.pop()
        value = here.value
        if isinstance(value, str):
            yield from _check_text(here)
        elif isinstance(value, dict):
            of_keras = here.of_keras
            if "class_name" in value:
                yield from _check_record(here)
                of_keras = is_known(value)
                layers += 1 + _calls(value)
                if value["class_name"] == "Sequential":
                    limits.check("sequential", len(_layers_of(value)), f"{here} has too many layers in a row")
                declared += _least(value)
            waiting.extend(_Place(inner, str(key), here, of_keras) for key, inner in reversed(value.items()))
        elif isinstance(value, list | tuple):
            waiting.extend(_Place(inner, index, here, here.of_keras) for index, inner in _reversed(value))
    limits.check("layers", layers, f"the config at {place} has too many objects")
    yield from _check_size(declared, parameters, place)


def is_known(record: Mapping[str, Any]) -> bool:
    """Whether a record names a class or function of Keras' own, or a plain value."""
    name, module = record.get("class_name"), record.get("module")
    if not isinstance(name, str) or not isinstance(module, str | None):
        return False
    if name in _VALUES:
        return True
    if name == "function":
        return _is_function(module, record.get("config"))
    if name in _FOREIGN_LAYERS or name in _FUNCTION_LAYERS:
        return False
    return _is_class(module, name)


# --- records


def _check_record(here: _Place) -> Iterator[Problem]:
    record = here.value
    name, module, registered = record["class_name"], record.get("module"), record.get("registered_name")
    if not isinstance(name, str) or not all(isinstance(text, str | None) for text in (module, registered)):
        yield Problem("malformed-config", "a record whose names are no text", str(here))
    elif name == "__lambda__":
        yield _code(here)
    elif name == "__typespec__":
        if not _begins(str(module), ("tensorflow.", "keras.")):
            yield Problem("foreign-module", f"a type of the module {_shown(module)}", str(here))
    elif name in _FOREIGN_LAYERS:
        yield Problem("foreign-layer", f"a {name}", str(here))
    elif name in _FUNCTION_LAYERS:
        yield Problem("function-layer", f"a {name}", str(here))
    elif name not in _VALUES:
        yield from _check_name(here, name, module, registered)
        yield from _check_calls(here, record.get("inbound_nodes"))
        inner = record.get("config")
        if name not in _NETWORKS and isinstance(inner, int | float | list):
            yield Problem("malformed-config", f"a {name[:80]} whose config is {_shown(inner)}", str(here))
        if name in _NETWORKS and not all(
            isinstance(layer, dict) and "class_name" in layer for layer in _layers_of(record)
        ):
            yield Problem("malformed-config", f"a {name} model of other things than layers", str(here))
        if isinstance(inner, dict) and name in _SPECIAL:
            yield from _SPECIAL[name](here, inner)


def _check_name(here: _Place, name: str, module: str | None, registered: str | None) -> Iterator[Problem]:
    kind = "class"
    if name == "function":
        kind, name = "function", here.value.get("config")
        if not isinstance(name, str):
            yield Problem("malformed-config", "a function without a name", str(here))
            return
    known = _is_function(module, name) if kind == "function" else _is_class(module, name)
    if not known:
        yield _unknown(here, kind, module, name)
    elif registered not in (None, name, "function"):
        message = f"{_shown(name)} of Keras, registered as {_shown(registered)}"
        yield Problem("registered-name", message, str(here))


def _unknown(here: _Place, kind: str, module: str | None, name: str) -> Problem:
    what = f"the {kind} {_shown(name)}" + (f" of {_shown(module)}" if module else "")
    root = (module or "").partition(".")[0]
    if (kind == "function" or module == "builtins") and name in _PYTHON:
        return Problem("foreign-module", what, str(here))
    if root in sys.stdlib_module_names and module != "builtins" and root != "__main__":
        return Problem("foreign-module", what, str(here))
    if module == "builtins" and kind == "class":
        return Problem("foreign-module", what, str(here))
    inside = _inside_keras(module)
    if inside is not None:
        is_part = bool(_HOMES & set(inside.split("."))) and kind == "class" and name[:1].isupper()
        return Problem("custom-object" if is_part else "gadget", what, str(here))
    return Problem("custom-object", what, str(here))


def _check_lambda(here: _Place, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Keras 2 writes code as a list of text, defaults and closure; a name together with its module."""
    for argument in ("function", "output_shape", "mask"):
        value, kind = config.get(argument), config.get(f"{argument}_type")
        is_code = isinstance(value, list | tuple) and any(isinstance(item, str) for item in value)
        if is_code or (kind == "lambda" and value is not None) or _is_tuple_of_code(value):
            yield _code(here)
        elif isinstance(value, str):
            module = config.get("module" if argument == "function" else f"{argument}_module")
            module = module if isinstance(module, str) else None
            if not _is_function(module, value) or module == "builtins":
                yield _unknown(here, "function", module, value)


def _is_tuple_of_code(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__tuple__"


def _check_operation(here: _Place, config: Mapping[str, Any]) -> Iterator[Problem]:
    name = config.get("function")
    if not isinstance(name, str):
        yield Problem("malformed-config", "an operation without a name", str(here))
        return
    parts = [part for part in name.split(".") if part not in ("tf", "tensorflow", "compat", "v1", "v2")]
    reads = parts[:1] == ["io"] and not _begins(".".join(parts[1:]), _TF_PURE_IO)
    if reads or _TF_OUTSIDE & set(parts):
        yield Problem("tensorflow-operation", f"tf.{_shown(name)}", str(here))


def _check_node(here: _Place, config: Mapping[str, Any]) -> Iterator[Problem]:
    node = config.get("node_def")
    text = node if isinstance(node, str) else json.dumps(node)
    for operation in _NODE_OPERATION.findall(text):
        if operation in _TF_NODES:
            yield Problem("tensorflow-operation", f"the operation {operation}", str(here))


_SPECIAL = {
    "Lambda": _check_lambda,
    "TFOpLambda": _check_operation,
    "ClassMethod": _check_operation,
    "TensorFlowOpLayer": _check_node,
}


def _code(here: _Place) -> Problem:
    message = "a lambda as bytecode: give its function a name, build the model by code and load the weights into it"
    return Problem("code-by-value", message, str(here))


# --- networks


def _layers_of(record: Mapping[str, Any]) -> Sequence[Any]:
    """What a model is made of: Sequential models of Keras before 2.3 have it in the place of their config."""
    inner = record.get("config")
    layers = inner.get("layers", []) if isinstance(inner, dict) else inner
    return layers if isinstance(layers, list) else [layers]


def _calls(record: Mapping[str, Any]) -> int:
    calls = record.get("inbound_nodes")
    return len(calls) if isinstance(calls, list) else 0


def _check_calls(here: _Place, calls: Any) -> Iterator[Problem]:
    """A layer that is fed with constants alone is no part of a network: Keras would compute with them at load."""
    if not isinstance(calls, list | None):
        yield Problem("malformed-config", "a layer whose calls are no list", str(here))
    elif any(call and not _takes_an_output(call) for call in calls or ()):
        yield Problem("malformed-config", "a layer that is called without another layer's output", str(here))


def _takes_an_output(call: Any) -> bool:
    """Whether a call names a layer: as Keras 3 does in a record, or as a list of name, node and tensor."""
    waiting = [call]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            if (
                len(value) > 2
                and isinstance(value[0], str)
                and value[0] != "_CONSTANT_VALUE"
                and isinstance(value[1], int)
            ):
                return True
            waiting.extend(value)
        elif isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                return True
            waiting.extend(value.values())
    return False


# --- texts


def _check_text(here: _Place) -> Iterator[Problem]:
    text, key = here.value, here.key
    if is_code(text):
        if not _is_of_lambda(here):
            yield _code(here)
    elif key == "name":
        if ".." in re.split(r"[/\\]", text) or "\0" in text or "\\" in text or text.startswith("/"):
            yield Problem("layer-name", f"the name {_shown(text)}", str(here))
    elif key in _FILE_ARGUMENTS and text:
        yield Problem("file-argument", f"{key} is {_shown(text)}", str(here))
    elif isinstance(key, str) and key not in _FREE_TEXT and _OUTSIDE.match(text):
        yield Problem("file-argument" if here.of_keras else "outside-reference", f"{key} is {_shown(text)}", str(here))


def _is_of_lambda(here: _Place) -> bool:
    """Whether the code is that of a lambda which was told already, as a record or as a Lambda layer's function."""
    above: list[_Place] = []
    while here.holder is not None and len(above) < 3:
        here = here.holder
        above.append(here)
    names = [place.value.get("class_name") for place in above if isinstance(place.value, dict)]
    return "__lambda__" in names or ("Lambda" in names and len(above) == 3 and above[0].key == "function")


def is_code(text: str) -> bool:
    """Whether a text is a marshalled code object: type ``c``, then counts of arguments, which are small.

    Keras wrote it as base64, and before 2.0.9 as the bytes themselves.
    """
    if not _BASE64.fullmatch(text):
        return _MARSHALLED.match(text) is not None
    try:
        start = base64.b64decode("".join(text[:16].split())[:8])
    except binascii.Error:
        return False
    return start[0] & 0x7F == ord("c") and start[2:5] == b"\0\0\0"


# --- sizes


def most_numbers(parameters: int | None) -> int:
    """The most numbers that layers may have whose file holds ``parameters`` of them; None where it holds no weights."""
    return _MANY if parameters is None else _PACKED * parameters + _FEW


def _check_size(declared: int, parameters: int | None, place: str) -> Iterator[Problem]:
    if declared > most_numbers(parameters):
        held = "it holds none" if parameters is None else f"it holds {parameters:,}"
        yield Problem(DECLARED_SIZE, f"layers of at least {declared:,} numbers, and {held}", place)


def _least(record: Mapping[str, Any]) -> int:
    """The fewest numbers that a layer has once it is built."""
    config = record.get("config")
    if not isinstance(config, dict):
        return 0
    shape = _last(record.get("build_config"))
    match record["class_name"]:
        case "Embedding":
            return _whole(config.get("input_dim")) * _whole(config.get("output_dim"))
        case "Dense" | "NoisyDense":
            return _whole(config.get("units", config.get("output_dim"))) * max(1, shape)
        case "LSTM" | "LSTMCell" | "CuDNNLSTM":
            return 4 * _whole(config.get("units", config.get("output_dim"))) ** 2
        case "GRU" | "GRUCell" | "CuDNNGRU":
            return 3 * _whole(config.get("units", config.get("output_dim"))) ** 2
        case "SimpleRNN" | "SimpleRNNCell":
            return _whole(config.get("units", config.get("output_dim"))) ** 2
        case "Conv1D" | "Conv2D" | "Conv3D" | "Conv1DTranspose" | "Conv2DTranspose" | "Conv3DTranspose":
            return _whole(config.get("filters", config.get("nb_filter"))) * _all(config.get("kernel_size"))
        case "MultiHeadAttention":
            return _whole(config.get("num_heads")) * _whole(config.get("key_dim"))
        case "InputLayer":
            numbers = _all(config.get("batch_shape", config.get("batch_input_shape")))
            return 0 if numbers <= _LARGEST else numbers
        case "Reshape" | "RepeatVector" | "CategoryEncoding" | "Hashing" | "ZeroPadding2D" | "UpSampling2D":
            largest = max(map(_all, config.values()), default=0)
            return 0 if largest <= _LARGEST else largest
    return 0


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _all(shape: Any) -> int:
    """The numbers in a shape, unknown lengths left out."""
    lengths: Iterable[Any] = shape if isinstance(shape, list | tuple) else (shape,)
    return prod(length for length in lengths if isinstance(length, int) and length > 0)


def _last(build_config: Any) -> int:
    shape = build_config.get("input_shape") if isinstance(build_config, dict) else None
    return _whole(shape[-1]) if isinstance(shape, list) and shape else 0


# --- names


@cache
def _names() -> dict[str, Any]:
    names: dict[str, Any] = json.loads(Path(__file__).with_name("keras_names.json").read_text(encoding="utf-8"))
    names["legacy_classes"] = frozenset(names["legacy_classes"])
    names["legacy_functions"] = frozenset(names["legacy_functions"])
    return names


def _is_class(module: str | None, name: str) -> bool:
    """Keras 2 gives no module, or one of many; Keras 3 the one that the class is in, but none in HDF5."""
    names = _names()
    if module is None:
        own = name.removeprefix("Custom>") in _OPTIMIZERS
        return own or name in names["legacy_classes"] or name in names["classes"]
    if module in names["classes"].get(name, ()):
        return True
    return name in names["legacy_classes"] and _inside_keras(module) is not None


def _is_function(module: str | None, name: Any) -> bool:
    names = _names()
    if not isinstance(name, str) or not (module in (None, "builtins") or _inside_keras(module) is not None):
        return False
    return name in names["legacy_functions"] or name in names["functions"]


def _inside_keras(module: str | None) -> str | None:
    """A module of any Keras without the package's name, or None for another module."""
    for root in _KERAS if module else ():
        if f"{module}.".startswith(root):
            return f"{module}."[len(root) :].removesuffix(".")
    return None


def _begins(text: str, starts: Iterable[str]) -> bool:
    return text.startswith(tuple(starts))


def _reversed(values: list[Any] | tuple[Any, ...]) -> Iterator[tuple[int, Any]]:
    return zip(range(len(values) - 1, -1, -1), reversed(values), strict=True)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
