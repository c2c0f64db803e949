"""What a config may name: Keras' own serialisable classes and functions, and what the caller gave.

Keras finds classes and functions by the names a config holds, and published weaknesses of its readers
(CVE-2025-1550, -8747, -9905, -9906, -12058, -49655) all let a file choose something that no model is made
of. So nothing is forbidden by name here; what is allowed is derived from Keras' public API, and everything
else must have been given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import keras

from modelkeep.errors import UnsafeContent
from modelkeep.live import legacy_objects
from modelkeep.live.configs import FUNCTION, VALUES, Place, is_code, walk

# Kind → the class that all of that kind extend, the more special first.
KINDS: dict[str, tuple[type, ...]] = {
    "model": (keras.Model,),
    "metric": (keras.metrics.Metric,),
    "layer": (keras.Layer,),
    "loss": (keras.losses.Loss,),
    "optimizer": (keras.optimizers.Optimizer,),
    "schedule": (keras.optimizers.schedules.LearningRateSchedule,),
    "initializer": (keras.initializers.Initializer,),
    "regularizer": (keras.regularizers.Regularizer,),
    "constraint": (keras.constraints.Constraint,),
    "dtype policy": (keras.dtype_policies.DTypePolicy,),
    "quantizer": (keras.quantizers.Quantizer,),
    "operation": (keras.Operation,),
    "seed generator": (keras.random.SeedGenerator,),
    # These came later than the oldest Keras that works.
    "quantization": tuple(filter(None, [getattr(keras.quantizers, "QuantizationConfig", None)])),
    "distillation": tuple(filter(None, [getattr(getattr(keras, "distillation", None), "DistillationLoss", None)])),
}

# What else Keras itself agrees to build from its inner modules.
_SAVEABLE = tuple(base for base in keras.Layer.__mro__ if base.__name__ == "KerasSaveable")

# They run or unpickle something from outside the config, so the caller must give them by hand.
_FOREIGN_LAYERS = frozenset({"TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})

# Where Keras looks for a function that a config names without its module.
_BUILTIN_FUNCTIONS = ("activations", "losses", "metrics")
# Public functions there that build whatever a config tells them to.
_BUILDERS = frozenset({"get", "serialize", "deserialize"})
# Arguments of Keras' lookup layers that are words, but are read as a file's name where they are one text.
_FILE_ARGUMENTS = frozenset({"vocabulary", "idf_weights"})


def kind_of(cls: type) -> str:
    """The kind of a class, in Keras' terms; ``object`` for anything else with a config."""
    return next((kind for kind, bases in KINDS.items() if issubclass(cls, bases)), "object")


def own_class(module: str | None, name: str) -> type | None:
    """Keras' own serialisable class of that name, if it may be built without being given; or one that is kept here."""
    if module == legacy_objects.__name__:
        return legacy_objects.CLASSES.get(f"{legacy_objects.PACKAGE}>{name}")
    found = _public(module, name)
    if not isinstance(found, type) or not _is_keras(found) or name in _FOREIGN_LAYERS:
        return None
    return found if kind_of(found) != "object" or issubclass(found, _SAVEABLE) else None


def own_function(module: str | None, name: str) -> Callable[..., Any] | None:
    """Keras' own function that a config means by that name; ``builtins`` is the module Keras writes for all of them.

    What modelkeep keeps of older Keras counts as Keras' own.
    """
    if name in legacy_objects.FUNCTIONS:
        return legacy_objects.FUNCTIONS[name]
    if name in _BUILDERS:
        return None
    places = [f"keras.{place}" for place in _BUILTIN_FUNCTIONS] if module == "builtins" else [module]
    found = (_public(place, name) for place in places if place and _holds_functions(place))
    return next((function for function in found if isinstance(function, FunctionType) and _is_keras(function)), None)


def public_module(function: object) -> str | None:
    """The public module of one of Keras' own functions that is pure, but that Keras cannot find by its name alone."""
    name = getattr(function, "__name__", "")
    applications = (place.replace("keras.api.", "keras.") for place in list(sys.modules) if ".applications." in place)
    places = ["keras.ops", *applications]
    return next((place for place in places if pure_function(place, name) is function), None)


def pure_function(module: str, name: str) -> Callable[..., Any] | None:
    """The function of ``keras.ops``, or an application's ``preprocess_input``, that a record names."""
    is_pure = module == "keras.ops" or (module.startswith("keras.applications.") and name == "preprocess_input")
    found = _public(module, name)
    return found if is_pure and isinstance(found, FunctionType) and _is_keras(found) else None


def check_config(config: Any, objects: Mapping[str, object]) -> None:
    """Refuse a config that names anything but Keras' own or ``objects``, before anything is built from it.

    ``objects`` is what ``resolve`` gave, by the name the config uses. Raises UnsafeContent with the place.
    """
    for place in walk(config):
        if place.is_lambda or is_code(place.value):
            raise _refused(place, "it holds marshalled code", "give a named function instead of a lambda")
        if place.is_object:
            _check_object(place, objects)


def _check_object(place: Place, objects: Mapping[str, object]) -> None:
    node = place.value
    name, module, registered = node["class_name"], node.get("module"), node.get("registered_name")
    if name in VALUES:
        return
    if not isinstance(module, str | None) or not isinstance(registered, str | None):
        raise _refused(place, "it names no class", _GIVE_IT)
    if name == FUNCTION:
        named = node["config"]
        known = isinstance(named, str) and (named in objects or own_function(module, named) is not None)
        if not known or registered not in (None, FUNCTION, named):
            raise _refused(place, f"it names the function {named!r} of {module!r}", _GIVE_IT)
        return
    if registered in objects or (registered is None and name in objects):
        return
    names = (None, name, f"{legacy_objects.PACKAGE}>{name}" if module == legacy_objects.__name__ else name)
    if own_class(module, name) is None or registered not in names:
        raise _refused(place, f"it names the class {registered or name!r} of {module!r}", _GIVE_IT)
    for argument in _FILE_ARGUMENTS:
        if isinstance(node["config"], Mapping) and isinstance(node["config"].get(argument), str):
            raise _refused(place, f"its {argument} would be read from a file", "give the words themselves to the layer")


_GIVE_IT = "only Keras' own and the recorded custom objects may be built; add it to custom_objects if you trust it"


def _refused(place: Place, why: str, hint: str) -> UnsafeContent:
    return UnsafeContent(f"the config was refused at {place}: {why}", hint=hint)


def _public(module: str | None, name: str) -> Any:
    """What a module of Keras that is loaded already holds under a name; nothing is imported."""
    if module is None or not (module == "keras" or module.startswith("keras.")):
        return None
    # Before 3.10 `keras.layers` was another name for the module `keras.api.layers`.
    loaded = sys.modules.get(module) or sys.modules.get(f"keras.api{module.removeprefix('keras')}")
    return None if loaded is None else vars(loaded).get(name)


def _holds_functions(module: str) -> bool:
    return (
        module == "keras.ops" or module.startswith("keras.ops.") or module.removeprefix("keras.") in _BUILTIN_FUNCTIONS
    )


def _is_keras(thing: object) -> bool:
    return str(getattr(thing, "__module__", "")).startswith("keras.")
