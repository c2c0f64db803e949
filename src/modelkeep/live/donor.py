"""Where weights are taken from: the tensors of a version, a checkpoint or any file, layer by layer; nothing is built.

===============================  ===================================================================================
source                           what tells of its layers
===============================  ===================================================================================
version, checkpoint, ``.keras``  their config: paths, names, classes, order, wiring. Of a subclassed model the paths
                                 alone, and what the source calls each layer
``.weights.h5``                  paths, and the names that it notes
``.h5`` of Keras 1 and 2,        names of layers in order, in each its weights in the order of Keras 2
SavedModels of Keras 2
safetensors, ``.npz``,           the names of its tensors: ``encoder/dense/kernel``
TensorFlow checkpoints, exports
===============================  ===================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

from modelkeep.errors import CannotLoad
from modelkeep.formats import keras_archive
from modelkeep.formats.contents import Contents, ForeignTensor
from modelkeep.formats.forms import look, title_of
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.formats.saved_model import OWN
from modelkeep.legacy.names import without_slashes
from modelkeep.live import opening, shards
from modelkeep.live.capture import CONFIG
from modelkeep.live.correspondence import Holder, Weight, paired
from modelkeep.live.internals import Variable
from modelkeep.live.network import Network
from modelkeep.live.outline import Listed, Names, outline, wiring
from modelkeep.live.reading import legacy_weights, saved_model
from modelkeep.live.stored import Stored
from modelkeep.live.tensors import array, numpy_dtype
from modelkeep.manifest import Manifest
from modelkeep.storage.blobs import Blobs

_OLD_LAYERS = "_layer_checkpoint_dependencies"
_STATES = ("seed_generator_state", "StateVar", "_state_var")  # of random generators

Pair: TypeAlias = tuple[tuple["Donated", ...], ForeignTensor, Variable]
"""Tensors of the source (several where Keras 1 kept the gates of a cell apart), the value they make, its variable."""


@dataclass(frozen=True, eq=False)
class Donated:
    """A tensor of the source and what is known of the layer that it belongs to.

    ``layer`` are the names of the models around that layer and its own, ``within`` those of layers in it and of the
    tensor itself. ``path`` is where the layer lies in Keras' files, ``key`` where the tensor lies below it.
    """

    tensor: ForeignTensor
    layer: Names
    within: Names
    path: str | None = None
    key: str = ""
    listed: Listed | None = None
    place: int | None = None
    feeds: tuple[Names, ...] | None = None
    renamed: bool = False

    @property
    def name(self) -> str:
        """What people call it: ``encoder/dense/kernel``."""
        return "/".join((*self.layer, *self.within))


@dataclass(frozen=True)
class Donor:
    """Weights to be taken, readable while it is open. ``name`` tells people where from, ``source`` a lineage.

    ``states`` are the names of what stays where it is: states of random generators and metrics, an optimizer's slots.
    """

    name: str
    source: str
    digest: str
    tensors: tuple[Donated, ...]
    states: tuple[str, ...] = ()
    legacy: Contents | None = None  # where the order of Keras 2 tells which weight of a layer is which


def renamed(donated: Donated, name: str, network: Network) -> Donated:
    """The tensor under the name that the model has for it."""
    if name == donated.name:
        return donated
    layer, within = network.split(tuple(name.split("/")))
    return replace(donated, layer=layer, within=within, path=None, feeds=None, renamed=True)


def holders(tensors: Iterable[Donated], network: Network) -> list[Holder[Donated]]:
    """The layers that tensors belong to, in the source's order.

    Where the source does not tell a layer's class, a name that Keras gives to a class of the network's tells it.
    """
    groups: dict[object, list[Donated]] = {}
    for one in tensors:
        groups.setdefault((one.layer, one.path), []).append(one)
    return [
        Holder(
            names=first.layer,
            weights=tuple(Weight(one.within, one.key, one.tensor.shape, one) for one in group),
            path=first.path,
            kind=first.listed.kind if first.listed else network.kind_of(first.layer),
            place=first.place,
            feeds=first.feeds,
            renamed=first.renamed,
        )
        for group in groups.values()
        for first in group[:1]
    ]


def pairs(donor: Donor, source: Holder[Donated], target: Holder[Variable], layer: Any) -> Iterator[Pair]:
    """Which tensor goes into which variable of two layers that are one, in the layout that Keras has today."""
    if donor.legacy is None:
        yield from (((mine.item,), mine.item.tensor, theirs.item) for mine, theirs in paired(source, target))
        return
    by_name = {weight.item.tensor.name: weight.item for weight in source.weights}
    tensors = [weight.item.tensor for weight in source.weights]
    plan = legacy_weights.plan_layer(layer, tensors, source.name, donor.legacy)
    for variable, tensor in plan.pairs:
        yield tuple(by_name[name] for name in tensor.name.split(", ")), tensor, variable


# --- versions and checkpoints


def of_version(manifest: Manifest, blobs: Blobs, network: Network, *, name: str, digest: str) -> Donor:
    """A version's weights, or those of a checkpoint's manifest, each checked against its digest when it is read.

    Raises CannotLoad for one that holds no weights of a Keras model.
    """
    stored = Stored(manifest, blobs)
    ours = (tensor for tensor in manifest.tensors if tensor.name.startswith("weights/"))
    wholes = shards.Wholes.of(manifest, ours, stored.part)
    if not wholes.merged:
        raise CannotLoad(f"{name} holds no weights of a Keras model", hint="take them from a version that does")
    named = [
        (
            ForeignTensor(
                tensor.name.removeprefix("weights/"),
                tensor.dtype,
                tensor.shape,
                prod(tensor.shape) * numpy_dtype(tensor.dtype).itemsize,
                partial(wholes.array, tensor.name, lambda part: array(*stored.tensor(part))),
            ),
            tensor.variable,
        )
        for tensor in wholes.merged.values()
    ]
    config = json.loads(stored.part(CONFIG)) if manifest.kind == "whole" else None
    states = tuple(t.name for t in manifest.tensors if t.name.startswith(("state/", "optimizer/")))
    return Donor(name, f"{name}@{digest}", digest, tuple(_by_path(named, config, {}, network)), states)


# --- files


@contextmanager
def of_file(path: Path, network: Network, *, allow: Sequence[str] = (), limits: Limits = DEFAULT) -> Iterator[Donor]:
    """The weights of a file or folder of any form, scanned first; readable until the block ends.

    Raises what :func:`modelkeep.live.opening.open_as_data` does, and CannotLoad for one that holds no weights.
    """
    with opening.open_as_data(path, allow=allow, limits=limits) as (contents, scanned):
        source, digest = opening.described(contents, scanned), scanned.digest
        if any(member.name == OWN for member in contents.members):  # a SavedModel that we wrote
            with keras_archive.read(look(contents.path / OWN), limits, False) as inside:
                yield of_contents(inside, network, name=contents.path.name, source=source, digest=digest)
        else:
            yield of_contents(contents, network, name=contents.path.name, source=source, digest=digest)


def of_contents(contents: Contents, network: Network, *, name: str, source: str, digest: str) -> Donor:
    """The weights of a file that is open. Raises CannotLoad for one that holds none."""
    if contents.form == "saved_model" and any(layer["weights"] for layer in contents.details.get("layers", ())):
        contents = saved_model.by_layer(contents)
    metrics = set(contents.details.get("metrics", ()))
    tensors = [tensor for tensor in contents.tensors if tensor.name not in metrics and not _is_state(tensor, contents)]
    if not tensors:
        raise CannotLoad(
            f"{contents.path.name} is {title_of(contents.form)} without weights that can be read as data",
            hint="see what is in it: modelkeep inspect",
        )
    legacy = contents if any(layer["weights"] for layer in contents.details.get("layers", ())) else None
    if legacy is not None:
        donated = _by_layer({tensor.name: tensor for tensor in tensors}, contents, network)
    elif contents.form in ("keras", "weights_h5"):
        named = [(replace(tensor, name=tensor.name.replace(_OLD_LAYERS, "layers")), None) for tensor in tensors]
        donated = _by_path(named, contents.config, contents.details.get("names", {}), network)
    else:
        donated = _by_name(tensors, contents.details.get("variables", {}), network)
    kept = {tensor.name for tensor in tensors}
    states = tuple(t.name for t in (*contents.tensors, *contents.optimizer) if t.name not in kept)
    return Donor(name, source, digest, tuple(donated), states, legacy)


def _is_state(tensor: ForeignTensor, contents: Contents) -> bool:
    name = contents.details.get("variables", {}).get(tensor.name, tensor.name)
    return str(name).rpartition("/")[2].partition(":")[0].endswith(_STATES)


# --- what belongs to what layer


def _by_path(
    tensors: Iterable[tuple[ForeignTensor, str | None]], config: Any, names: Mapping[str, str], network: Network
) -> Iterator[Donated]:
    """By Keras' own paths. ``names`` are those of layers by path; a tensor may come with the path of its variable."""
    listed = {one.path: one for one in outline(config)}
    order = {path: place for place, path in enumerate(listed)}
    found = []
    for tensor, variable in tensors:
        path, _, index = f"/{tensor.name}".rpartition("/vars/")
        path = path.strip("/")
        layer = next((each for each in _around(path) if each in listed), None) or network.path_of(path)
        found.append((tensor, variable, path, layer, index))
    feeds = wiring(tuple(listed.values()), {listed[layer].names for *_, layer, _ in found if layer in listed})
    for tensor, variable, path, layer, index in found:
        one = listed.get(layer)
        own_names, within = _names(path, layer, one, names, (variable or "").split("/"))
        yield Donated(
            tensor,
            layer=own_names,
            within=(*within, (variable or index).rpartition("/")[2]),
            path=layer,
            key=f"{path.removeprefix(layer).strip('/')}/vars/{index}".lstrip("/"),
            listed=one,
            place=order.get(layer),
            feeds=feeds.get(one.names) if one else None,
        )


