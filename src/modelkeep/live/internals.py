"""Everything that reaches into Keras' non-public parts, with the reason beside each. No other module does.

Keras saves by walking from a model to all it holds, by names and an order of its own. Restoring to the bit
needs the same walk, the parts of ``compile`` that have no public name, and a way to make variables without
running their initializers. All of it works from Keras 3.6 on; ``tests/test_across_keras.py`` says so.
"""

from __future__ import annotations

import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from math import prod
from types import FunctionType
from typing import Any, TypeAlias

import keras
import keras.src.trainers.trainer
import numpy as np
from keras.src.backend.common import KerasVariable, global_state
from keras.src.saving import saving_lib, serialization_lib
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.trainers import data_adapters
from keras.src.trainers.data_adapters import (
    array_data_adapter,
    array_slicing,
    data_adapter_utils,
    py_dataset_adapter,
)
from keras.src.trainers.data_adapters.data_adapter import DataAdapter as DataAdapter
from keras.src.utils import naming

from modelkeep.errors import UnsafeContent, UsageError

Node: TypeAlias = Any
"""A KerasSaveable: a layer, model, metric, optimizer, loss; the class itself is not public."""

Variable: TypeAlias = KerasVariable
"""Any Keras variable; ``keras.Variable`` is a subclass of what Keras itself made in older releases."""

Trainer = keras.src.trainers.trainer.Trainer
"""Whatever can be compiled and trained: the mixin that all models have."""

_UNINITIALIZED = "uninitialized_variables"
_NAME_COUNTERS = "object_name_uids"
_SEED_GENERATOR = "global_seed_generator"
_RANDOM_SEED = "global_random_seed"


# --- the walk


def walk(root: Node) -> list[tuple[str, Node]]:
    """Every object Keras keeps state for, each once, with its path, parents first.

    Paths and order are those of Keras' own files (``layers/dense``), so that a tensor's name is the name a
    Keras user knows. What ``compile`` made is left to :func:`compile_metrics`, except optimizers.
    """
    found: list[tuple[str, Node]] = []
    seen: set[int] = set()

    def visit(path: str, node: Node) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        found.append((path, node))
        if isinstance(node, keras.optimizers.Optimizer):
            return  # an optimizer answers for the one it wraps
        if isinstance(node, Trainer):
            seen.update(id(made) for made in _made_by_compile(node))
        for attribute, child in _children(node):
            descend(f"{path}/{attribute}" if path else attribute, child)

    def descend(path: str, child: object) -> None:
        if isinstance(child, KerasSaveable):
            visit(path, child)
        elif id(child) not in seen:
            seen.add(id(child))
            kept.append(child)
            for name, item in _items(child):
                descend(f"{path}/{name}", item)

    kept: list[object] = []  # containers that properties make on the spot must not give their id to the next
    visit("", root)
    return found


def at_path(root: Node, path: str) -> Node | None:
    """What a path of Keras' files leads to; None where it leads nowhere.

    One object can be reached by several paths. Which of them a file has depends on the order in which the release
    that wrote it walked; :func:`walk` gives one.
    """
    here: object = root
    for name in filter(None, path.split("/")):
        children = _children(here) if isinstance(here, KerasSaveable) else _items(here)
        here = next((child for key, child in children if key == name), None)
        if here is None:
            return None
    return here if isinstance(here, KerasSaveable) else None


def _items(container: Any) -> Iterator[tuple[str, object]]:
    names: dict[str, int] = {}
    for item in container.values() if isinstance(container, dict) else container:
        if isinstance(item, _WITH_CHILDREN):
            yield _unique(_name_in_container(item), names), item


_WITH_CHILDREN = (KerasSaveable, list, tuple, dict)


def _children(node: Node) -> Iterator[tuple[str, object]]:
    kind = node._obj_type()
    if kind in ("Sequential", "Functional"):
        yield "layers", node.layers
    cls: Any = type(node)
    names = attributes(node).keys() | _class_attributes(cls)
    for name in sorted(names - _passed_over(kind), key=lambda name: (name.startswith("_"), name)):
        try:
            child = getattr(node, name)
        except Exception:  # noqa: BLE001 - a property of the user's, which may raise anything; Keras passes it by too
            continue
        if isinstance(child, _WITH_CHILDREN):
            yield name, child


@cache
def _class_attributes(cls: type) -> frozenset[str]:
    return frozenset(dir(cls))


