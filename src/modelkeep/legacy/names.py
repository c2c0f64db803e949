"""Names of layers that Keras 3 does not allow: those with a slash, which it keeps for paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelkeep.legacy.rules import JSON


def without_slashes(names: Sequence[str]) -> dict[str, str]:
    """The new name of each that has a slash: with underscores, and a number where another has that name."""
    taken, new = set(names), dict[str, str]()
    for name in dict.fromkeys(names):
        if "/" in name:
            new[name] = _free(name.replace("/", "_"), taken)
            taken.add(new[name])
    return new


def rename(config: JSON) -> dict[str, str]:
    """Take the slashes out of the names of a model's own layers, in place; the answer has the old name of each new."""
    new = without_slashes([_name(layer) for layer in config["layers"]])
    if new:
        for layer in config["layers"]:
            for named in (layer, layer["config"]):
                if isinstance(named, dict) and named.get("name") in new:
                    named["name"] = new[named["name"]]
            layer["inbound_nodes"] = _replaced(layer.get("inbound_nodes", []), new)
        for end in ("input_layers", "output_layers"):
            if end in config:
                config[end] = _replaced(config[end], new)
    return {after: before for before, after in new.items()}


def _name(layer: Any) -> str:
    return str(layer.get("name") or (layer["config"].get("name", "") if isinstance(layer["config"], dict) else ""))


def _free(name: str, taken: set[str]) -> str:
    number = 1
    free = name
    while free in taken:
        free = f"{name}_{number}"
        number += 1
    return free


def _replaced(value: Any, names: dict[str, str]) -> Any:
    """References to layers, which are lists that begin with a name and two numbers."""
    if isinstance(value, dict):
        return {key: _replaced(inner, names) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    inner = [_replaced(part, names) for part in value]
    if len(inner) >= 3 and isinstance(inner[0], str) and inner[0] in names and isinstance(inner[1], int):
        inner[0] = names[inner[0]]
    return inner
