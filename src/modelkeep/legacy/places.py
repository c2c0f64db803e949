"""What stands where in a config: which argument holds which kind of object, and where Keras 3 keeps that kind."""

from __future__ import annotations

from typing import Any

from modelkeep.legacy.rules import JSON, Kind

# The public module of Keras 3 for each kind.
MODULES: dict[Kind, str] = {
    "layer": "keras.layers",
    "initializer": "keras.initializers",
    "regularizer": "keras.regularizers",
    "constraint": "keras.constraints",
    "optimizer": "keras.optimizers",
    "schedule": "keras.optimizers.schedules",
    "loss": "keras.losses",
    "metric": "keras.metrics",
    "policy": "keras.dtype_policies",
}

# The end of an argument's name → what it holds; Keras names its arguments alike throughout.
_ENDINGS: tuple[tuple[str, Kind], ...] = (
    ("initializer", "initializer"),
    ("init", "initializer"),
    ("regularizer", "regularizer"),
    ("constraint", "constraint"),
    ("layer", "layer"),
    ("layers", "layer"),
    ("cell", "layer"),
    ("cells", "layer"),
    ("model", "layer"),
    ("learning_rate", "schedule"),
    ("lr", "schedule"),
    ("optimizer", "optimizer"),
    ("loss", "loss"),
    ("metrics", "metric"),
    ("inner_optimizer", "optimizer"),
    ("dtype", "policy"),
    ("activation", "layer"),  # an advanced activation in an argument's place
)

_MODELS = {"Functional": "keras.src.models.functional", "Sequential": "keras"}
_KERAS = frozenset({"keras", "tf_keras", "tensorflow"})


def is_object(value: Any) -> bool:
    """Whether Keras would build something from a value."""
    return isinstance(value, dict) and isinstance(value.get("class_name"), str) and "config" in value


def is_graph(config: Any) -> bool:
    """Whether a config is that of a functional model, whatever its class."""
    return isinstance(config, dict) and {"layers", "input_layers", "output_layers"} <= config.keys()


def kind_of(argument: str, value: JSON) -> Kind | None:
    """What kind of object an argument holds; None where its name does not tell, nor the module beside it."""
    for ending, kind in _ENDINGS:
        if argument == ending or argument.endswith(f"_{ending}"):
            return kind
    module = value.get("module")
    return next((kind for kind, place in MODULES.items() if module == place), None)


def module_of(class_name: str, kind: Kind) -> str:
    """Where Keras 3 keeps a class of that kind, if it has one of that name."""
    return _MODELS.get(class_name, MODULES[kind])


def is_foreign(module: Any) -> bool:
    """Whether a module that a config names is neither Keras' nor TensorFlow's."""
    return isinstance(module, str) and module.partition(".")[0] not in _KERAS
