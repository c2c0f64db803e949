"""What was stored of a model, brought back to life: built without running initializers, then given its values.

Every stored tensor must find its variable and every variable its tensor, of the same name, shape and dtype;
anything else is an error, never a model that is a little different.
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Set
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import keras

from modelkeep.errors import (
    CannotLoad,
    CannotRebuild,
    IntegrityError,
    MissingExtra,
    ModelkeepError,
    NotFaithful,
    UnsafeContent,
)
from modelkeep.live import compiled, internals, shards
from modelkeep.live.allowlist import check_config
from modelkeep.live.capture import (
    BUILD,
    COMPILE,
    CONFIG,
    LAYER_ASSETS,
    PORTABLE_COMPILE,
    PORTABLE_CONFIG,
    TORCH_RNG,
    layer_names,
    optimizer_classes,
)
from modelkeep.live.collector import undisturbed
from modelkeep.live.portable import readable
from modelkeep.live.sources import is_user_code
from modelkeep.live.tensors import Array, array
from modelkeep.live.variables import Inventory, assign, inventory, own_name, prefix, run_initializers
from modelkeep.manifest import Manifest, Tensor

Parts = Callable[[str], bytes]
Views = Mapping[str, memoryview]
Scope = Callable[[], AbstractContextManager[Any]]


@undisturbed()
def restore(
    manifest: Manifest,
    parts: Parts,
    tensors: Views,
    *,
    objects: Mapping[str, object] | None = None,
    compile: bool = True,
    fresh_optimizer: bool = False,
) -> keras.Model:
    """The model that ``manifest`` describes, its variables lying in the memory of ``tensors``.

    ``tensors`` are private, writable and aligned (``Blobs.map``); training changes them and nothing else.
    ``objects`` are custom classes and functions by the name the config uses (``custom_objects.resolve``).
    With ``compile`` the model also gets its optimizer with all slots, losses and metrics, and under torch, if
    its dropout draws from it, torch's global generator is set: ``fit`` continues as the original's would have. With
    ``fresh_optimizer`` it is compiled as if for the first time; ``tensors`` then has nothing that ``compile`` makes.

    Raises CannotLoad for a version without an architecture, UnsafeContent, CannotRebuild, NotFaithful,
    IntegrityError. After an error Keras' global state is as it was before.
    """
    if manifest.kind != "whole":
        raise CannotLoad(
            f"{manifest.model}:{manifest.version} was kept weights-only, without an architecture",
            hint="build the model yourself and load the weights into it",
        )
    saved = _Saved(manifest, parts, tensors, fresh=fresh_optimizer)
    with internals.unchanged_after_error(), internals.unchanged_randomness():
        model = _first_that_works(saved, objects or {}, compile=compile)
    if compile and TORCH_RNG in saved.tensors and keras.backend.backend() == "torch":
        internals.set_torch_rng(saved.array(TORCH_RNG))
    return model


@undisturbed()
def restore_into(model: keras.Model, manifest: Manifest, parts: Parts, tensors: Views) -> None:
    """Give a model built by the caller a version's weights and state, and its optimizer's if it is compiled.

    Raises NotFaithful where layers, optimizers, names, shapes or dtypes differ.
    """
    saved = _Saved(manifest, parts, tensors)
    compiled_now = bool(getattr(model, "compiled", False))
    with internals.unchanged_after_error(), internals.unchanged_randomness():
        found = inventory(internals.walk(model), saved.paths)
        _compare_owners(found, saved)
        if compiled_now:
            _build_optimizers(found, saved, nullcontext)
            if internals.resolved(model) is None:
                _built_metrics(model, saved)  # those of another `compile` count from the first batch on
            found = inventory(found.nodes, saved.paths)
        _compare(found, saved, compiled=compiled_now)
        _compare_shapes(found, saved)  # all of them before the first value is put into the caller's model
        _load_by_themselves(found.nodes, saved)
        _fill(found, saved, found.variables.keys())
        _finish(found, saved)


@dataclass(frozen=True)
class _Saved:
    """What is stored of a model: tensors by name, and the record that :mod:`capture` made beside them."""

    manifest: Manifest
    parts: Parts
    views: Views
    fresh: bool = False  # what `compile` makes begins anew

    @cached_property
    def record(self) -> dict[str, Any]:
        return dict(self.json(BUILD))

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return self._wholes.merged

    @cached_property
    def _wholes(self) -> shards.Wholes:
        ours = (
            tensor
            for tensor in self.manifest.tensors
            if tensor.name in self.views and tensor.name.startswith(("weights/", "state/", "optimizer/"))
        )
        return shards.Wholes.of(self.manifest, ours, self.parts)

    @cached_property
    def paths(self) -> dict[str, str | None]:
        return {name: tensor.variable for name, tensor in self.tensors.items()}

    @property
    def same_backend(self) -> bool:
        return bool(self.record["backend"] == keras.backend.backend())

    def array(self, name: str) -> Array:
        return self._wholes.array(name, lambda part: array(self._wholes.tensors[part], self.views[part]))

    def json(self, name: str) -> Any:
        data = self.parts(name)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"{name} is not JSON ({error})", hint="run: modelkeep fsck") from error

    def has(self, name: str) -> bool:
        return any(part.name == name for part in self.manifest.parts)


# --- building


def _first_that_works(saved: _Saved, objects: Mapping[str, object], *, compile: bool) -> keras.Model:
    """Build and fill the model: without initializers where its classes let it, else the plain way.

    Its config is checked before anything is built from it.
    """
    config = _config(saved, CONFIG, PORTABLE_CONFIG, objects)
    compile_config = _config(saved, COMPILE, PORTABLE_COMPILE, objects) if compile and saved.has(COMPILE) else None
    check_config(config, objects)
    check_config(compile_config, objects)
    try:
        return _build_and_fill(saved, config, compile_config, objects, internals.deferred)
    except Exception:  # noqa: BLE001 - whatever the user's classes do not allow without values, they allow with them
        pass
    try:
        return _build_and_fill(saved, config, compile_config, objects, nullcontext)
    except ModelkeepError:
        raise
    except Exception as error:
        raise _cannot_rebuild(config, error) from error


def _config(saved: _Saved, name: str, portable_name: str, objects: Mapping[str, object]) -> Any:
    whole = saved.json(name)
    if _release(keras.version()) == _release(saved.record["keras"]):
        return whole
    return readable(whole, saved.json(portable_name), objects)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _build_and_fill(
    saved: _Saved, config: Any, compile_config: Any, objects: Mapping[str, object], scope: Scope
) -> keras.Model:
    config, nested = _without_nested_compile(config)  # also a copy: some from_config take their config apart
    with keras.saving.custom_object_scope(dict(objects)), warnings.catch_warnings():
        # Keras warns where it cannot build; here that becomes an error below.
        warnings.filterwarnings("ignore", message="Model '.*' had a build config")
        with scope() as made, internals.sharing():
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        if compile_config is not None:
            _compile(model, saved, compile_config, nested)
    nodes = internals.walk(model)
    _freeze_layers(nodes, saved)
    _load_by_themselves(nodes, saved)
    found = inventory(nodes, saved.paths)
    # An optimizer counts its variables otherwise once it is built.
    first = {name for name in found.variables if not name.startswith("optimizer/")}
    _fill(found, saved, first)
    run_initializers(made or ())
    if compile_config is not None and not saved.fresh:
        # Only now: under TensorFlow an optimizer knows variables by what their values are held in.
        slots = _build_optimizers(found, saved, scope)
        _build_metrics(model, saved)
        found = inventory(nodes, saved.paths)
        _fill(found, saved, found.variables.keys() - first)
        run_initializers(slots)
    _compare(found, saved, compiled=compile_config is not None)
    _finish(found, saved)
    return model


def _without_nested_compile(config: Any) -> tuple[Any, dict[str, Any]]:
    """The config without what its inner models were compiled with, and that by the name of each inner model.

    Keras would compile them while it builds, when there are no values yet.
    """
    nested: dict[str, Any] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, list):
            return [visit(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if "class_name" in value and value.get("compile_config"):
            inner = value.get("config")
            nested[str(inner.get("name") if isinstance(inner, dict) else None)] = value["compile_config"]
            value = {key: inner for key, inner in value.items() if key != "compile_config"}
        return {key: visit(inner) for key, inner in value.items()}

    return visit(config), nested


def _compile(model: keras.Model, saved: _Saved, compile_config: Any, nested: Mapping[str, Any]) -> None:
    inner = internals.walk(model) if nested or saved.record["frozen_layers"] else []
    _freeze_layers(inner, saved)  # before: `compile` notes what is trainable
    compiled.compile_again(model, deepcopy(compile_config), same_backend=saved.same_backend)
    for path, node in inner:
        if path and isinstance(node, internals.Trainer) and node.name in nested:
            compiled.compile_again(node, nested[node.name], same_backend=saved.same_backend)


def _build_optimizers(found: Inventory, saved: _Saved, scope: Scope) -> list[internals.Variable]:
    """Make the slots of every optimizer for the variables it was built for, without values where ``scope`` defers."""
    made: list[internals.Variable] = []
    nodes = dict(found.nodes)
    for path, names in saved.record["optimizers"].items():
        optimizer = nodes.get(path)
        if optimizer is None or optimizer.built or names is None:
            continue
        missing = [name for name in names if name not in found.variables]
        if missing:
            raise _mismatch(nodes, missing, [])
        with scope() as slots:
            optimizer.build(_in_order_of(nodes[path.rpartition("/")[0]], [found.variables[name] for name in names]))
        made += list(slots or ())
    return made


def _in_order_of(model: keras.Model, variables: list[internals.Variable]) -> list[internals.Variable]:
    """The variables in the order the model lists them now, if it lists them all: JAX pairs them by place."""
    wanted = {id(variable) for variable in variables}
    listed = [variable for variable in model.trainable_variables if id(variable) in wanted]
    return listed if len(listed) == len(variables) else variables


def _built_metrics(model: keras.Model, saved: _Saved) -> bool:
    """Make the metrics that were there; False where that cannot be."""
    record = saved.record["metrics"]
    if record is None or not getattr(model, "compiled", False):
        return True
    signature = saved.manifest.signature
    return signature is not None and compiled.build_metrics(model, record, signature)


def _build_metrics(model: keras.Model, saved: _Saved) -> None:
    if not _built_metrics(model, saved):
        warnings.warn(
            "the running values of the metrics could not be restored; they start from zero at the first batch",
            stacklevel=2,
        )


def _cannot_rebuild(config: Any, error: Exception) -> ModelkeepError:
    if "requires TensorFlow" in str(error):  # Keras says so of text and lookup layers, under any backend
        return MissingExtra(
            "a layer of this model works with TensorFlow alone, whatever the backend, and it is not installed here",
            hint="pip install 'modelkeep[tensorflow]'",
        )
    name = config.get("class_name", "the model") if isinstance(config, dict) else "the model"
    return CannotRebuild(
        f"{name} cannot be rebuilt from its config ({type(error).__name__}: {error})",
        hint="its class needs get_config with every argument of its constructor, and from_config if those are objects; "
        "or keep the weights alone: architecture=False",
    )


# --- filling


def _compare(found: Inventory, saved: _Saved, *, compiled: bool) -> None:
    """Raise CannotRebuild or NotFaithful where a name stands alone on either side.

    Stored names are passed by where what held them was made by ``compile`` and is not there.
    """
    by_themselves = _names_loaded_by_themselves(found.nodes, saved)
    stored = saved.tensors.keys() - by_themselves - {TORCH_RNG}
    there = {name for name in found.variables.keys() - by_themselves if not (saved.fresh and _begins_anew(name))}
    nodes = dict(found.nodes)
    passed_by = {name for name in stored - there if _only_compile_makes(name, saved, nodes, compiled=compiled)}
    without_variable = stored - there - passed_by
    without_tensor = {name for name in there - stored if not _is_metric_of_inner_model(name)}
    if without_variable or without_tensor:
        raise _mismatch(nodes, sorted(without_variable), sorted(without_tensor))


def _compare_owners(found: Inventory, saved: _Saved) -> None:
    """Raise NotFaithful where a path leads to a layer of another name, or to another optimizer, than it did.

    Tensors are named by path: two layers of one shape that were swapped would take each other's values, and one
    optimizer's momentum another's velocity. Names that Keras chose tell nothing.
    """
    for what, was, now in (
        ("layer", saved.record["layer_names"], layer_names(found)),
        ("optimizer", saved.record["optimizer_classes"], optimizer_classes(found)),
    ):
        other = {path: name for path, name in now.items() if path in was and was[path] != name}
        if other:
            raise NotFaithful(
                f"this model has another {what} where the saved one had its own",
                found=_listed([f"{name} ({path})" for path, name in other.items()]),
                expected=_listed([f"{was[path]} ({path})" for path in other]),
                hint=_OWNER_HINTS[what],
            )


def _compare_shapes(found: Inventory, saved: _Saved) -> None:
    shapes = {name: tuple(map(int, variable.shape)) for name, variable in found.variables.items()}
    other = [name for name, tensor in saved.tensors.items() if name in shapes and tensor.shape != shapes[name]]
    if other:
        raise NotFaithful(
            "this model has weights of another shape",
            found=_listed([f"{found.variables[name].path} {shapes[name]}" for name in other]),
            expected=_listed([str(saved.tensors[name].shape) for name in other]),
            hint="build the model as it was saved",
        )


_OWNER_HINTS = {
    "layer": "weights are matched by place and by name; build the model as it was saved",
    "optimizer": "compile with the optimizer of the saved model, or compile after loading, which starts a fresh one",
}


def _only_compile_makes(name: str, saved: _Saved, nodes: Mapping[str, internals.Node], *, compiled: bool) -> bool:
    """Whether a tensor's owner is missing for no other reason than that ``compile`` was not, or not fully, repeated."""
    if name.startswith("weights/"):
        return False
    if "/compiled/" in name:
        return True  # metrics that only the first batch makes: said by a warning where it matters
    if name.startswith("optimizer/"):
        return not compiled or _optimizer_of(name, saved) not in nodes
    return _owner(name) not in nodes and (not compiled or internals.has_own_compile(nodes[""]))