@cache
def _passed_over(kind: str) -> frozenset[str]:
    # Private, and costly: Keras makes a layer to see which attributes every layer has.
    return frozenset(saving_lib.get_attr_skipset(kind)) | _class_attributes(object)


def _name_in_container(item: object) -> str:
    # Private, and not public elsewhere: names in containers are class names, because given names may be automatic.
    return naming.to_snake_case(type(item).__name__) if isinstance(item, KerasSaveable) else "container"


def _unique(name: str, used: dict[str, int]) -> str:
    used[name] = used.get(name, -1) + 1
    return f"{name}_{used[name]}" if used[name] else name


def take_names(names: Iterable[str]) -> None:
    """Keep Keras from choosing any of these for an operation that it makes by itself, such as for a mask.

    It counts the names that it chose, and not those it was given.
    """
    # Private, because there is no public way to say that a name is taken.
    counters = global_state.get_global_attribute(_NAME_COUNTERS, default=defaultdict(int), set_to_default=True)
    for name in names:
        base, _, number = name.rpartition("_")
        for prefix, least in ((name, 1), (base, int(number) + 1 if number.isdigit() else 0)):
            if prefix and least:
                counters[prefix] = max(counters[prefix], least)


def given_name(layer: keras.Layer) -> str | None:
    """A layer's name if somebody chose it. Keras' own choice, the class' name and a number, changes from run to run."""
    automatic = naming.to_snake_case(type(layer).__name__)
    # Wrappers put a word of their own before it: forward_lstm_1.
    return None if re.search(rf"(^|_){automatic}(_\d+)?$", layer.name) else str(layer.name)


def _made_by_compile(model: Node) -> list[Node]:
    # Private, because `model.metrics` holds only what is built already.
    made = (getattr(model, name, None) for name in ("_loss_tracker", "_compile_metrics", "_compile_loss"))
    return [part for part in made if part is not None]


# --- variables


def own_variables(node: Node) -> list[Variable]:
    """The variables a node answers for, in the order Keras' own files number them."""
    if isinstance(node, keras.Layer):
        # Private, because `weights` of a layer holds those of its inner layers too.
        return [*node._trainable_variables, *node._non_trainable_variables]
    if isinstance(node, keras.optimizers.Optimizer | keras.metrics.Metric):
        return list(node.variables)
    return []


def attributes(node: Node) -> dict[str, Any]:
    """A node's instance attributes; no property runs.

    Stateful RNNs keep their states, and layers their seed generators, where only the attributes lead to them.
    Under torch a layer is a ``torch.nn.Module``, which keeps what is one itself apart.
    """
    own = getattr(node, "__dict__", {})
    return {**own, **own["_modules"]} if "_modules" in own else own


def is_uninitialized(variable: Variable) -> bool:
    """Whether the variable was made by :func:`deferred` and has no value yet."""
    # Private, because `value` would run the initializer to have something to show.
    return variable._value is None


def tensorflow_texts() -> Any:
    """Where TensorFlow's workers leave texts for each other, and wait for those of others."""
    # Private: strategies are started by it, and give no way to exchange anything but tensors within a step.
    from tensorflow.python.eager import context

    return context.context()


def tensorflow_workers() -> tuple[int, int] | None:
    """How many workers a strategy of several began with in this process, and which this is; the chief is the first."""
    if "tensorflow" not in sys.modules:
        return None
    server = getattr(tensorflow_texts(), "_collective_ops_server_def", None)
    if server is None:
        return None
    jobs = {job.name: len(job.tasks) for job in server.cluster.job if job.name in ("chief", "worker")}
    rank = server.task_index + (jobs.get("chief", 0) if server.job_name == "worker" else 0)
    return sum(jobs.values()), int(rank)


def replicas(model: Node) -> int:
    """How many replicas of a model ``tf.distribute`` trains in this process; 1 without."""
    if keras.backend.backend() != "tensorflow":
        return 1
    return int(model.distribute_strategy.num_replicas_in_sync)


def shares(variable: Variable) -> list[Any]:
    """What each replica of ``tf.distribute`` holds of a variable that is their sum, as a metric's is; else nothing."""
    value = variable._value
    if keras.backend.backend() != "tensorflow" or not hasattr(value, "values"):
        return []
    import tensorflow as tf

    if value.synchronization != tf.VariableSynchronization.ON_READ:
        return []
    return [one.numpy() for one in value.values]


