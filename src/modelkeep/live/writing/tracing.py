"""What a model computes as a function of TensorFlow's, with inputs and outputs under the names of a signature.

From it come SavedModel, ONNX, LiteRT and OpenVINO. It answers as :func:`modelkeep.live.golden.outputs_of` does: what
layers would assign on the way (states of RNNs, seeds) is dropped, so that each call answers from the state the
model was in, and no form needs variables that change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from modelkeep.errors import UsageError
from modelkeep.live import internals
from modelkeep.live.arrays import mapped
from modelkeep.manifest import Signature

Function = Any  # of TensorFlow's: traced, with known inputs and outputs


def by_name(structure: Any, value: Any) -> dict[str, Any]:
    """The leaves of a nested value, under the names that the signature's ``structure`` has at their places."""
    if isinstance(structure, Mapping):
        found = [by_name(inner, value[key]) for key, inner in structure.items()]
    elif isinstance(structure, list):
        found = [by_name(inner, one) for inner, one in zip(structure, value, strict=True)]
    else:
        return {structure: value}
    return {name: leaf for part in found for name, leaf in part.items()}


def nested(structure: Any, values: Mapping[str, Any]) -> Any:
    """The inverse of :func:`by_name`."""
    return mapped(values.__getitem__, structure)


def specs(signature: Signature) -> list[Any]:
    """The inputs as TensorFlow specifies them, in the signature's order."""
    import tensorflow as tf

    return [tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in signature.inputs]


def answers(model: keras.Model, signature: Signature) -> Callable[..., dict[str, Any]]:
    """A Python function from tensors, in the order of the signature's inputs, to tensors by output name."""
    names = [spec.name for spec in signature.inputs]

    def serve(*tensors: Any) -> dict[str, Any]:
        inputs = nested(signature.input_structure, dict(zip(names, tensors, strict=True)))
        with keras.StatelessScope():
            return by_name(signature.output_structure, model(inputs, training=False))

    return serve


def frozen(model: keras.Model, signature: Signature) -> Function:
    """The same with every variable and captured value made a constant of the graph.

    Raises UsageError for a model with lookup tables, which no constant can hold.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    answer = answers(model, signature)

    def serve(*inputs: Any) -> dict[str, Any]:
        # A tensor of its own for each output, whatever else it is: an input that goes straight through.
        return {name: tf.identity(tensor, name=name) for name, tensor in answer(*inputs).items()}

    with internals.unchanged_randomness(), _inlined():
        traced = tf.function(serve, input_signature=specs(signature), autograph=False)
        # There is no public name for it; converters outside TensorFlow all use this one.
        function = convert_variables_to_constants_v2(traced.get_concrete_function(), lower_control_flow=False)
    if len(function.inputs) > len(signature.inputs):
        raise UsageError(
            "this model looks up text or numbers in tables, which only a SavedModel can hold",
            found=", ".join(tensor.op.name for tensor in function.inputs[len(signature.inputs) :]),
            hint="write it as saved_model, or split off that part: it can be a step of a pipeline",
        )
    return function


@contextmanager
def _inlined() -> Iterator[None]:
    """TensorFlow functions inside, such as those that Keras compiles for grouped convolutions, traced as plain code.

    Converters know no calls.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def named(function: Function, signature: Signature) -> Function:
    """A frozen function as one that gives its outputs by name."""
    import tensorflow as tf

    graph = function.graph.as_graph_def()
    for node in graph.node:
        # Functions with gradients of their own, SiLU for one, cannot be saved; nothing frozen is trained.
        node.attr.pop("_gradient_op_type", None)
    inputs, outputs = tensors(function, signature)

    def serve(*given: Any) -> dict[str, Any]:
        fed = dict(zip(inputs.values(), given, strict=True))
        found = tf.graph_util.import_graph_def(graph, fed, list(outputs.values()), name="")
        return dict(zip(outputs, found, strict=True))

    return tf.function(serve, input_signature=specs(signature), autograph=False).get_concrete_function()


def tensors(function: Function, signature: Signature) -> tuple[dict[str, str], dict[str, str]]:
    """Names of a frozen function's tensors by name of input and of output."""
    inputs = zip(signature.inputs, function.inputs, strict=True)
    # TensorFlow sorts the outputs by their keys.
    outputs = zip(sorted(spec.name for spec in signature.outputs), function.outputs, strict=True)
    return {spec.name: tensor.name for spec, tensor in inputs}, {name: tensor.name for name, tensor in outputs}


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """TensorFlow and other loggers told to say nothing below a crash: whoever calls judges the outcome."""
    found = [logging.getLogger(name) for name in ("tensorflow", "absl", *loggers)]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)