def _begins_anew(name: str) -> bool:
    """Whether it is an optimizer's, or a metric's that ``compile`` made."""
    return name.startswith("optimizer/") or "/compiled/" in name


def _optimizer_of(name: str, saved: _Saved) -> str:
    inner = name.removeprefix("optimizer/")
    others = (path for path in saved.record["optimizers"] if path != "optimizer")
    return next((path for path in others if inner.startswith(f"{path}/")), "optimizer")


def _is_metric_of_inner_model(name: str) -> bool:
    """Metrics of an inner model count nothing while the outer one is trained, and come and go with that."""
    return "/compiled/" in name and not name.startswith("state/compiled/")


def _owner(name: str) -> str:
    """The path of the node that answers for a tensor of weights or state."""
    inner = name.split("/")[1:-1]
    return "/".join(inner[:-1] if inner and inner[-1] in ("vars", "compiled") else inner)


def _mismatch(
    nodes: Mapping[str, internals.Node], without_variable: list[str], without_tensor: list[str]
) -> ModelkeepError:
    for name in without_variable:
        if name.startswith("weights/") and not _nearest(nodes, _owner(name)).built:
            cls = type(_nearest(nodes, _owner(name), of_the_user=True)).__name__
            return CannotRebuild(
                f"{cls} was rebuilt from its config, but without its variables; missing: {_listed(without_variable)}",
                hint=f"add build(input_shape) to {cls}, or get_build_config and build_from_config, so that it makes "
                "all its variables without being called; or keep the weights alone: architecture=False",
            )
    return NotFaithful(
        "the rebuilt model has other variables than the saved one",
        found=f"without a saved value: {_listed(without_tensor)}",
        expected=f"also: {_listed(without_variable)}",
        hint="was a custom class edited since? load it with the class as it was",
    )


