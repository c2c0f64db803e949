"""The variables of a model: their names in the store, and their memory out of and into each backend without a copy.

How each backend gives and takes memory (measured by address; ``tests/test_variables.py`` repeats it):

==========  ============================================  ====================================================
backend     out                                           in, from writable memory at a multiple of 64
==========  ============================================  ====================================================
tensorflow  buffer protocol; bfloat16 bit-cast to uint16  DLPack; bfloat16 as uint16, bit-cast back
jax         ``numpy.asarray``                             ``jax.device_put``, which aliases such memory
torch       ``Tensor.numpy``; bfloat16 as uint16          ``torch.from_numpy``; bfloat16 as uint16, viewed back
==========  ============================================  ====================================================

What does not fit (read-only or misaligned memory, a GPU, an exotic dtype) is copied instead: TensorFlow would
abort the process on a misaligned tensor, so alignment is checked here and nowhere assumed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from modelkeep.errors import NotFaithful
from modelkeep.live import internals
from modelkeep.live.tensors import EXOTIC, Array, numpy_dtype
from modelkeep.manifest import ALIGNMENT
from modelkeep.storage.blobs import TensorSource

if TYPE_CHECKING:
    from modelkeep.storage.protocol import Buffer

# --- names


@dataclass
class Inventory:
    """Every variable of a model by its tensor name, and who saves more than variables.

    ``weights/<path>/vars/<i>`` is what Keras' own files hold of a layer. ``optimizer/<path of the weight>/<slot>``
    is a slot of the compiled optimizer, ``optimizer/iteration`` what belongs to no weight; any other optimizer's
    path comes in between. ``state/…`` is everything else: seed generators, states of RNNs, metrics.
    """

    nodes: list[tuple[str, internals.Node]]
    variables: dict[str, internals.Variable] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)  # what classes with their own save_own_variables computed
    names: dict[int, str] = field(default_factory=dict)  # id of a variable → its name

    def add(self, name: str, variable: internals.Variable) -> None:
        """Take a variable in, unless another node answered for it before."""
        if id(variable) not in self.names:
            self.names[id(variable)] = name
            self.variables[name] = variable


def inventory(nodes: list[tuple[str, internals.Node]], saved: Mapping[str, str | None] | None = None) -> Inventory:
    """Name every variable that ``nodes`` (of :func:`internals.walk`) lead to; each is named once.

    ``saved`` are the paths of variables by the names they were stored under: a layer's own variables are then
    numbered as they were. (A layer quantized in place has them in another order than one built quantized.)
    """
    found = Inventory(nodes)
    for path, node in nodes:
        if internals.saves_itself(node):
            _add_saved_by_itself(found, path, node)
        elif not isinstance(node, keras.optimizers.Optimizer):
            root = f"{prefix(path, node)}/vars"
            for index, variable in enumerate(_in_order(internals.own_variables(node), root, saved or {})):
                found.add(f"{root}/{index}", variable)
    for path, node in nodes:
        if isinstance(node, keras.optimizers.Optimizer) and not internals.saves_itself(node):
            _add_slots(found, prefix(path, node), node)
    for path, node in reversed(nodes):  # children first: a model's `variables` holds theirs too
        left = (variable for variable in _reachable(node) if id(variable) not in found.names)
        for index, variable in enumerate(left):
            found.add(f"{under('state', path)}/{index}", variable)
    for path, node in nodes:
        if isinstance(node, internals.Trainer):
            for index, variable in enumerate(internals.compile_metrics(node)):
                found.add(f"{compiled_prefix(path)}/{index}", variable)
    return found


def _in_order(
    variables: list[internals.Variable], root: str, saved: Mapping[str, str | None]
) -> list[internals.Variable]:
    """The variables in the order they were saved in, where their names tell."""
    names = [own_name(saved.get(f"{root}/{index}")) for index in range(len(variables))]
    by_name = {own_name(variable.path): variable for variable in variables}
    told_apart = by_name.keys() == set(names) and len(by_name) == len(names)
    return [by_name[name] for name in names] if told_apart else variables


def own_name(path: str | None) -> str:
    """The last part of a variable's path, without the number of an automatic name."""
    return without_number((path or "").rpartition("/")[2])


def prefix(path: str, node: internals.Node) -> str:
    """Where the tensors of a node are named."""
    if isinstance(node, keras.optimizers.Optimizer):
        return under("optimizer", "" if path == "optimizer" else path)
    return under("state" if isinstance(node, keras.metrics.Metric) else "weights", path)


def compiled_prefix(path: str) -> str:
    """Where the metrics that ``compile`` made for the model at ``path`` are named."""
    return f"{under('state', path)}/compiled"


def under(root: str, path: str) -> str:
    """``path`` below ``root``; the model itself has an empty path."""
    return f"{root}/{path}" if path else root