def together(value: Any) -> Any:
    """What a variable's replicas in this process come to. Asking it itself would be to ask all workers."""
    import tensorflow as tf

    shares = [one.numpy() for one in value.values]
    if value.synchronization != tf.VariableSynchronization.ON_READ:
        return shares[0]
    match value.aggregation:
        case tf.VariableAggregation.SUM:
            return np.sum(shares, axis=0, dtype=shares[0].dtype)
        case tf.VariableAggregation.MEAN:
            return np.mean(shares, axis=0, dtype=shares[0].dtype)
        case _:
            return shares[0]


def set_shares(variable: Variable, values: list[Any]) -> None:
    """Give each replica its own again; of as many replicas as then. Others share the sum evenly."""
    held = getattr(variable._value, "values", ())
    if len(held) == len(values):
        for one, value in zip(held, values, strict=True):
            one.assign(value)


def sharding(variable: Variable) -> Any:
    """How JAX spreads a variable over several devices, or will once it has a value; None where it lies on one."""
    if keras.backend.backend() != "jax":
        return None
    if not is_uninitialized(variable):
        found = variable.value.sharding
    elif (distribution := keras.distribution.distribution()) is not None:
        layout = distribution.get_variable_layout(variable)
        # Not in every Keras; without it the value passes through the first device.
        found = getattr(layout, "backend_layout", None)
    else:
        found = None
    return found if found is not None and len(found.device_set) > 1 else None


def initialize(variable: Variable, tensor: Any, *, trainable: bool) -> None:
    """Give a deferred variable its first value: ``tensor`` itself, of the backend's own kind, not a copy.

    ``trainable`` is what the variable was made with: TensorFlow's tape never again watches one that was made
    without, so a layer frozen before this could not be thawed after it.
    """
    now = variable.trainable
    variable.trainable = trainable
    if keras.backend.backend() == "torch":
        import torch

        tensor = torch.nn.Parameter(tensor, requires_grad=trainable)
    # Private, because `assign` needs a value to be there already.
    variable._initialize(tensor)
    variable._initializer = None
    variable.trainable = now


def made_trainable(nodes: list[tuple[str, Node]]) -> set[int]:
    """The ids of all variables that were made trainable, frozen since or not."""
    # Private: `trainable_weights` of a frozen layer is empty.
    return {
        id(variable) for _, node in nodes if isinstance(node, keras.Layer) for variable in node._trainable_variables
    }


def run_initializer(variable: Variable) -> None:
    """Give a deferred variable the value it would have had without :func:`deferred`."""
    # Private: Keras does it by itself only when a scope of its own ends.
    variable._deferred_initialize()


@contextmanager
def deferred() -> Iterator[list[Variable]]:
    """Inside, new variables run no initializer and take no memory; they are gathered in the list given.

    Whoever opens it gives each of them a value afterwards. ValueError comes from Keras inside where a variable
    is made from a value, not an initializer: build that model without this.
    """
    # Private, because the list to which StatelessScope adds such variables has no public name; a variable left
    # there would be initialised, or refused, at the end of a scope that has nothing to do with this one.
    before = global_state.get_global_attribute(_UNINITIALIZED)
    made: list[Variable] = []
    global_state.set_global_attribute(_UNINITIALIZED, made)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield made
    finally:
        global_state.set_global_attribute(_UNINITIALIZED, before)


@dataclass
class _Bound:
    """How many numbers the variables of a scope may still take; negative once they asked for more."""

    left: int


_bound: ContextVar[_Bound | None] = ContextVar("_bound", default=None)


@contextmanager
def bounded(most: int, what: str) -> Iterator[None]:
    """Inside, no variable is made once all of them have more than ``most`` numbers: no memory is taken for it.

    Raises UnsafeContent, which says so of ``what``, whatever Keras makes of that inside.
    """
    _count_variables()
    bound = _Bound(most)
    before = _bound.set(bound)
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
        if bound.left >= 0:
            raise
    finally:
        _bound.reset(before)
    if bound.left < 0:
        raise UnsafeContent(
            f"{what} declares layers far larger than its weights",
            found=f"at least {most - bound.left:,} numbers",
            expected=f"at most {most:,}",
            hint="if you trust it: allow 'declared-size'",
        ) from failure