def _around(path: str) -> list[str]:
    """A path and all that it lies in, the longest first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _names(
    path: str, layer: str, listed: Listed | None, names: Mapping[str, str], variable: Sequence[str]
) -> tuple[Names, Names]:
    """The names of a layer at a path and of those within it: from the config, the file, or the path of a variable."""
    inner = path.removeprefix(layer).strip("/").split("/") if path != layer else []
    around = [names[each] for each in reversed(_around(layer)) if each in names]
    if listed is not None:
        around = list(listed.names)
    elif not around:
        around = list(variable[: len(variable) - len(inner) - 1]) or layer.split("/")
    if around and around[-1] in variable:
        return tuple(around), tuple(variable[variable.index(around[-1]) + 1 : -1])
    return tuple(around), tuple(
        names.get(f"{layer}/{'/'.join(inner[: count + 1])}", name) for count, name in enumerate(inner)
    )


def _by_layer(tensors: Mapping[str, ForeignTensor], contents: Contents, network: Network) -> Iterator[Donated]:
    """By the layers that Keras 2 lists. What it lists of a model are the weights of the layers within."""
    listed = {one.names: one for one in outline(contents.config)}
    order = {names: place for place, names in enumerate(listed)}
    units = {holder.names[-1] for holder in network.holders if holder.names}
    new = without_slashes([layer["layer"] for layer in contents.details["layers"]])
    found = []
    for layer in (*contents.details["layers"], {"layer": "", "weights": contents.details.get("top_level", ())}):
        for name in layer["weights"]:
            parts = name.removeprefix(f"{layer['layer']}/").partition(":")[0].split("/")
            if name in tensors:
                found.append((tensors[name], *_split(layer["layer"], parts, units, listed)))
    feeds = wiring(tuple(listed.values()), {names for _, names, _ in found if names in listed})
    places = {names: place for place, names in enumerate(dict.fromkeys(names for _, names, _ in found))}
    for tensor, names, within in found:
        one = listed.get(names)
        place, fed = order.get(names) if listed else places[names], feeds.get(names) if one else None
        names = (*(new.get(name, name) for name in names[:1]), *names[1:])
        yield Donated(tensor, names, within, listed=one, place=place, feeds=fed)


def _split(layer: str, parts: list[str], units: set[str], listed: Mapping[Names, Listed]) -> tuple[Names, Names]:
    if not layer:
        return (), tuple(parts)
    _, again, rest = f"/{'/'.join(parts)}".partition(f"/{layer}/")
    if again:
        return (layer,), tuple(rest.split("/"))
    if len(parts) == 1 or layer in units or (layer,) in listed:
        return (layer,), tuple(parts)
    deep = next((names for names in listed if names[0] == layer and names[-1] == parts[0]), None)
    return deep or (layer, parts[0]), tuple(parts[1:])


def _by_name(tensors: Iterable[ForeignTensor], variables: Mapping[str, str], network: Network) -> Iterator[Donated]:
    for tensor in tensors:
        name = variables.get(tensor.name, tensor.name).partition(":")[0]
        layer, within = network.split(tuple(name.split("/")))
        yield Donated(tensor, layer, within, path=None if layer else "")