def _nearest(nodes: Mapping[str, internals.Node], path: str, *, of_the_user: bool = False) -> internals.Node:
    """What is at ``path`` or, where nothing is, around it; ``of_the_user``: whose class is not Keras' own."""
    while path and (path not in nodes or (of_the_user and not is_user_code(type(nodes[path])))):
        path = path.rpartition("/")[0]
    return nodes[path]


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "none"


def _fill(found: Inventory, saved: _Saved, names: Set[str]) -> None:
    """Give the variables of these names their stored values. NotFaithful where shape, dtype or name differs."""
    made_trainable = internals.made_trainable(found.nodes)
    same_release = _release(keras.version()) == _release(saved.record["keras"])
    for name, tensor in saved.tensors.items():
        if name not in names:
            continue
        variable = found.variables[name]
        if same_release and name.startswith("weights/") and own_name(tensor.variable) != own_name(variable.path):
            raise NotFaithful(
                f"{name} belongs to another variable than it was saved from",
                found=variable.path,
                expected=tensor.variable,
                hint="was a custom class edited since? load it with the class as it was",
            )
        assign(variable, saved.array(name), exact=saved.same_backend, made_trainable=id(variable) in made_trainable)


def _freeze_layers(nodes: list[tuple[str, internals.Node]], saved: _Saved) -> None:
    """Give every layer its ``trainable``, outer ones first: each hands its own down."""
    frozen = set(saved.record["frozen_layers"])
    for path, node in nodes:
        if isinstance(node, keras.Layer) and node.trainable is (path in frozen):
            node.trainable = path not in frozen