@cache
def _count_variables() -> None:
    # Private, because nothing public is asked between a variable's shape and its memory. Once and for good: threads
    # that put it back could meet.
    validate = KerasVariable._validate_shape

    def counted(variable: Variable, shape: Any) -> Any:
        shape = validate(variable, shape)
        bound = _bound.get()
        if bound is not None:
            bound.left -= prod(shape)
            if bound.left < 0:
                raise UnsafeContent(f"a variable of the shape {tuple(shape)} is too large")
        return shape

    KerasVariable._validate_shape = counted


@contextmanager
def unchanged_after_error() -> Iterator[None]:
    """Put Keras' global state (scopes, name counters, policies) back as it was when the block raises."""
    # Private: there is no public way to read it.
    state = vars(global_state.GLOBAL_STATE_TRACKER)
    before = {name: _copied(value) for name, value in state.items()}
    try:
        yield
    except BaseException:
        state.clear()
        state.update(before)
        raise


def _copied(value: Any) -> Any:
    return value.copy() if type(value) in (dict, list) or hasattr(value, "default_factory") else value


@contextmanager
def unchanged_randomness() -> Iterator[None]:
    """Leave the random state of the process as it was: making layers draws seeds from it."""
    before = random.getstate()
    torch_before = torch_rng() if keras.backend.backend() == "torch" else None
    try:
        yield
    finally:
        random.setstate(before)
        if torch_before is not None:
            set_torch_rng(torch_before)


def draws_from_torch(node: Node) -> bool:
    """Whether a node's random numbers come from torch's global generator: Keras' dropout without a seed does so."""
    if keras.backend.backend() != "torch":
        return False
    generators = (value for value in attributes(node).values() if isinstance(value, keras.random.SeedGenerator))
    # Private: whether a seed was given is not in the public state.
    return any(generator._initial_seed is None for generator in generators)


def torch_rng() -> Any:
    """The state of torch's global CPU generator: a copy, uint8, 5,056 bytes."""
    import torch

    return torch.get_rng_state().numpy()


def set_torch_rng(state: Any) -> None:
    """Set the state of torch's global CPU generator."""
    import torch

    torch.set_rng_state(torch.from_numpy(state.copy()))


def global_seed_generator() -> keras.random.SeedGenerator | None:
    """Keras' global generator, if anything drew from it. It is of a thread."""
    # Private, because the public functions make it.
    return global_state.get_global_attribute(_SEED_GENERATOR)


def global_randomness() -> dict[str, Any]:
    """The seed given to ``keras.utils.set_random_seed``, and Keras' global generator if anything drew from it."""
    generator = global_seed_generator()
    return {
        "seed": global_state.get_global_attribute(_RANDOM_SEED),
        "generator": None
        if generator is None
        else {"name": generator.name, "state": keras.ops.convert_to_numpy(generator.state).copy()},
    }


def set_global_randomness(value: dict[str, Any]) -> None:
    """Put back what :func:`global_randomness` told."""
    saved, generator = value["generator"], None
    if saved is not None:
        generator = global_seed_generator() or keras.random.SeedGenerator(0, name=saved["name"])
        generator.state.assign(saved["state"])  # graphs that were traced with it hold this very variable
    global_state.set_global_attribute(_SEED_GENERATOR, generator)
    global_state.set_global_attribute(_RANDOM_SEED, value["seed"])


def train_graphs(model: Node) -> list[Any]:
    """The graphs (``FuncGraph``) that TensorFlow traced of a model's training step."""
    function = _outermost_traced(model.train_function, set())
    # Private, because a graph is public only to who knows the arguments it was traced with.
    traced = [] if function is None else function._list_all_concrete_functions()
    return [concrete.graph for concrete in traced]


def _outermost_traced(function: Any, seen: set[int]) -> Any:
    # Private: the train function that Keras shows calls it from within.
    if hasattr(function, "_list_all_concrete_functions"):
        return function
    if not isinstance(function, FunctionType) or id(function) in seen:
        return None
    seen.add(id(function))
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # a name that is not bound yet
            found = _outermost_traced(cell.cell_contents, seen)
            if found is not None:
                return found
    return None


def torch_device() -> Any:
    """Where Keras puts torch tensors now."""
    # Private, because `keras.device` sets it and nothing public reads it.
    from keras.src.backend.torch.core import get_device

    return get_device()


# --- whose methods save and load


