"""Random states of the process: Python's, NumPy's, Keras' own, and those of the backends in use.

Taken between two steps and put back before a later one, so that whatever is drawn then is what would have been drawn.
Only what is there already is read: nothing here makes a generator, initialises a device or imports a backend. JAX keeps
no random state of its own. Generators in variables of the model are the model's; those that users hold themselves
(``numpy.random.default_rng()``) are for whoever holds them to keep: a callback's ``get_state``.

TensorFlow's stateful operations in graphs (``tf.random.uniform`` within a traced function) count within their kernels,
where nobody can read or set it: :func:`doubts` finds them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import keras
import numpy as np

from modelkeep.errors import UsageError
from modelkeep.live import internals
from modelkeep.live.variables import inventory
from modelkeep.report import Finding, Severity, several

_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_TORCH_DEVICES = ("cuda", "xpu")


def capture() -> dict[str, Any]:
    """The random states as a plain value (``state.pack`` takes it), about 10 KB. It stays as it is.

    Call it in the thread that trains: Keras' global generator is of a thread.
    """
    return {
        "python": _python(random.getstate()),
        "numpy": np.random.get_state(legacy=False),
        "keras": internals.global_randomness(),
        "torch": _torch() if "torch" in sys.modules else None,
        "tensorflow": _tensorflow() if "tensorflow" in sys.modules else None,
    }


def restore(value: dict[str, Any] | None) -> tuple[Finding, ...]:
    """Put back what :func:`capture` told. A backend that was in use then and is not loaded now is left alone.

    None is of a process that was not there then: it goes on with the random states that it has.

    The finding is of torch's devices that are not here: their generators go on as they are. Raises UsageError where the
    states are of another kind than this process has.
    """
    findings: tuple[Finding, ...] = ()
    if value is None:
        return findings
    try:
        if value["tensorflow"] is not None and "tensorflow" in sys.modules:
            _set_tensorflow(value["tensorflow"])
        if value["torch"] is not None and "torch" in sys.modules:
            findings = tuple(_set_torch(value["torch"]))
        internals.set_global_randomness(value["keras"])
        _set_numpy(value["numpy"])
        random.setstate(_python_state(value["python"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"the random states of the checkpoint cannot be set here: {error}",
            hint="go on with the releases of Python, NumPy and the backend that wrote it",
        ) from error
    return findings


def doubts(model: Any) -> tuple[Finding, ...]:
    """What a model's training step counts where no checkpoint can keep it: random operations, TensorFlow's variables.

    After the first step, since there is no graph before. Always empty under other backends than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        return ()
    graphs = internals.train_graphs(model)
    operations = sorted({name for graph in graphs for name in _counting_themselves(graph.as_graph_def())})
    held = _held(model)
    variables = sorted({variable.name for graph in graphs for variable in graph.variables if id(variable) not in held})
    findings = []
    if operations:
        message = f"resumed, other numbers are drawn by {several(operations)}: use keras.random with a SeedGenerator"
        details = {"operations": operations}
        findings.append(Finding("random-operation-not-kept", Severity.WARNING, message, model.name, details))
    if variables:
        message = (
            f"no checkpoint holds {several(variables)}: make them Keras variables, or of a keras.random.SeedGenerator"
        )
        details = {"variables": variables}
        findings.append(Finding("variable-not-kept", Severity.WARNING, message, model.name, details))
    return tuple(findings)


def _counting_themselves(graph: Any) -> Iterator[str]:
    """The stateful operations with seeds of their own in a ``GraphDef``: ``RandomUniform layer/random_uniform``."""
    from tensorflow.python.framework import op_def_registry

    @cache
    def counts_itself(operation: str) -> bool:
        known = op_def_registry.get(operation)
        return known is not None and known.is_stateful and {"seed", "seed2"} <= {one.name for one in known.attr}

    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        yield from (f"{node.op} {node.name}" for node in nodes if counts_itself(node.op))


