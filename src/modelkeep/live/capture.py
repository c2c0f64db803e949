"""A model in memory as what is to be stored: configs, variables, and everything a resumed ``fit`` needs."""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import keras

from modelkeep.errors import CannotRebuild, UsageError
from modelkeep.live import compiled, custom_objects, internals, lambdas
from modelkeep.live.allowlist import own_class
from modelkeep.live.collector import undisturbed
from modelkeep.live.configs import LAMBDA
from modelkeep.live.portable import portable
from modelkeep.live.signature import signature
from modelkeep.live.variables import Inventory, array_source, inventory, source
from modelkeep.manifest import CustomObject, Signature
from modelkeep.report import Finding, Severity
from modelkeep.storage.blobs import TensorSource

CONFIG = "config.json"
PORTABLE_CONFIG = "config.portable.json"
COMPILE = "compile.json"
PORTABLE_COMPILE = "compile.portable.json"
BUILD = "build.json"
LAYER_ASSETS = "layer_assets/"
TORCH_RNG = "state/torch_rng"

_SHARED = "shared_object_id"


@dataclass(frozen=True)
class Captured:
    """What of a model is stored. The tensors are read when they are written: save before training goes on.

    ``objects`` are the live custom objects by the name Keras asks for them: what :func:`restore` needs.
    """

    kind: str  # "whole" | "weights"
    parts: dict[str, bytes]
    tensors: list[TensorSource]
    custom_objects: tuple[CustomObject, ...]
    signature: Signature | None
    parameters: int
    trainable_parameters: int
    findings: tuple[Finding, ...]
    objects: dict[str, object] = field(default_factory=dict)


@undisturbed()
def capture(model: keras.Model, *, architecture: bool = True, allow_lambda: bool = False) -> Captured:
    """Everything of ``model`` that is to be stored; the model is not changed.

    With ``architecture=False`` weights and state alone, for a model whose code will be there again. Raises
    UsageError for a model without weights yet, CannotRebuild for a class without a config, UnsafeContent for
    lambdas that are not allowed.
    """
    _refuse_what_is_no_model(model)
    internals.sync_jax(model)
    found = inventory(internals.walk(model))
    _refuse_unbuilt(model, found)
    parts = {BUILD: _json(_record(found)), **assets(found)}
    tensors = [source(name, variable) for name, variable in found.variables.items()]
    tensors += [array_source(name, value) for name, value in found.arrays.items()]
    tensors += _torch_rng(found)
    objects = custom_objects.Found((), {}, {}, ())
    findings: tuple[Finding, ...] = ()
    if architecture:
        config, compile_config, findings = configs(model, allow_lambda=allow_lambda)
        objects = custom_objects.find(config, compile_config, model)
        parts |= {CONFIG: _json(config), PORTABLE_CONFIG: _json(portable(config, objects.objects)), **objects.sources}
        if compile_config is not None:
            parts |= {
                COMPILE: _json(compile_config),
                PORTABLE_COMPILE: _json(portable(compile_config, objects.objects)),
            }
    return Captured(
        kind="whole" if architecture else "weights",
        parts=parts,
        tensors=tensors,
        custom_objects=objects.records,
        signature=signature(model),
        parameters=_count(model.weights),
        trainable_parameters=_count(model.trainable_weights),
        findings=(*findings, *objects.findings, *_own_compile(found), *_broken_vocabularies(found)),
        objects=objects.objects,
    )


def _refuse_what_is_no_model(model: object) -> None:
    if not isinstance(model, keras.Model):
        raise UsageError("not a Keras model", found=type(model).__name__, expected="a keras.Model (Keras 3)")


def _refuse_unbuilt(model: keras.Model, found: Inventory) -> None:
    if not model.built and not any(name.startswith("weights/") for name in found.variables):
        raise UsageError(
            f"the model {model.name!r} has no weights yet, because it was never built",
            hint="call it on a batch of data, or model.build(input_shape), before saving",
        )


# --- configs


def configs(model: keras.Model, *, allow_lambda: bool = False) -> tuple[Any, Any, tuple[Finding, ...]]:
    """The config of the model and the arguments of ``compile`` (None where it was not), both without lambdas.

    Raises CannotRebuild for a class without a config, UnsafeContent for lambdas that are not allowed.
    """
    try:
        with warnings.catch_warnings():
            # About what Keras would do with one; what is done with it here is said here.
            warnings.filterwarnings("ignore", message="The object being serialized includes a `lambda`")
            with internals.sharing():
                config = keras.saving.serialize_keras_object(model)
            compile_config = compiled.config(model)
        config.pop("compile_config", None)
        text = json.dumps([config, compile_config])
    except (NotImplementedError, TypeError, ValueError) as error:
        raise _without_config(model, error) from error
    config, compile_config = configs = json.loads(text)
    _make_general(configs, {})
    name_publicly(configs)
    if LAMBDA not in text:
        return config, compile_config, ()
    config, in_config = lambdas.check_or_replace(config, allow_lambda=allow_lambda)
    compile_config, in_compile = lambdas.check_or_replace(compile_config, allow_lambda=allow_lambda, at=("compile",))
    return config, compile_config, (*in_config, *in_compile)


def _make_general(value: Any, numbers: dict[Any, int]) -> None:
    """Number shared objects from 1, not by memory address; in place.

    Policies, initializers and their like are values: that two layers share one says nothing, and does not
    survive a round trip.
    """
    if isinstance(value, dict):
        identity = value.pop(_SHARED, None)
        if identity is not None and not _is_value(value):
            value[_SHARED] = numbers.setdefault(identity, len(numbers) + 1)
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            _make_general(inner, numbers)