def _add_slots(found: Inventory, root: str, optimizer: internals.Node) -> None:
    """Name an optimizer's variables by the weight each is a slot of.

    Their order differs between releases of Keras. Their own names begin with the path of the weight; where weights
    share a path, slots follow one another as the weights do.
    """
    weights: dict[str, list[str]] = {}
    for target in internals.optimizer_targets(optimizer) or ():
        path = target.path.replace("/", "_")
        weights.setdefault(path, []).append(found.names.get(id(target), target.path).removeprefix("weights/"))
    used: dict[tuple[str, str], int] = {}
    for variable in optimizer.variables:
        path, slot = _split_slot(variable.name, weights)
        count = used[path, slot] = used.get((path, slot), -1) + 1
        if path and count < len(weights[path]):
            found.add(f"{root}/{weights[path][count]}/{slot}", variable)
        else:
            found.add(f"{root}/{slot}" + (f"_{count}" if count else ""), variable)


def _split_slot(name: str, weights: Mapping[str, list[str]]) -> tuple[str, str]:
    path = name
    while "_" in path:
        path = path.rpartition("_")[0]
        if path in weights:
            return path, name[len(path) + 1 :]
    return "", without_number(name)


def without_number(name: str) -> str:
    """A variable's name without the number that makes an automatic name unique in its process."""
    return re.sub(r"_\d+$", "", name)


def _add_saved_by_itself(found: Inventory, path: str, node: internals.Node) -> None:
    store: dict[str, Any] = {}
    node.save_own_variables(store)
    for key, value in store.items():
        name = f"{prefix(path, node)}/vars/{key}"
        if isinstance(value, internals.Variable) and id(value) not in found.names:
            found.add(name, value)
        else:
            found.arrays[name] = value


def _reachable(node: internals.Node) -> Iterator[internals.Variable]:
    yield from getattr(node, "variables", ())
    for value in internals.attributes(node).values():
        if isinstance(value, _HOLDERS):
            yield from _within(value)


_HOLDERS = (internals.Variable, keras.random.SeedGenerator, list, tuple, dict)
_MOST_NESTED = 8


def _within(value: Any, depth: int = 0) -> Iterator[internals.Variable]:
    if isinstance(value, internals.Variable):
        yield value
    elif isinstance(value, keras.random.SeedGenerator):
        yield value.state
    elif depth < _MOST_NESTED:
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, _HOLDERS):
                yield from _within(inner, depth + 1)


# --- out


def source(name: str, variable: internals.Variable) -> TensorSource:
    """A variable as a tensor to be stored; its memory is read late and, where the backend can, not copied."""
    dtype = stored_dtype(variable)
    shape = tuple(int(length) for length in variable.shape)
    size = prod(shape) * numpy_dtype(dtype).itemsize
    return TensorSource(name, dtype, shape, size, lambda: bytes_of(view(variable)), variable.path, _copies(variable))


def _copies(variable: internals.Variable) -> bool:
    """Whether reading takes new memory: on another device than the CPU."""
    if keras.backend.backend() == "jax":
        devices = variable.value.devices()
        return len(devices) > 1 or any(device.platform != "cpu" for device in devices)
    return "cpu" not in str(getattr(variable.value, "device", "cpu")).lower()


def array_source(name: str, value: Any) -> TensorSource:
    """An array, tensor or number that a class computed for its own ``save_own_variables``.

    Raises NotFaithful for values that are no numbers: text has its place in ``save_assets``.
    """
    array = np.asarray(value if isinstance(value, np.ndarray) else keras.ops.convert_to_numpy(value))
    if array.dtype.hasobject or (array.dtype.kind in "USmMV" and array.dtype.name not in EXOTIC):
        raise NotFaithful(
            f"save_own_variables gave {name} a value that is no array of numbers",
            found=array.dtype,
            hint="keep text and other data in save_assets and load_assets",
        )
    return TensorSource(name, array.dtype.name, array.shape, array.nbytes, lambda: bytes_of(array))


def stored_dtype(variable: internals.Variable) -> str:
    """Keras' word for the bytes in memory; JAX and torch hold some dtypes in another than was asked for."""
    return str(keras.backend.standardize_dtype(variable.value.dtype))


def view(variable: internals.Variable) -> Array:
    """The variable's values as an array over its own memory where the backend lends it, else a copy.

    bfloat16 and the like may come as unsigned integers of the same size: the bits are what counts.
    """
    return _VIEWS[keras.backend.backend()](variable.value)


def bytes_of(array: Array) -> Buffer:
    """The array's bytes in C order and little-endian; its own memory where it is so already."""
    array = np.ascontiguousarray(array)
    if sys.byteorder == "big":
        array = array.byteswap()
    return array.reshape(-1).view(np.uint8).data if array.nbytes else b""


def _view_tensorflow(value: Any) -> Array:
    import tensorflow as tf

    try:
        if isinstance(value, tf.distribute.DistributedValues):  # of several replicas: what they come to together
            return np.asarray(internals.together(value))
        # What `read_value` does, at half its cost; thousands of small tensors are common.
        tensor = tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype)
        return np.asarray(memoryview(tf.bitcast(tensor, tf.uint16) if value.dtype == tf.bfloat16 else tensor))
    except (ValueError, TypeError, BufferError):  # a dtype or a device that lends no memory
        return np.asarray(value.numpy())


