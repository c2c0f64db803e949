"""The signature of an exported form: the model's own, in words that every form can hold."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from typing import Any

import keras
from msgspec.structs import replace

from modelkeep.live.arrays import Array, leaves, mapped
from modelkeep.live.golden import outputs_of
from modelkeep.live.writing.tracing import by_name
from modelkeep.manifest import Signature, TensorSpec

_RESERVED = {"self", "cls"}  # TensorFlow takes names of inputs for names of arguments


def interface(model: keras.Model, signature: Signature, inputs: Any) -> Signature:
    """``signature`` as every form can hold it; ``inputs`` are examples, nested as the model takes them.

    Names become plain words (ASCII letters, digits and ``_``), the same in every form and at every export; an output
    never has the name of an input. A model that declares no inputs (a Sequential or subclassed one, which
    takes floats by default) takes integers or text where the examples are. The number of rows of the first batch,
    which such a model takes for its own, is left open where the model answers another number.
    """
    words = _words(signature)
    open_rows = not has_open_rows(signature) and _answers(model, with_rows(inputs, rows(inputs) + 1))
    given = by_name(signature.input_structure, inputs)

    def spec(old: TensorSpec, word: str, array: Array | None) -> TensorSpec:
        shape = (None, *old.shape[1:]) if open_rows and old.shape else old.shape
        dtype = old.dtype if array is None or _declares(model) else _dtype(old.dtype, array)
        return replace(old, name=word, shape=shape, dtype=dtype)

    return Signature(
        inputs=tuple(spec(old, words["input", old.name], given[old.name]) for old in signature.inputs),
        outputs=tuple(spec(old, words["output", old.name], None) for old in signature.outputs),
        input_structure=mapped(lambda name: words["input", name], signature.input_structure),
        output_structure=mapped(lambda name: words["output", name], signature.output_structure),
    )


def _words(signature: Signature) -> dict[tuple[str, str], str]:
    """A word of its own for each input and output, by its side and name."""
    words: dict[tuple[str, str], str] = {}
    for side, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            taken = set(words.values())
            words[side, spec.name] = next(word for word in _candidates(spec.name, side) if word not in taken)
    return words


def _candidates(name: str, side: str) -> Iterator[str]:
    word = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not re.match("[A-Za-z]", word) or keyword.iskeyword(word) or word in _RESERVED:
        word = f"{side}_{word.lstrip('_')}"
    yield word
    yield f"{word}_{side}"
    number = 1
    while True:
        yield f"{word}_{side}_{number}"
        number += 1


def _declares(model: keras.Model) -> bool:
    return not isinstance(model, keras.Sequential) and bool(getattr(model, "inputs", None))


def _dtype(declared: str, array: Array) -> str:
    if "float" not in declared or array.dtype.kind not in "iubU":
        return declared
    return "string" if array.dtype.kind == "U" else array.dtype.name


# --- rows


def rows(inputs: Any) -> int:
    """How many rows nested arrays have: the length of their first axis."""
    return next((len(leaf) for leaf in leaves(inputs) if leaf.ndim), 1)


def has_open_rows(signature: Signature) -> bool:
    """Whether any number of rows will do."""
    return all(spec.shape is None or spec.shape[:1] == (None,) for spec in signature.inputs)


def with_rows(inputs: Any, count: int) -> Any:
    """Nested arrays with ``count`` rows each: repeated from the start, or cut."""
    return mapped(lambda array: array[[row % len(array) for row in range(count)]] if array.ndim else array, inputs)


def _answers(model: keras.Model, inputs: Any) -> bool:
    try:
        outputs_of(model, inputs)
    except Exception:  # noqa: BLE001 - whatever the model's code raises says that it does not take them
        return False
    return True