def name_publicly(value: Any) -> None:
    """Call optimizers by their public names, in place: under torch Keras makes subclasses that no other backend has."""
    is_theirs = isinstance(value, dict) and str(value.get("module")).startswith("keras.src.backend.")
    if is_theirs and own_class("keras.optimizers", str(value.get("class_name"))) is not None:
        value |= {"module": "keras.optimizers", "registered_name": None}
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            name_publicly(inner)


def _is_value(node: dict[str, Any]) -> bool:
    cls = own_class(node.get("module"), node["class_name"])
    return cls is not None and not issubclass(cls, keras.Operation | keras.metrics.Metric)


def _without_config(model: keras.Model, error: Exception) -> CannotRebuild:
    failing = {path: type(node).__name__ for path, node in internals.walk(model) if not _has_config(node)}
    # What holds such an object fails with it; the innermost are to blame.
    culprits = {failing[path] for path in failing if not any(_is_inside(other, path) for other in failing)}
    return CannotRebuild(
        f"{' and '.join(sorted(culprits)) or type(model).__name__} cannot be written as a config ({error})",
        hint="add get_config to it, returning the arguments of its constructor as plain values, "
        "or keep the weights alone: architecture=False",
    )


def _is_inside(path: str, outer: str) -> bool:
    return path != outer and path.startswith(f"{outer}/" if outer else "")


def _has_config(node: internals.Node) -> bool:
    try:
        json.dumps(keras.saving.serialize_keras_object(node))
    except (NotImplementedError, TypeError, ValueError):
        return False
    return True


def _own_compile(found: Inventory) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            "compile-not-repeatable",
            Severity.WARNING,
            f"{type(node).__name__} has its own compile(); it will come back uncompiled, its optimizers fresh. "
            "Add get_compile_config and compile_from_config to it",
            subject=path or node.name,
        )
        for path, node in found.nodes
        if isinstance(node, internals.Trainer) and getattr(node, "compiled", False) and internals.has_own_compile(node)
    )


def _broken_vocabularies(found: Inventory) -> tuple[Finding, ...]:
    """Keras keeps a vocabulary as lines, and reads it by all that Unicode calls an end of line."""
    return tuple(
        Finding(
            "vocabulary-not-readable",
            Severity.FAILURE,
            "its vocabulary has words that Keras cannot read back: with a line break in them, or empty ones at the "
            "end. Give the words to the layer itself, vocabulary=[…], or leave these out",
            subject=path,
        )
        for path, node in found.nodes
        if isinstance(node, keras.layers.StringLookup)
        and not node.get_config()["vocabulary"]
        and not _is_in_lines(node)
    )


def _is_in_lines(lookup: keras.layers.StringLookup) -> bool:
    words: list[str] = lookup.get_vocabulary(include_special_tokens=True)
    return "\n".join(words).splitlines() == words


# --- state


def _record(found: Inventory) -> dict[str, Any]:
    """What is neither config nor tensor: flags, what optimizers were built for, how metrics were resolved."""
    layers = [(path, node) for path, node in found.nodes if isinstance(node, keras.Layer)]
    return {
        "keras": keras.version(),
        "backend": keras.backend.backend(),
        "frozen_layers": [path for path, layer in layers if not layer.trainable],
        "frozen_variables": [
            name for name, variable in found.variables.items() if name.startswith("weights/") and not variable.trainable
        ],
        "layer_names": layer_names(found),
        "optimizers": compiled.targets(found),
        "optimizer_classes": optimizer_classes(found),
        "metrics": compiled.resolved(found.nodes[0][1]),
    }


def layer_names(found: Inventory) -> dict[str, str]:
    """The chosen names of the layers with weights, by path."""
    layers = ((path, node) for path, node in found.nodes if path and isinstance(node, keras.Layer) and node.weights)
    return {path: name for path, layer in layers if (name := internals.given_name(layer)) is not None}


def optimizer_classes(found: Inventory) -> dict[str, str]:
    """The classes of the optimizers, by path."""
    return {path: type(node).__name__ for path, node in found.nodes if isinstance(node, keras.optimizers.Optimizer)}


def _torch_rng(found: Inventory) -> list[TensorSource]:
    """Keras' dropout without a seed draws from torch's global generator, so that belongs to the model's state."""
    if not any(internals.draws_from_torch(node) for _, node in found.nodes):
        return []
    return [array_source(TORCH_RNG, internals.torch_rng())]


def assets(found: Inventory) -> dict[str, bytes]:
    """The files that layers write in ``save_assets``, such as vocabularies, by name below ``LAYER_ASSETS``."""
    parts: dict[str, bytes] = {}
    writers = [(path, node) for path, node in found.nodes if hasattr(node, "save_assets")]
    with tempfile.TemporaryDirectory(prefix="modelkeep-") as folder:
        for path, node in writers:
            inner = Path(folder, path)
            inner.mkdir(parents=True, exist_ok=True)
            node.save_assets(str(inner))
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                parts[LAYER_ASSETS + file.relative_to(folder).as_posix()] = file.read_bytes()
    return parts


def _count(variables: list[internals.Variable]) -> int:
    return sum(prod(int(length) for length in variable.shape) for variable in variables)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