def _view_torch(value: Any) -> Array:
    import torch

    tensor = value.detach().cpu().contiguous()
    bits = {1: torch.uint8, 2: torch.uint16}
    dtype_name = keras.backend.standardize_dtype(tensor.dtype)
    return np.asarray((tensor.view(bits[tensor.itemsize]) if dtype_name in EXOTIC else tensor).numpy())


_VIEWS: Mapping[str, Callable[[Any], Array]] = {
    "tensorflow": _view_tensorflow,
    "torch": _view_torch,
    "jax": np.asarray,
    "numpy": np.asarray,
}

# --- in


def assign(variable: internals.Variable, values: Array, *, exact: bool = True, made_trainable: bool = False) -> None:
    """Make ``values`` the variable's value: their very memory where it is writable and aligned, else a copy.

    ``exact`` wants the very dtype; without it, as between backends, any that holds every value exactly.
    ``made_trainable`` is what ``trainable`` is to be said when the variable is made, which freezing it later does
    not change. Raises NotFaithful where shape or dtype differs.
    """
    shape = tuple(int(length) for length in variable.shape)
    if values.shape != shape:
        raise NotFaithful(f"{variable.path} has another shape", found=shape, expected=values.shape)
    values = _as_held(variable, values, exact=exact)
    sharding = internals.sharding(variable)
    tensor = _TENSORS[keras.backend.backend()](values) if sharding is None else _spread(values, sharding)
    if internals.is_uninitialized(variable):
        internals.initialize(variable, tensor, trainable=made_trainable)
    elif keras.backend.backend() == "torch":
        variable.value.data = tensor.data
    else:
        variable.assign(tensor)


def _spread(values: Array, sharding: Any) -> Any:
    """Values on several devices, each with its own part of them and no more."""
    import jax

    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def run_initializers(variables: Iterable[internals.Variable]) -> None:
    """Give those of ``variables`` that have no value yet the one they would have had anyway."""
    for variable in variables:
        if internals.is_uninitialized(variable):
            internals.run_initializer(variable)


def _as_held(variable: internals.Variable, values: Array, *, exact: bool) -> Array:
    """The values in the dtype that this backend holds the variable in."""
    held = numpy_dtype(held_dtype(variable))
    if values.dtype == held:
        return values
    wider = np.can_cast(values.dtype, held) or (values.dtype.kind in "iu" and held.kind in "iu")
    converted = values.astype(held) if wider and not exact else None
    if converted is None or not _same(converted, values):
        raise NotFaithful(
            f"{variable.path} has another dtype" if exact else f"{variable.path} cannot hold its saved values exactly",
            found=held.name,
            expected=values.dtype.name,
            hint=None if exact else "load it under the backend that saved it, or with the same dtype settings",
        )
    return converted


def _same(a: Array, b: Array) -> bool:
    return bool(np.array_equal(a.astype(b.dtype), b, equal_nan=b.dtype.kind in "fc"))


def held_dtype(variable: internals.Variable) -> str:
    """The dtype that this backend holds a variable in, which may be another than was asked for."""
    dtype = str(keras.backend.standardize_dtype(variable.dtype))
    backend = keras.backend.backend()
    if backend == "torch":  # it has no arithmetic for these, so Keras widens them
        return {"uint16": "int32", "uint32": "int64"}.get(dtype, dtype)
    if backend == "jax":
        import jax

        return str(jax.dtypes.canonicalize_dtype(numpy_dtype(dtype)).name)
    return dtype


def _lendable(values: Array, alignment: int = ALIGNMENT) -> bool:
    return (
        values.flags.c_contiguous and values.flags.writeable and values.ctypes.data % alignment == 0 and values.size > 0
    )


def _tensor_tensorflow(values: Array) -> Any:
    import tensorflow as tf

    dtype = tf.as_dtype(values.dtype)
    if not _lendable(values) or (values.dtype.name in EXOTIC and dtype != tf.bfloat16):
        return tf.convert_to_tensor(values, dtype)
    if dtype == tf.bfloat16:
        return tf.bitcast(tf.experimental.dlpack.from_dlpack(values.view(np.uint16).__dlpack__()), tf.bfloat16)
    return tf.experimental.dlpack.from_dlpack(values.__dlpack__())


def _tensor_jax(values: Array) -> Any:
    import jax

    return jax.device_put(values)


def _tensor_torch(values: Array) -> Any:
    import torch

    if not _lendable(values, values.dtype.itemsize):
        values = values.copy()
    if values.dtype.name in EXOTIC:
        bits = values.view({1: np.uint8, 2: np.uint16}[values.dtype.itemsize])
        tensor = torch.from_numpy(bits).view(getattr(torch, values.dtype.name))
    else:
        tensor = torch.from_numpy(values)
    return tensor.to(internals.torch_device())


_TENSORS: Mapping[str, Callable[[Array], Any]] = {
    "tensorflow": _tensor_tensorflow,
    "jax": _tensor_jax,
    "torch": _tensor_torch,
}