def saves_itself(node: Node) -> bool:
    """Whether the node's class has its own ``save_own_variables`` or ``load_own_variables``.

    Keras' own are passed by, because some lose state (LoRA is merged into its kernel) and some copy; its
    lookup layers alone keep something there that is no variable.
    """
    if isinstance(node, keras.layers.StringLookup | keras.layers.IntegerLookup):
        return True
    return not (_is_keras(node, "save_own_variables") and _is_keras(node, "load_own_variables"))


def _is_keras(node: Node, method: str) -> bool:
    function = getattr(type(node), method, None)
    return function is None or function.__module__.startswith("keras.")


def saved_variables(node: Node) -> dict[str, Variable] | None:
    """The variables that Keras' files hold of a node, by the keys they have there; None where it reads them itself.

    The product of LoRA's matrices is written as part of the kernel; here it is the kernel alone.
    """
    if not hasattr(node, "save_own_variables"):
        return {}  # metrics: no release wrote what they count
    if saves_itself(node):
        return None
    lora = getattr(node, "lora_enabled", False)
    store: dict[str, Any] = {}
    try:
        if lora:
            node.lora_enabled = False
        node.save_own_variables(store)
    finally:
        if lora:
            node.lora_enabled = True
    return store if all(isinstance(value, KerasVariable) for value in store.values()) else None


def lora_variables(node: Node) -> list[Variable]:
    """The matrices of a layer with LoRA, which Keras' files do not hold apart from the kernel."""
    if not getattr(node, "lora_enabled", False):
        return []
    return [
        value
        for name, value in attributes(node).items()
        if name.startswith("lora_") and isinstance(value, KerasVariable)
    ]


def has_own_compile(model: Node) -> bool:
    """Whether the class replaces ``compile`` and leaves Keras no way to do it again."""
    return not _is_keras(model, "compile") and _is_keras(model, "compile_from_config")


def compiles_itself(model: Node) -> bool:
    """Whether the class has its own ``get_compile_config`` and ``compile_from_config``."""
    return not _is_keras(model, "compile_from_config")


def has_own_compile_config(model: Node) -> bool:
    """Whether the class has its own ``get_compile_config``."""
    return not _is_keras(model, "get_compile_config")


# --- compile


def compile_arguments(model: object) -> dict[str, Any] | None:
    """What ``compile`` was called with, by argument; None where it was not."""
    # Private, because only the config is public, and that has names where functions were given.
    arguments = getattr(vars(model).get("_compile_config") if hasattr(model, "__dict__") else None, "config", None)
    return arguments if isinstance(arguments, dict) else None


def optimizer_targets(optimizer: keras.optimizers.Optimizer) -> list[Variable] | None:
    """The variables a built optimizer was built for, in order; None before it is built."""
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:
        return optimizer_targets(inner)
    # Private: frozen layers and later changes of `trainable` make it differ from `trainable_variables`.
    return list(optimizer._trainable_variables) if optimizer.built else None


def compile_metrics(model: Node) -> list[Variable]:
    """The variables of everything ``compile`` made to measure: loss trackers and metrics, in a fixed order."""
    return [variable for part in _made_by_compile(model) for variable in getattr(part, "variables", ())]


@dataclass(frozen=True)
class Resolved:
    """What Keras made of the names given to ``compile`` when it saw the first batch."""

    metrics: list[str]  # class and name of each metric: "accuracy" becomes one of several classes
    losses: list[str]  # name of each loss function: "crossentropy" becomes one of several
    targets: Any  # the nesting of `y`, with None for every array


def resolved(model: Node) -> Resolved | None:
    """How metrics and losses were resolved; None before the first batch."""
    # Private throughout: `compile` has no public account of what it made.
    metrics, loss = model._compile_metrics, model._compile_loss
    if not (getattr(metrics, "built", False) or getattr(loss, "built", False)):
        return None
    return Resolved(
        [f"{type(metric).__name__} {metric.name}" for metric in metrics.metrics] if metrics else [],
        [_function_name(part.loss) for part in getattr(loss, "_flat_losses", None) or ()],
        getattr(loss, "_y_true_build_structure", None),
    )