def _finish(found: Inventory, saved: _Saved) -> None:
    frozen = set(saved.record["frozen_variables"])
    for name, variable in found.variables.items():
        if name.startswith("weights/") and variable.trainable is (name in frozen):
            variable.trainable = name not in frozen
    for _, node in found.nodes:
        internals.finish(node)
    _load_assets(found.nodes, saved)


# --- classes that load themselves


def _names_loaded_by_themselves(nodes: list[tuple[str, internals.Node]], saved: _Saved) -> set[str]:
    roots = tuple(f"{prefix(path, node)}/vars/" for path, node in nodes if internals.saves_itself(node))
    return {name for name in saved.tensors if name.startswith(roots)}


def _load_by_themselves(nodes: list[tuple[str, internals.Node]], saved: _Saved) -> None:
    """Hand the classes that have their own ``load_own_variables`` what their ``save_own_variables`` gave."""
    for path, node in nodes:
        if not internals.saves_itself(node):
            continue
        root = f"{prefix(path, node)}/vars/"
        run_initializers(internals.own_variables(node))  # it may assign to them
        store = {name.removeprefix(root): saved.array(name) for name in saved.tensors if name.startswith(root)}
        node.load_own_variables(store)


def _load_assets(nodes: list[tuple[str, internals.Node]], saved: _Saved) -> None:
    """Hand layers the files they wrote in ``save_assets``, each in a folder of its own."""
    readers = [(path, node) for path, node in nodes if hasattr(node, "load_assets")]
    if not readers:
        return
    with tempfile.TemporaryDirectory(prefix="modelkeep-") as folder:
        for part in saved.manifest.parts:
            if part.name.startswith(LAYER_ASSETS):
                file = Path(folder, _inside(part.name.removeprefix(LAYER_ASSETS)))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(saved.parts(part.name))
        for path, node in readers:
            own = Path(folder, path)
            own.mkdir(parents=True, exist_ok=True)
            node.load_assets(str(own))


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise UnsafeContent("a layer asset would be written outside its folder", found=repr(name))
    return path
