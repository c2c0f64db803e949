"""Weights alone, in the four forms that hold them.

===================== =================================================================================================
``weights_h5``        as Keras 3 writes it; the optimizer's state is in it, if the model is compiled
``legacy_weights_h5`` the layout of Keras 1 and 2, which ``load_weights`` of all versions reads, by order and by name
``safetensors``       by name, ``encoder/query/kernel``; the bytes depend on nothing but the model and Keras' version
``npz``               likewise, in a zip of arrays; NumPy knows no bfloat16 and no float8, so they are refused
===================== =================================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np

from modelkeep.errors import UsageError
from modelkeep.formats.forms import open_contents
from modelkeep.live import internals
from modelkeep.live.golden import Predict, outputs_of
from modelkeep.live.reading import weights as reading
from modelkeep.live.tensors import EXOTIC, Array, numpy_dtype
from modelkeep.live.variables import Inventory, inventory, stored_dtype, view
from modelkeep.live.writing import keras_archive, plain
from modelkeep.manifest import Signature
from modelkeep.report import Finding, several

BACKENDS = ("tensorflow", "jax", "torch")
_HEADER_LIMIT = 64_512  # bytes of one attribute, of the 64 KiB that HDF5 has for all of an object


def write(model: keras.Model, path: Path, *, form: str, signature: Signature | None = None) -> tuple[Finding, ...]:
    """Write the weights; the findings say what is left behind. Raises UsageError for dtypes the form does not know."""
    found = inventory(internals.walk(model))
    _WRITERS[form](model, found, path)
    return (*_left_behind(model, found, form), *plain.not_held(found, "a file of weights"))


def reopen(path: Path, *, form: str, model: keras.Model) -> Predict:
    """What a new model of this config answers with the weights of the file."""
    made = keras_archive.copy_of(model)
    with open_contents(path) as contents:
        reading.read(contents, into=made)
    return partial(outputs_of, made)


def _left_behind(model: keras.Model, found: Inventory, form: str) -> tuple[Finding, ...]:
    left = {
        "the architecture": True,
        "the optimizer's state": form != "weights_h5" and model.compiled and model.optimizer.built,
        "vocabularies and other files of layers": any(hasattr(node, "save_assets") for _, node in found.nodes),
        f"what layers save by themselves ({several(list(found.arrays))})": form != "weights_h5" and found.arrays,
    }
    return tuple(plain.note(f"weights alone leave behind {what}") for what, applies in left.items() if applies)


def _write_keras3(model: keras.Model, found: Inventory, path: Path) -> None:
    model.save_weights(path)


# --- by name


def _arrays(model: keras.Model, found: Inventory) -> dict[str, Array]:
    """The weights by the names that they have in a file, in the order of the model."""
    variables = {place: v for place, v in found.variables.items() if place.startswith("weights/")}
    names = reading.names_of(model, variables)
    return {names[place]: _array(variable) for place, variable in variables.items()}


def _array(variable: internals.Variable) -> Array:
    values, dtype = view(variable), numpy_dtype(stored_dtype(variable))
    return values if values.dtype == dtype else values.view(dtype)


def _write_npz(model: keras.Model, found: Inventory, path: Path) -> None:
    arrays = _arrays(model, found)
    odd = [name for name, array in arrays.items() if array.dtype.name in EXOTIC]
    if odd:
        raise UsageError(
            "NumPy's files have no word for a dtype of this model",
            found=f"{arrays[odd[0]].dtype.name} ({several(odd)})",
            hint="write it as safetensors or weights_h5",
        )
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


# The format's word for each dtype, as its documentation lists them.
_WORDS = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


def _write_safetensors(model: keras.Model, found: Inventory, path: Path) -> None:
    """Eight bytes of the header's length, the header as JSON, the tensors without a gap.

    The package of that name writes its metadata in an order that changes from run to run.
    https://huggingface.co/docs/safetensors
    """
    arrays = _arrays(model, found)
    metadata = {
        "format": "keras",
        "keras_version": keras.version(),
        "model": model.name,
        "names": "layers and variable",
    }
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        word = _WORDS[array.dtype.name]
        header[name] = {"dtype": word, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


# --- the layout of Keras 1 and 2


def _write_legacy(model: keras.Model, found: Inventory, path: Path) -> None:
    import h5py

    odd = [v.path for v in model.weights if stored_dtype(v) in EXOTIC]
    if odd:
        raise UsageError("the old layout has no such dtype", found=several(odd), hint="write weights_h5")
    with h5py.File(path, "w") as file:
        _write_names(file, "layer_names", [layer.name for layer in model.layers])
        file.attrs["backend"] = keras.backend.backend().encode()
        file.attrs["keras_version"] = keras.version().encode()
        for layer in model.layers:
            _write_group(file.create_group(layer.name), [*layer.trainable_weights, *layer.non_trainable_weights])
        own = internals.own_variables(model)
        if own:
            _write_group(file.create_group("top_level_model_weights"), own)


def _write_group(group: object, variables: Sequence[internals.Variable]) -> None:
    """One layer: its weights in order, each under the name that Keras 2 would have given it."""
    names: list[str] = []
    for variable in variables:
        path = f"{variable.path}:0"
        number = 1
        while path in names:
            path = f"{variable.path}_{number}:0"
            number += 1
        names.append(path)
        group.create_dataset(path, data=_array(variable))  # type: ignore[attr-defined]
    _write_names(group, "weight_names", names)


def _write_names(owner: object, attribute: str, names: Sequence[str]) -> None:
    """A list of names as an attribute, or as several numbered ones where it is too long for one."""
    encoded = np.array([name.encode() for name in names]) if names else np.array([], "S1")
    pieces = -(-encoded.nbytes // _HEADER_LIMIT)
    attrs = owner.attrs  # type: ignore[attr-defined]
    if pieces <= 1:
        attrs[attribute] = encoded
        return
    for index, piece in enumerate(np.array_split(encoded, pieces + 1)):
        attrs[f"{attribute}{index}"] = piece


_WRITERS: dict[str, Callable[[keras.Model, Inventory, Path], None]] = {
    "weights_h5": _write_keras3,
    "legacy_weights_h5": _write_legacy,
    "safetensors": _write_safetensors,
    "npz": _write_npz,
}