def _held(model: Any) -> set[int]:
    """The ids of TensorFlow's variables that a checkpoint holds: the model's, and those of global generators."""
    from tensorflow.python.ops import stateful_random_ops

    variables = [variable.value for variable in inventory(internals.walk(model)).variables.values()]
    if (seeds := internals.global_seed_generator()) is not None:
        variables.append(seeds.state.value)
    if (generator := stateful_random_ops.global_generator) is not None:
        variables.append(generator.state)
    # Under a distribution strategy a graph has the variable of each replica.
    return {id(one) for variable in variables for one in (variable, *getattr(variable, "values", ()))}


def _python(state: tuple[Any, ...]) -> dict[str, Any]:
    version, words, gauss = state
    return {"version": version, "words": np.array(words, np.uint32), "gauss": gauss}


def _python_state(value: dict[str, Any]) -> tuple[Any, ...]:
    return value["version"], tuple(value["words"].tolist()), value["gauss"]


def _set_numpy(value: dict[str, Any]) -> None:
    kind = value["bit_generator"]
    if kind != np.random.get_state(legacy=False)["bit_generator"]:
        if kind not in _BIT_GENERATORS:
            raise ValueError(f"NumPy's global generator was a {kind}")
        np.random.set_bit_generator(getattr(np.random, kind)())  # type: ignore[attr-defined]
    np.random.set_state(value)


def _torch() -> dict[str, Any]:
    import torch

    devices = {name: getattr(torch, name) for name in _TORCH_DEVICES if hasattr(torch, name)}
    return {
        "cpu": torch.get_rng_state().numpy().copy(),
        "devices": {
            name: [state.numpy() for state in module.get_rng_state_all()]
            for name, module in devices.items()
            if module.is_initialized()
        },
        "mps": torch.mps.get_rng_state().numpy() if _uses_mps() else None,
    }


def _set_torch(value: dict[str, Any]) -> Iterator[Finding]:
    import torch

    torch.set_rng_state(torch.from_numpy(value["cpu"].copy()))
    for name, states in value["devices"].items():
        module = getattr(torch, name, None)
        here = 0 if module is None else module.device_count()
        if module is not None and here == len(states):
            module.set_rng_state_all([torch.from_numpy(state.copy()) for state in states])
        else:
            message = f"their random states do not come back: {len(states)} of them then, {here} now"
            yield Finding("random-state-not-restored", Severity.WARNING, message, f"devices of the kind {name}")
    if value["mps"] is not None and _uses_mps():
        torch.mps.set_rng_state(torch.from_numpy(value["mps"].copy()))


def _uses_mps() -> bool:
    return keras.backend.backend() == "torch" and str(internals.torch_device()).startswith("mps")


def _tensorflow() -> dict[str, Any] | None:
    from tensorflow.python.eager import context
    from tensorflow.python.ops import stateful_random_ops

    # Private, because TensorFlow only lets these be set. Operations that are run one by one take a seed each from
    # `_rng`, which is there once a global seed is set.
    eager = context.context_safe()
    if eager is None:
        return None
    counter = getattr(eager, "_rng", None)
    generator = stateful_random_ops.global_generator
    return {
        "seed": None if eager._seed is None else int(eager._seed),
        "counter": None if eager._seed is None or counter is None else _python(counter.getstate()),
        "generator": None
        if generator is None
        else {"state": generator.state.numpy(), "algorithm": int(generator.algorithm)},
    }


def _set_tensorflow(value: dict[str, Any]) -> None:
    import tensorflow as tf
    from tensorflow.python.eager import context
    from tensorflow.python.ops import stateful_random_ops

    eager = context.context()
    # Not `tf.random.set_seed`, which would make the global generator anew. This also lets go of kernels that were run
    # with the same seeds before, and would go on counting.
    eager._set_global_seed(value["seed"])
    if value["counter"] is not None:
        eager._rng.setstate(_python_state(value["counter"]))
    saved, generator = value["generator"], stateful_random_ops.global_generator
    if saved is None:
        stateful_random_ops.global_generator = None
    elif generator is not None and int(generator.algorithm) == saved["algorithm"]:
        generator.state.assign(saved["state"])  # graphs that were traced with it hold this very variable
    else:
        tf.random.set_global_generator(tf.random.Generator.from_state(saved["state"], saved["algorithm"]))
