"""Functions that a config names: activations above all, which are texts in configs."""

from __future__ import annotations

from typing import Any

from modelkeep.legacy.rules import JSON, Note

HARD_SIGMOID = "modelkeep>old_hard_sigmoid"
LAMBDA = "__lambda__"  # what Keras 3 writes for a function by value

# What a text means in Keras 3 as it did in Keras 2.
_SAME = frozenset(
    [
        "elu",
        "exponential",
        "gelu",
        "leaky_relu",
        "linear",
        "log_softmax",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "softmax",
        "softplus",
        "softsign",
        "swish",
        "tanh",
    ]
)
# Functions of TensorFlow were written by the names that they have inside it.
_RENAMED = {
    "log_softmax_v2": "log_softmax",
    "softmax_v2": "softmax",
    "identity": "linear",
    "hard_swish": "hard_silu",
}
# Activations of TensorFlow's that are operations of Keras'.
_OPERATIONS = frozenset(
    [
        "abs",
        "ceil",
        "cos",
        "cosh",
        "erf",
        "exp",
        "expm1",
        "floor",
        "log",
        "log1p",
        "negative",
        "reciprocal",
        "round",
        "rsqrt",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "tan",
        "log_sigmoid",
    ]
)


def named(name: str, argument: str, place: str, notes: list[Note]) -> Any:
    """What a text means that is given for a function; other texts are what they were."""
    if argument.endswith("initializer"):
        return {"zero": "zeros", "one": "ones"}.get(name, name)
    if not argument.endswith("activation") or name in _SAME:
        return name
    if name == "hard_sigmoid":
        message = f"{argument} hard_sigmoid stays min(max(0.2 x + 0.5, 0), 1); Keras 3 made it x / 6 + 0.5"
        notes.append(Note("hard-sigmoid", place, message))
        return function(HARD_SIGMOID)
    if name in _RENAMED:
        notes.append(Note("tensorflow-activation", place, f"{argument} {name} is {_RENAMED[name]}"))
        return _RENAMED[name]
    if name in _OPERATIONS:
        notes.append(Note("tensorflow-activation", place, f"{argument} {name} is keras.ops.{name}"))
        return function(name, "keras.ops")
    return function(name)


def function(name: str, module: str = "builtins") -> JSON:
    """A function as Keras 3 writes it."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def by_value(written: Any) -> JSON:
    """A function that was written by its name, or by its code, which goes no further than this."""
    return function(written) if isinstance(written, str) else {"class_name": LAMBDA, "config": {}}
