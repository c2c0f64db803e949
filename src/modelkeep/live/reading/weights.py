"""Weights alone, brought into a model that is there: by path, by layer, or by name.

========================  ==========================================================================================
form                      how a tensor finds its variable
========================  ==========================================================================================
``weights_h5``            by its path in the model, as Keras 3 numbers it (:mod:`modelkeep.live.reading.store`)
``legacy_weights_h5``     by its layer, of that name or place, and in it by its place (:mod:`.legacy_weights`)
``safetensors``, ``npz``  by name: its layers' names and its own, or its path in the model or in Keras' files;
                          where these differ in nothing but the numbers of automatic names, in order
========================  ==========================================================================================

Keras' own loader by name loads nothing, without a word, where no name fits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import keras

from modelkeep.errors import UsageError
from modelkeep.formats.contents import Contents
from modelkeep.live import internals, matching
from modelkeep.live.internals import Variable
from modelkeep.live.reading import Read, legacy_weights, store
from modelkeep.live.variables import inventory, own_name, without_number
from modelkeep.report import Finding, Severity


def read(
    contents: Contents,
    *,
    into: keras.Model | None = None,
    custom_objects: Any = None,
    trust: Sequence[str] = (),
    compile: bool = True,
    skip: Sequence[str] = (),
) -> Read:
    """The model ``into`` with the weights of a file, and its optimizer's state if it is compiled and the file has it.

    ``skip`` names what may be left out (:func:`modelkeep.live.matching.assign`). Raises UsageError without a model
    or for one that is not built, NotFaithful with its report, the model as it was, where not everything fits.
    """
    if into is None:
        raise UsageError(
            f"{contents.path.name} holds weights alone",
            hint="say what network they are of: mk.load(path, architecture='model.json'), or into=model",
        )
    if not into.built:
        raise UsageError(
            f"the model {into.name!r} has no weights yet, because it was never built",
            hint="call it on a batch of data, or model.build(input_shape), before loading",
        )
    return Read(into, _READERS[contents.form](into, contents, skip))


def _by_path(model: keras.Model, contents: Contents, skip: Sequence[str]) -> tuple[Finding, ...]:
    return store.fill(model, contents, skip=skip)


# --- by layer


def _by_layer(model: keras.Model, contents: Contents, skip: Sequence[str]) -> tuple[Finding, ...]:
    names = [entry["layer"] for entry in contents.details["layers"] if entry["weights"]]
    partners, findings = _partners(names, [layer for layer in model.layers if layer.weights])
    plan = legacy_weights.plan(model, contents, renamed=partners)
    report = matching.assign(plan.pairs, missing=plan.missing, unused=plan.unused, skip=skip)
    for _, node in internals.walk(model):
        internals.finish(node)
    return (*report.findings, *plan.findings, *findings)


def _partners(names: list[str], layers: list[keras.Layer]) -> tuple[dict[str, str], tuple[Finding, ...]]:
    """For each layer, by its name, what it is called in the file (nothing, where it is not there); how that was found.

    Chosen names go before everything; automatic ones, which count through a process, tell no more than a class.
    """
    here = [layer.name for layer in layers]
    chosen = {layer.name for layer in layers if internals.given_name(layer) is not None}
    if set(names) == set(here):
        return {name: name for name in here}, ()
    if not chosen.intersection(names):
        partners = dict(zip_longest(here, names[: len(here)], fillvalue=""))
        return partners, (_order(f"{len(names)} layers of other names were matched in order"),)
    partners = {name: name if name in names else "" for name in here}
    for stem in {without_number(name) for name in here if name not in chosen}:
        mine = [name for name in here if name not in chosen and without_number(name) == stem]
        theirs = [name for name in names if name not in chosen and without_number(name) == stem]
        partners |= dict(zip_longest(mine, theirs[: len(mine)], fillvalue=""))
    return partners, (_order("layers that Keras named itself were matched in order"),)


def _order(text: str) -> Finding:
    return Finding("weights-order", Severity.NOTE, text)


# --- by name


def _by_name(model: keras.Model, contents: Contents, skip: Sequence[str]) -> tuple[Finding, ...]:
    nodes = internals.walk(model)
    variables = {name: v for name, v in inventory(nodes).variables.items() if name.startswith("weights/")}
    tensors = {tensor.name.removesuffix(":0"): tensor for tensor in contents.tensors}
    names, findings = _names(model, variables, list(tensors))
    pairs = [(v, tensors.pop(names[place])) for place, v in variables.items() if names.get(place) in tensors]
    missing = [v for place, v in variables.items() if all(v is not paired for paired, _ in pairs)]
    report = matching.assign(pairs, missing=missing, unused=tensors.values(), skip=skip)
    for _, node in nodes:
        internals.finish(node)
    return (*report.findings, *findings)


def _names(
    model: keras.Model, variables: dict[str, Variable], wanted: list[str]
) -> tuple[dict[str, str], tuple[Finding, ...]]:
    """For each variable, by its place, what it is called in a file that has the names ``wanted``."""
    names = names_of(model, variables)
    ways = (
        names,
        {place: variable.path for place, variable in variables.items()},
        {place: variable.path.removeprefix(f"{model.name}/") for place, variable in variables.items()},
        {place: place.removeprefix("weights/") for place in variables},
    )
    best = max(ways, key=lambda way: len(set(wanted).intersection(way.values())))
    if set(best.values()) == set(wanted):
        return best, ()
    by_rank = _by_rank(model, names, wanted)
    if not by_rank:
        return best, ()
    return by_rank, (_order("layers that Keras named itself were matched in the order of their numbers"),)


def names_of(model: keras.Model, variables: Iterable[str]) -> dict[str, str]:
    """What each variable is called in a file, by its place: its layers' names and its own, ``encoder/query/kernel``.

    For most models these are the variables' paths without the model's own name. A variable's path tells where it
    was built, though, which is elsewhere once a model comes out of a file. Where two would be called the same, both
    go by their places.
    """
    found = inventory(internals.walk(model))
    layers = {path: node.name for path, node in found.nodes if path and isinstance(node, keras.Layer)}
    names = {place: _name(place, found.variables[place], layers) for place in variables}
    count = Counter(names.values())
    return {place: name if count[name] == 1 else place.removeprefix("weights/") for place, name in names.items()}


def _name(place: str, variable: Variable, layers: Mapping[str, str]) -> str:
    path = place.removeprefix("weights/").rpartition("vars/")[0].strip("/")
    around = [path[: match.start()] for match in re.finditer("/|$", path)]
    return "/".join([*(layers[outer] for outer in around if outer in layers), own_name(variable.path)])


def _by_rank(model: keras.Model, names: dict[str, str], wanted: list[str]) -> dict[str, str]:
    """Names that differ in the numbers of automatic names alone, paired by rank; empty where more differs."""
    layers = [node for _, node in internals.walk(model) if isinstance(node, keras.Layer)]
    stems = {without_number(layer.name) for layer in layers if internals.given_name(layer) is None}

    def numbered(name: str) -> tuple[str, list[int]]:
        parts = name.removeprefix(f"{wanted_model}/").split("/")
        bare = [without_number(part) if without_number(part) in stems else part for part in parts]
        numbers = [int(part.rpartition("_")[2]) if part != stem else 0 for part, stem in zip(parts, bare, strict=True)]
        return "/".join(bare), numbers

    wanted_model = next(iter(wanted), "").partition("/")[0] if _have_one_root(wanted) else ""
    ranked = sorted(wanted, key=numbered)
    here = sorted(names, key=lambda place: numbered(names[place]))
    same = [numbered(name)[0] for name in ranked] == [numbered(names[place])[0] for place in here]
    return dict(zip(here, ranked, strict=True)) if same else {}


def _have_one_root(names: list[str]) -> bool:
    return len({name.partition("/")[0] for name in names}) == 1 and all(name.count("/") > 1 for name in names)


_READERS: dict[str, Callable[[keras.Model, Contents, Sequence[str]], tuple[Finding, ...]]] = {
    "weights_h5": _by_path,
    "legacy_weights_h5": _by_layer,
    "safetensors": _by_name,
    "npz": _by_name,
}
