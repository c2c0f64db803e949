"""ONNX: from TensorFlow's graph by tf2onnx, or from PyTorch's by its own exporter.

TensorFlow's graph is frozen first. Left to itself tf2onnx takes constants that a layer captured (the mean of a
``Normalization``) for inputs, and its names of lengths change from run to run.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from modelkeep.errors import UsageError
from modelkeep.live.writing.tracing import answers, frozen, quiet, tensors
from modelkeep.manifest import Signature, TensorSpec
from modelkeep.report import Finding, several

ROUTES = {"tensorflow": ("tensorflow", "tf2onnx"), "torch": ("torch", "onnxscript")}  # backend → modules it needs
OPSET = 18  # of the operators; every runtime since 2023 knows it
_BATCH = "batch"
# TensorFlow's operator → ONNX', and the difference of 1 and what that gives.
_REPLACED = {"Erfc": ("Erf", "one", "found"), "Expm1": ("Exp", "found", "one")}


def write(model: keras.Model, path: Path, *, form: str, signature: Signature) -> tuple[Finding, ...]:
    """Write an ``.onnx`` file. Raises UsageError for a model that ONNX has no operators for."""
    import onnx

    graph = _by_tensorflow(model, signature) if keras.backend.backend() == "tensorflow" else _by_torch(model, signature)
    _replace_operators(graph)
    _check_operators(graph)
    _name_lengths(graph.graph, signature)
    try:
        onnx.save(graph, str(path))
    except ValueError as error:
        raise UsageError("this model is too large for one ONNX file, which holds 2 GiB", found=error) from error
    return ()


def _by_tensorflow(model: keras.Model, signature: Signature) -> Any:
    from tf2onnx import convert

    with quiet("tf2onnx"):
        function = frozen(model, signature)
        inputs, outputs = tensors(function, signature)
        graph, _ = convert.from_graph_def(
            function.graph.as_graph_def(add_shapes=True),
            name=model.name,
            input_names=list(inputs.values()),
            output_names=list(outputs.values()),
            opset=OPSET,
            tensors_to_rename={tensor: name for name, tensor in (*inputs.items(), *outputs.items())},
        )
    return graph


def _by_torch(model: keras.Model, signature: Signature) -> Any:
    import torch

    answer = answers(model, signature)

    class Flat(torch.nn.Module):  # type: ignore[misc]
        """Tensors in the order of the signature's inputs to tensors in that of its outputs."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> tuple[Any, ...]:
            return tuple(answer(*inputs).values())

    unknown = [
        {axis: torch.export.Dim.DYNAMIC for axis, length in enumerate(spec.shape or ()) if length is None}
        for spec in signature.inputs
    ]
    with torch.no_grad(), warnings.catch_warnings(), quiet("torch", "onnxscript"):
        warnings.simplefilter("ignore")  # of the exporter to its makers
        exported = torch.onnx.export(
            Flat().eval(),
            tuple(_example(spec) for spec in signature.inputs),
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            opset_version=OPSET,
            dynamic_shapes=(tuple(unknown),),
            dynamo=True,
            verbose=False,
        )
    return exported.model_proto


def _example(spec: TensorSpec) -> Any:
    """Zeros to trace with. Lengths of 0 and 1 would be taken for constants."""
    import torch

    return torch.zeros(
        [2 if length is None else length for length in spec.shape or ()], dtype=getattr(torch, spec.dtype)
    )


def _replace_operators(graph: Any) -> None:
    """Make what tf2onnx knows no operators for of those that ONNX has: GELU needs Erfc, CELU needs Expm1."""
    from onnx import helper

    for inner in _graphs(graph):
        nodes = list(inner.node)
        del inner.node[:]
        for node in nodes:
            if node.op_type not in _REPLACED:
                inner.node.append(node)
                continue
            (x,), (y,) = node.input, node.output
            operator, minuend, subtrahend = _REPLACED[node.op_type]
            values = {"one": f"{y}/one", "found": f"{y}/found"}
            inner.node.extend(
                [
                    helper.make_node("Constant", [], [f"{y}/float"], value_float=1.0),
                    helper.make_node("CastLike", [f"{y}/float", x], [values["one"]]),
                    helper.make_node(operator, [x], [values["found"]]),
                    helper.make_node("Sub", [values[minuend], values[subtrahend]], [y]),
                ]
            )


def _check_operators(graph: Any) -> None:
    """Raise UsageError where the graph has operators that ONNX does not: converters leave in what they do not know."""
    from onnx import defs

    unknown = Counter(
        node.op_type for node in _nodes(graph) if node.domain in ("", "ai.onnx") and not defs.has(node.op_type)
    )
    if unknown:
        raise UsageError(
            "ONNX has no operators for a part of this model, such as text and tables",
            found=several(sorted(unknown)),
            hint="write it as saved_model, or split off that part: it can be a step of a pipeline",
        )


def _nodes(graph: Any) -> Iterator[Any]:
    return (node for inner in _graphs(graph) for node in inner.node)


def _graphs(graph: Any) -> Iterator[Any]:
    """The graph, and those in the attributes of its nodes."""
    waiting = [graph.graph]
    while waiting:
        inner = waiting.pop()
        waiting += [attribute.g for node in inner.node for attribute in node.attribute if attribute.HasField("g")]
        yield inner


def _name_lengths(graph: Any, signature: Signature) -> None:
    """Give each unknown length a name that says what it is, the same at every export."""
    del graph.value_info[:]  # hints about values inside, by the converter's own names
    specs = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    for value in (*graph.input, *graph.output):
        _name_lengths_of(value, specs[value.name])


def _name_lengths_of(value: Any, spec: TensorSpec) -> None:
    for axis, length in enumerate(value.type.tensor_type.shape.dim):
        if length.HasField("dim_param") or not length.HasField("dim_value"):
            length.dim_param = _BATCH if axis == 0 else f"{spec.name}_{axis}"
