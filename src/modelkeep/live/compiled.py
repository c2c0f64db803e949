"""What ``compile`` made of a model: optimizers, losses and metrics, recorded and made again."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice, product
from typing import Any

import keras

from modelkeep.live import internals
from modelkeep.live.signature import tensors
from modelkeep.live.variables import Inventory
from modelkeep.manifest import Signature, TensorSpec


def config(model: keras.Model) -> Mapping[str, Any] | None:
    """The serialized arguments of ``compile``, or None for a model that was never compiled.

    The optimizer is taken from the live model: Keras remembers the one given to ``compile``, which a save to
    ``.h5`` and an assignment to ``model.optimizer`` make stale.
    """
    if not getattr(model, "compiled", False):
        return None
    arguments = dict(model.get_compile_config() or {})
    if not internals.has_own_compile_config(model):
        arguments["optimizer"] = keras.saving.serialize_keras_object(model.optimizer)
    return arguments


def resolved(model: keras.Model) -> dict[str, Any] | None:
    """How the first batch resolved the model's metrics and losses; None before it."""
    found = internals.resolved(model)
    if found is None:
        return None
    return {"metrics": found.metrics, "losses": found.losses, "targets": _described(found.targets)}


def targets(found: Inventory) -> dict[str, list[str] | None]:
    """For each optimizer, by its path, the tensor names of the weights it was built for; None before it is built."""
    record: dict[str, list[str] | None] = {}
    for path, node in found.nodes:
        if isinstance(node, keras.optimizers.Optimizer):
            variables = internals.optimizer_targets(node)
            record[path] = variables and [found.names.get(id(variable), str(variable.path)) for variable in variables]
    return record


def compile_again(model: keras.Model, arguments: Mapping[str, Any], *, same_backend: bool) -> bool:
    """Compile as recorded; False where the class has a ``compile`` of its own and no way to repeat it.

    ``jit_compile`` was resolved for the backend that saved, so another backend decides anew.
    """
    if internals.compiles_itself(model):
        model.compile_from_config(dict(arguments))
        return True
    if internals.has_own_compile(model):
        return False
    built = dict(keras.saving.deserialize_keras_object(dict(arguments)))
    if not same_backend:
        built["jit_compile"] = "auto"
    model.compile(**built)
    return True


def build_metrics(model: keras.Model, record: Mapping[str, Any], signature: Signature) -> bool:
    """Make the variables of metrics and losses that Keras makes at the first batch; False where that fails.

    They depend on the shape of ``y``, which nobody recorded: for each output both forms that Keras tells apart
    are tried, until it resolves the same metrics and losses from the same names.
    """
    outputs = {spec.name: spec for spec in signature.outputs}
    targets = record["targets"] or _described(signature.output_structure)  # older Keras keeps no account of `y`
    for sparse in islice(product((False, True), repeat=len(outputs)), _MOST_TRIES):
        forms = {name: _target(spec, single) for (name, spec), single in zip(outputs.items(), sparse, strict=True)}
        try:
            internals.build_metrics(
                model, _nested(targets, forms), tensors(signature.output_structure, signature.outputs)
            )
        except Exception:  # noqa: BLE001 - a wrong guess may fail anywhere in Keras
            internals.forget_metrics(model)
            continue
        found = internals.resolved(model)
        if found is not None and (found.metrics, found.losses) == (record["metrics"], record["losses"]):
            return True
        internals.forget_metrics(model)
    return False


_MOST_TRIES = 64


def _target(output: TensorSpec, single: bool) -> keras.KerasTensor:
    shape = output.shape or ()
    return keras.KerasTensor((*shape[:-1], 1) if single and shape else shape, dtype=output.dtype)


def _described(nesting: Any) -> Any:
    """A nesting of None as JSON that tells lists, tuples and mappings apart, as Keras does."""
    if isinstance(nesting, Mapping):
        return {"dict": {key: _described(value) for key, value in nesting.items()}}
    if isinstance(nesting, list | tuple):
        return {type(nesting).__name__: [_described(value) for value in nesting]}
    return None


def _nested(description: Any, forms: dict[str, keras.KerasTensor]) -> Any:
    """The forms of all outputs in the nesting of ``y``: by name where it has names, else in order."""
    if description is None:
        return forms.pop(next(iter(forms)))
    ((kind, inner),) = description.items()
    if kind == "dict":
        return {
            key: forms.pop(key) if key in forms and value is None else _nested(value, forms)
            for key, value in inner.items()
        }
    values = [_nested(value, forms) for value in inner]
    return tuple(values) if kind == "tuple" else values
