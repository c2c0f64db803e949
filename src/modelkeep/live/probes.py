"""Made-up inputs for a model that came without examples, so that there is always something to compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from modelkeep.live import internals
from modelkeep.live.arrays import Array, mapped
from modelkeep.live.tensors import numpy_dtype
from modelkeep.manifest import Signature, TensorSpec

_PROBES = 2
_SEED = 20
_TEXTS = ("a quick brown fox", "jumps over it")


def probes(model: keras.Model, signature: Signature | None) -> Any:
    """Two example inputs of the signature's shapes and dtypes, nested as it says; always the same ones.

    Floats are normally distributed. Integers lie within the table of the ``Embedding`` they go to, or are 0 and 1.
    Unknown lengths are 16, or 64 for images. None where a shape is not known at all.
    """
    if signature is None or any(spec.shape is None for spec in signature.inputs):
        return None
    limits = _limits(model)
    made = {spec.name: _made_up(spec, index, limits) for index, spec in enumerate(signature.inputs)}
    return mapped(made.__getitem__, signature.input_structure)


def _made_up(spec: TensorSpec, seed: int, limits: Mapping[str | None, int]) -> Array:
    assert spec.shape is not None
    unknown = 64 if len(spec.shape) >= 4 else 16
    lengths = (_PROBES, *(unknown for _ in spec.shape[1:]))
    shape = tuple(length if known is None else known for known, length in zip(spec.shape, lengths, strict=False))
    random = np.random.default_rng(_SEED + seed)
    if spec.dtype == "string":
        return np.array([_TEXTS[index % len(_TEXTS)] for index in range(int(np.prod(shape)))], dtype=str).reshape(shape)
    if spec.name in limits or "int" in spec.dtype or spec.dtype == "bool":
        limit = limits.get(spec.name) or min(limits.values(), default=256 if spec.dtype == "uint8" else 2)
        dtype = spec.dtype if "float" not in spec.dtype else "int32"
        return random.integers(0, 2 if dtype == "bool" else limit, shape).astype(dtype)
    return random.standard_normal(shape).astype(numpy_dtype(spec.dtype))


def _limits(model: keras.Model) -> dict[str | None, int]:
    """For each input that goes straight to a table, by name, the rows of the smallest; under None, of the others."""
    limits: dict[str | None, int] = {}
    for _, node in internals.walk(model):
        rows = {keras.layers.Embedding: "input_dim", keras.layers.CategoryEncoding: "num_tokens"}.get(type(node))
        if rows is not None:
            source = _fed_by(node)
            limits[source] = min(getattr(node, rows) or 2, limits.get(source, 2**31 - 1))
    return limits


def _fed_by(layer: keras.Layer) -> str | None:
    try:
        return internals.made_by(layer.input)
    except (AttributeError, ValueError):
        return None
