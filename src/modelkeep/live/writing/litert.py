"""LiteRT (``.tflite``), by TensorFlow's converter, of operators that every LiteRT runtime has.

LiteRT has no lists of tensors, which loops over time need. So recurrent layers are traced step by step, where the
number of steps is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from modelkeep.errors import UsageError
from modelkeep.live import internals
from modelkeep.live.writing.tracing import frozen, named, quiet
from modelkeep.manifest import Signature
from modelkeep.report import Finding

ROUTES = {"tensorflow": ("tensorflow",)}  # backend → modules it needs


def write(model: keras.Model, path: Path, *, form: str, signature: Signature) -> tuple[Finding, ...]:
    """Write a ``.tflite`` file. Raises UsageError for a model that LiteRT has no operators for."""
    import tensorflow as tf

    with quiet(), _unrolled(model):
        function = named(frozen(model, signature), signature)
        # The converter looks at what it is given beside the function, though everything is constant.
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            path.write_bytes(converter.convert())
        except Exception as error:
            raise _no_operators(error) from error
    return ()


def _no_operators(error: Exception) -> UsageError:
    """Of the pages that the converter prints, the lines that tell why."""
    reasons = dict.fromkeys(re.findall(r"error: (?!failed while)(.{1,200})", str(error)))
    return UsageError(
        "LiteRT has no operators for a part of this model",
        found="; ".join(reasons) or " ".join(str(error).split())[-300:],
        hint="write it as onnx or saved_model",
    )


@contextmanager
def _unrolled(model: keras.Model) -> Iterator[None]:
    """Recurrent layers unrolled while they are traced, and as they were afterwards.

    Raises UsageError, inside, for one whose number of steps is not known.
    """
    layers = [node for _, node in internals.walk(model) if isinstance(node, keras.layers.RNN)]
    before = [layer.unroll for layer in layers]
    for layer in layers:
        layer.unroll = True
    try:
        yield
    except ValueError as error:
        if "Cannot unroll a RNN" not in str(error):
            raise
        raise UsageError(
            "LiteRT has no loops over time, and this model takes sequences of any length",
            expected="a number of steps",
            hint="declare it: keras.Input((80,)); or write it as onnx",
        ) from error
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.unroll = was
