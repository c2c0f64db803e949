"""Which layer each tensor of a file belongs to, and so how many parameters each layer has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from modelkeep.formats.contents import Contents

_DEEPEST = 16
_BEFORE_3_3 = "_layer_checkpoint_dependencies"  # what the group of all layers was called then


def parameters_by_layer(contents: Contents) -> dict[str, int]:
    """The count of parameters by the layer's path in the config (``inner/dense`` within a nested model).

    Empty where the form does not tell which layer a tensor belongs to.
    """
    sizes = {tensor.name: prod(tensor.shape) for tensor in contents.tensors}
    if contents.form == "keras":
        return _by_path(contents.config, sizes)
    groups = contents.details.get("layers")
    return _by_group(groups, sizes) if isinstance(groups, list) else {}


def _by_group(groups: list[Any], sizes: Mapping[str, int]) -> dict[str, int]:
    """Keras 1 and 2 write the weights of each layer, or nested model, under its name."""
    counts: dict[str, int] = {}
    for group in groups:
        names = group.get("weights", ())
        counts[str(group.get("layer"))] = sum(sizes.get(name, 0) for name in names)
    return counts


def _by_path(config: Any, sizes: Mapping[str, int]) -> dict[str, int]:
    """Keras 3 names the group of a layer after its class, numbered within the model it is in."""
    below: Counter[str] = Counter()
    for name, size in sizes.items():
        steps = ["layers" if step == _BEFORE_3_3 else step for step in name.split("/")]
        for end in range(1, len(steps)):
            below["/".join(steps[:end])] += size
    return {path: below[group] for path, group in _groups(config, "", "", 0)}


def _groups(model: Any, path: str, group: str, depth: int) -> Iterator[tuple[str, str]]:
    inner = model.get("config") if isinstance(model, Mapping) else None
    listed = inner.get("layers") if isinstance(inner, Mapping) else None
    if not isinstance(listed, list) or depth >= _DEEPEST:
        return
    seen: Counter[str] = Counter()
    for layer in listed:
        if not isinstance(layer, Mapping):
            continue
        config = layer.get("config")
        name = str(layer.get("name") or (config.get("name") if isinstance(config, Mapping) else None))
        kind = _snake(str(layer.get("class_name")))
        number = f"_{seen[kind]}" if seen[kind] else ""
        seen[kind] += 1
        own = f"{group}layers/{kind}{number}"
        yield f"{path}{name}", own
        yield from _groups(layer, f"{path}{name}/", f"{own}/", depth + 1)


def _snake(class_name: str) -> str:
    """``Conv2DTranspose`` → ``conv2d_transpose``: keras.src.utils.naming.to_snake_case."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
