"""OpenVINO IR: ``model.xml`` and ``model.bin`` in a folder, by OpenVINO's own readers of ONNX and TensorFlow.

ONNX comes first: what TensorFlow's reader makes of quantized layers is off by more than 1. ONNX' reader does not know
all loops, so models with recurrent layers go the other way.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras

from modelkeep.errors import UsageError
from modelkeep.live.writing import onnx
from modelkeep.live.writing.tracing import frozen, quiet, tensors
from modelkeep.manifest import Signature
from modelkeep.report import Finding

ROUTES = {"tensorflow": ("tensorflow",)}  # backend → modules it needs
NAME = "model.xml"


def write(model: keras.Model, path: Path, *, form: str, signature: Signature) -> tuple[Finding, ...]:
    """Write a folder of ``model.xml`` and ``model.bin``. Raises UsageError, and what OpenVINO raises."""
    import openvino

    # Its Python converters report what they do to their makers; reading a file does not.
    core = openvino.Core()
    with tempfile.TemporaryDirectory(prefix="modelkeep-") as folder:
        converted = _read(core, model, Path(folder), signature)
        openvino.save_model(converted, str(path / NAME), compress_to_fp16=False)
    return ()


def _read(core: Any, model: keras.Model, folder: Path, signature: Signature) -> Any:
    file = folder / "model.onnx"
    try:
        onnx.write(model, file, form="onnx", signature=signature)
        return core.read_model(str(file))
    except (ImportError, UsageError, RuntimeError):
        return _read_graph(core, model, folder / "model.pb", signature)


def _read_graph(core: Any, model: keras.Model, file: Path, signature: Signature) -> Any:
    with quiet():
        function = frozen(model, signature)
    file.write_bytes(function.graph.as_graph_def().SerializeToString())
    read = core.read_model(str(file))
    inputs, outputs = tensors(function, signature)
    for ports, names in ((read.inputs, inputs), (read.outputs, outputs)):
        by_tensor = {tensor: name for name, tensor in names.items()}
        for port in ports:
            found = [by_tensor[tensor] for tensor in port.get_names() if tensor in by_tensor]
            port.get_tensor().set_names(set(found))
    return read
