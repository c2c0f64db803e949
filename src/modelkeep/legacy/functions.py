"""Functions that a config names: activations, and the losses and metrics of ``compile``."""

from __future__ import annotations

from typing import Any

from modelkeep.legacy.rules import Note

HARD_SIGMOID = "modelkeep>hard_sigmoid"


def named(name: str, argument: str, place: str, notes: list[Note]) -> Any:
    """The function that a text means, where the text alone would mean something else in Keras 3."""
    if argument.endswith("activation") and name == "hard_sigmoid":
        message = "hard_sigmoid stays min(max(0.2 x + 0.5, 0), 1); Keras 3 made it x / 6 + 0.5"
        notes.append(Note("hard-sigmoid", place, message))
        return function(HARD_SIGMOID)
    return name


def function(name: str, module: str = "builtins") -> dict[str, str]:
    """A function as Keras 3 writes it."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}