def build_metrics(model: Node, y_true: Any, y_pred: Any) -> None:
    """Make the variables of metrics and losses for batches of this form, given as KerasTensors."""
    # Private: Keras does it at the first batch only.
    metrics, loss = model._compile_metrics, model._compile_loss
    for part in (metrics, loss):
        if part is not None:
            part.build(y_true, y_pred)
    # F-scores, R² and their like wait for their first batch.
    if metrics is not None and not all(getattr(metric, "_built", True) for metric in metrics.metrics):
        keras.src.backend.compute_output_spec(metrics.update_state, y_true, y_pred)


def forget_metrics(model: Node) -> None:
    """Undo :func:`build_metrics`, so that the first batch decides."""
    metrics, loss = model._compile_metrics, model._compile_loss
    if metrics is not None:
        metrics.built = False
    if loss is not None:
        loss.built = False
        loss._metrics.clear()


def _function_name(loss: Any) -> str:
    return str(getattr(getattr(loss, "fn", None), "__name__", type(loss).__name__))


# --- data: what `fit` makes of it. `DataAdapter` is what it asks for batches, and takes as `x`.


def array_adapter(
    x: Any, y: Any, sample_weight: Any, *, batch_size: int | None, steps: int | None, class_weight: Any
) -> Any | None:
    """Keras' own adapter for arrays, which checks and packs them; None where they are not arrays."""
    if not array_data_adapter.can_convert_arrays((x, y, sample_weight)):
        return None
    return array_data_adapter.ArrayDataAdapter(
        x, y, sample_weight=sample_weight, batch_size=batch_size, steps=steps, class_weight=class_weight
    )


def packed_arrays(adapter: Any) -> Any:
    """What an array adapter takes its batches from: ``x``, ``(x, y)`` or ``(x, y, sample_weight)``, nested as given."""
    # Private: the adapter shows batches only.
    return adapter._inputs


def sliceable(arrays: Any, backend: str) -> Any:
    """The same nesting of what can be indexed by samples: each has ``[indices]`` and Keras' conversions."""
    return array_slicing.convert_to_sliceable(arrays, target_backend=backend)


def gather_tensorflow(tensors: Any, indices: Any) -> Any:
    """Rows of nested TensorFlow tensors as :func:`sliceable` made them; in a graph."""
    import tensorflow as tf

    def one(tensor: Any) -> Any:
        if isinstance(tensor, array_slicing.TensorflowSparseWrapper):
            return array_slicing.slice_tensorflow_sparse_wrapper(tensor, indices)
        if isinstance(tensor, list | tuple | dict):
            return None  # go on into it
        return tf.gather(tensor, indices, axis=0) if hasattr(tensor, "shape") else tensor

    return keras.tree.traverse(one, tensors)


