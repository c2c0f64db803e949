"""Tensors of a TensorFlow checkpoint under the names of what they were: the network's, or training's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelkeep.formats.contents import ForeignTensor
from modelkeep.formats.limits import Limits
from modelkeep.formats.object_graph import KEY, SLOT, SUFFIX, ObjectGraph, read_graph
from modelkeep.formats.tensor_bundle import TensorBundle

_TABLE = re.compile(r"(?P<path>.*)/\.ATTRIBUTES/table-(?P<part>keys|values)")
# An optimizer, metrics and the counter of CheckpointManager lie beside the model; Keras 2 hides metrics in keras_api.
_TRAINING = re.compile(r"(.*/)?(optimizer|keras_api/metrics|keras_api/keras_api)/|save_counter$")
_TRAINING_1 = re.compile(
    r"(.*/)?(Adam|Adagrad|Adadelta|Ftrl|Momentum|RMSProp|Nesterov)(_\d+)?$|beta[12]_power$|global_step$"
)

# Keras 3 exports under TensorFlow what its functions use, and a copy of each variable beside it.
_SERVED, _COPY = "_all_variables/", re.compile(r"variables/\d+")


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """What a bundle holds. Names are paths in the object graph, or in TensorFlow 1 those of the variables.

    ``details`` has ``variables``, what TensorFlow called the variable of each path, and ``tables``, the lookup
    tables with the number of their keys, and ``copies``, how many tensors are left out as copies of others, each as
    far as there are any.
    """

    tensors: tuple[ForeignTensor, ...]
    training: tuple[ForeignTensor, ...]  # slots of optimizers, metrics, counters
    details: Mapping[str, Any]
    graph: ObjectGraph  # without objects in TensorFlow 1


def read_checkpointed(bundle: TensorBundle, limits: Limits) -> Checkpointed:
    """Sort the tensors of an open bundle. Raises IntegrityError for a damaged object graph, LimitExceeded."""
    graph = graph_of(bundle, limits)
    names = {key: node.full_name for node in graph.nodes for key in node.keys.values()}
    tensors: list[ForeignTensor] = []
    training: list[ForeignTensor] = []
    variables: dict[str, str] = {}
    tables: dict[str, int] = {}
    for key in bundle.entries:
        if key == KEY:
            continue
        if table := _TABLE.fullmatch(key):
            tables[table["path"]] = bundle.entries[key].shape[0] if bundle.entries[key].shape else 0
            continue
        name = key.removesuffix(SUFFIX)
        if names.get(key):
            variables[name] = names[key]
        is_training = SLOT in name or _TRAINING.match(name) or (KEY not in bundle.entries and _TRAINING_1.match(name))
        (training if is_training else tensors).append(replace(bundle.tensor(key), name=name))
    is_export = any(tensor.name.startswith(_SERVED) for tensor in tensors)
    served = [tensor for tensor in tensors if not (is_export and _COPY.fullmatch(tensor.name))]
    told = {"variables": variables, "tables": tables, "copies": len(tensors) - len(served)}
    details = {word: found for word, found in told.items() if found}
    return Checkpointed(tuple(served), tuple(training), details, graph)


def graph_of(bundle: TensorBundle, limits: Limits) -> ObjectGraph:
    """The objects of a bundle; none where it was saved by names alone, as TensorFlow 1 does."""
    if KEY not in bundle.entries:
        return ObjectGraph(())
    return read_graph(bundle.scalar_text(KEY), limits)
