"""What plain Keras makes of a file that was just written, and what such files cannot hold of a model."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import keras
import numpy as np

from modelkeep.errors import NotFaithful
from modelkeep.live import custom_objects, internals
from modelkeep.live.capture import configs
from modelkeep.live.golden import Predict, outputs_of
from modelkeep.live.variables import Inventory, inventory, stored_dtype, view
from modelkeep.live.writing.tracing import quiet
from modelkeep.report import Finding, Report, Severity, several

NOT_HELD = "not-held"


def reopen(path: Path, model: keras.Model, *, optimizer: bool = True) -> Predict:
    """What ``keras.saving.load_model`` makes of a file, after every weight of it was compared with the model's.

    With ``optimizer`` its slots are compared too. Raises NotFaithful with a report that names what differs.
    """
    loaded = load(path, model)
    compare(model, loaded, optimizer=optimizer).raise_for_failures()
    return partial(outputs_of, loaded)


def load(path: Path, model: keras.Model) -> keras.Model:
    """A file as plain Keras opens it, given the custom objects of ``model``. Raises NotFaithful where it cannot."""
    objects = objects_of(model)
    try:
        with internals.unchanged_after_error(), warnings.catch_warnings(), quiet():
            warnings.filterwarnings("ignore", module="keras")
            return keras.saving.load_model(path, custom_objects=objects, safe_mode=True)
    except Exception as error:
        raise NotFaithful(
            f"Keras cannot open the {path.suffix} file that it made of this model ({type(error).__name__}: {error})",
            hint="write it as keras" if path.suffix == ".h5" else None,
        ) from error


def objects_of(model: keras.Model) -> dict[str, object]:
    """The custom classes and functions of a model, by the name that its config uses."""
    config, compile_config, _ = configs(model)
    return custom_objects.find(config, compile_config, model).objects


def compare(model: keras.Model, other: keras.Model, *, optimizer: bool) -> Report:
    """A failure for each weight, and slot, that is not the same to the bit in both.

    What :func:`not_held` tells of is passed by.
    """
    was = inventory(internals.walk(model))
    now = inventory(internals.walk(other), {name: variable.path for name, variable in was.variables.items()})
    passed_by = {id(variable) for _, node in was.nodes for variable in _of_merged_lora(node)}
    passed_by |= {id(v) for _, node in was.nodes if _is_lost(node, was) or not optimizer for v in _slots(node)}
    findings = [
        _compared(name, variable, now.variables.get(name))
        for name, variable in was.variables.items()
        if name.startswith(("weights/", "optimizer/")) and id(variable) not in passed_by
    ]
    return Report("what was written", tuple(findings), NotFaithful)


def _compared(name: str, was: internals.Variable, now: internals.Variable | None) -> Finding:
    if now is None:
        return Finding("written-weight", Severity.FAILURE, "is not in what was written", name)
    if stored_dtype(was) != stored_dtype(now) or tuple(was.shape) != tuple(now.shape):
        text = f"{stored_dtype(was)}{list(was.shape)} became {stored_dtype(now)}{list(now.shape)}"
        return Finding("written-weight", Severity.FAILURE, text, name)
    a, b = view(was), view(now)
    if np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"):
        return Finding("written-weight", Severity.OK, "equal", name)
    return Finding("written-weight", Severity.FAILURE, f"{int(np.sum(a != b))} of {a.size} values differ", name)


def _of_merged_lora(node: internals.Node) -> list[internals.Variable]:
    """A layer's variables that Keras writes as one: LoRA's matrices and the kernel that they are added to."""
    return internals.own_variables(node) if internals.lora_variables(node) else []


# --- what files of Keras cannot hold


def not_held(found: Inventory, what: str) -> tuple[Finding, ...]:
    """A note for each kind of state that no file of Keras holds, though a version in a store keeps it."""
    states = [name for name in found.variables if name.startswith("state/") and "/compiled/" not in name]
    frozen = {id(variable) for variable in _frozen_alone(found)}
    kinds = (
        ("states of random generators, of stateful layers and of metrics", states),
        ("that single variables are frozen", [name for name, v in found.variables.items() if id(v) in frozen]),
        ("LoRA's matrices apart from their kernels", [path for path, node in found.nodes if _of_merged_lora(node)]),
        ("optimizers of what was frozen later", [path for path, node in found.nodes if _is_lost(node, found)]),
    )
    return tuple(note(f"{what} does not hold {kind}: {several(names)}") for kind, names in kinds if names)


def note(message: str) -> Finding:
    """That a form cannot hold something."""
    return Finding(NOT_HELD, Severity.NOTE, message)


def _frozen_alone(found: Inventory) -> list[internals.Variable]:
    """Variables that are frozen though their layers are not, which no config tells."""
    made_trainable = internals.made_trainable(found.nodes)
    return [
        variable
        for _, node in found.nodes
        if isinstance(node, keras.Layer) and node.trainable and not internals.lora_variables(node)
        for variable in internals.own_variables(node)
        if id(variable) in made_trainable and not variable.trainable
    ]


def _is_lost(node: internals.Node, found: Inventory) -> bool:
    """Whether Keras will not give an optimizer its slots back: it has them for other variables than are trainable."""
    if not isinstance(node, keras.optimizers.Optimizer) or not node.built:
        return False
    path = next(path for path, other in found.nodes if other is node)
    owner = dict(found.nodes)[path.rpartition("/")[0]]
    now = {id(variable) for variable in (*owner.trainable_variables, *_frozen_alone(found))}
    return {id(variable) for variable in internals.optimizer_targets(node) or ()} != now


def _slots(node: internals.Node) -> list[internals.Variable]:
    return list(node.variables) if isinstance(node, keras.optimizers.Optimizer) else []