def as_numpy(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches with arrays for leaves."""
    return data_adapter_utils.get_numpy_iterator(batches)  # type: ignore[no-any-return]


def as_jax(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches with what JAX takes for leaves."""
    return data_adapter_utils.get_jax_iterator(batches)  # type: ignore[no-any-return]


def as_torch(batch: Any) -> Any:
    """A batch with torch tensors for leaves, on the device that Keras uses."""
    from keras.src.backend.torch.core import convert_to_tensor

    return keras.tree.map_structure(lambda leaf: None if leaf is None else convert_to_tensor(leaf), batch)


def tensorflow_spec(batches: list[Any]) -> Any:
    """The ``tf.TensorSpec`` of each leaf that all these batches have in common."""
    return data_adapter_utils.get_tensor_spec(batches)


def as_tensorflow(batch: Any) -> Any:
    """A batch for ``tf.data.Dataset.from_generator``: sparse leaves are TensorFlow's, None is an empty Optional."""
    import tensorflow as tf

    def one(leaf: Any) -> Any:
        if leaf is None:
            return tf.experimental.Optional.empty(None)
        if data_adapter_utils.is_scipy_sparse(leaf):
            return data_adapter_utils.scipy_sparse_to_tf_sparse(leaf)
        return leaf

    return keras.tree.map_structure(one, batch)


def standard_batch(batch: Any, class_weight: Any) -> Any:
    """What a PyDataset gave as ``fit`` wants it: a dict or a tuple, with weights of classes as those of samples.

    ValueError comes from Keras where it is neither.
    """
    # Private: only its adapter for them does it.
    return _batch_adapter(class_weight)._standardize_batch(batch)


def _batch_adapter(class_weight: Any) -> Any:
    adapter = py_dataset_adapter.PyDatasetAdapter.__new__(py_dataset_adapter.PyDatasetAdapter)
    adapter.class_weight = class_weight
    return adapter


def tensorflow_dataset(dataset: Any, class_weight: Any) -> Any:
    """The dataset that ``fit`` makes of a ``tf.data.Dataset``: with weights of classes, and spread over devices."""
    from keras.src.distribution import distribution_lib
    from keras.src.trainers.data_adapters.tf_dataset_adapter import TFDatasetAdapter

    adapter = TFDatasetAdapter(dataset, class_weight=class_weight, distribution=distribution_lib.distribution())
    return adapter.get_tf_dataset()


def is_tensorflow_dataset(value: Any) -> bool:
    """Whether it is a ``tf.data.Dataset`` or a distributed one; imports nothing."""
    return bool(data_adapters.is_tf_dataset(value))


def is_torch_loader(value: Any) -> bool:
    """Whether it is a ``torch.utils.data.DataLoader``; imports nothing."""
    return bool(data_adapters.is_torch_dataloader(value))


def takes_adapters() -> bool:
    """Whether ``fit`` takes a data adapter as ``x``: from Keras 3.7 on."""
    adapter = DataAdapter()
    try:
        return data_adapters.get_data_adapter(adapter) is adapter
    except ValueError:
        return False


def workers(dataset: keras.utils.PyDataset) -> Any:
    """Keras' own threads or processes that make a PyDataset's batches ahead, in order: ``start``, ``get``, ``stop``."""
    # Private: only its adapter for them makes it.
    return py_dataset_adapter.OrderedEnqueuer(
        dataset,
        workers=dataset.workers,
        use_multiprocessing=dataset.use_multiprocessing,
        max_queue_size=dataset.max_queue_size,
    )


# --- the rest


def held(variables: Iterable[Variable]) -> list[Any]:
    """What the backend holds of each variable, outside all scopes."""
    # Private, because `value` looks through the scopes each time: a microsecond or more for each of thousands.
    return [variable._value for variable in variables]


def made_by(tensor: Any) -> str | None:
    """The name of the layer a symbolic tensor comes from; the tensor's own name changes from run to run."""
    # Private: only the history knows.
    history = getattr(tensor, "_keras_history", None)
    return None if history is None else str(history.operation.name)


def sharing() -> AbstractContextManager[None]:
    """Inside, objects used twice are written, or built, once."""
    # Private: `keras.saving` opens it for whole files only.
    return serialization_lib.ObjectSharingScope()  # type: ignore[no-any-return]


def sync_jax(model: Node) -> None:
    """Within ``fit`` under JAX the variables are elsewhere: bring their values back."""
    if isinstance(model, Trainer) and hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def finish(node: Node) -> None:
    """What Keras' own loaders do for a node after its variables have their values."""
    if isinstance(node, keras.layers.Normalization) and node.built:
        node.finalize_state()
    # Private: only GPTQ and AWQ layers have them, and a saved one is always calibrated.
    mode = getattr(node, "quantization_mode", None)
    if mode in ("gptq", "awq"):
        setattr(node, f"is_{mode}_calibrated", True)


# --- training


def callback_list_around() -> Any:
    """The list of callbacks that is calling one of them just now.

    Call it from a callback's ``on_train_begin``. Private: neither a callback nor ``fit`` gives a way to its siblings.
    """
    frame = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return caller
        frame = frame.f_back  # type: ignore[assignment] # the outermost has none
    raise UsageError("this callback is called by no fit", hint="give it to model.fit(…, callbacks=[…])")


def start_at_epoch(model: Node, epoch: int | None) -> None:
    """Let the ``fit`` that is beginning start at an epoch; None takes that back."""
    # Private: Keras' own callback that resumes does it so.
    model._initial_epoch = epoch


def build_for(model: Node, batches: Iterator[Any]) -> None:
    """Make the variables of a model that its first batch would make, as ``fit`` does under other backends.

    A model that cannot be called is left as it is: where `fit` needs more, it says so.
    """
    if not all(layer.built for layer in model._flatten_layers()):
        # Private: public ways to build need the shapes of the inputs and no more, and leave out what `compile` made.
        with suppress(RuntimeError, ValueError):
            model._symbolic_build(data_batch=next(batches))


def validation_split(arrays: Any, share: float) -> Any:
    """Arrays for training, and those that ``fit`` would keep for validation: their end."""
    # Private: `fit` does it for arrays of its own alone.
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    return train_validation_split(arrays, validation_split=share)
