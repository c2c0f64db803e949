"""The SavedModel, a folder: ``saved_model.pb`` with graphs that serve, ``variables/``, ``assets/``.

Messages are those of tensorflow/core/protobuf/saved_model.proto and meta_graph.proto. Keras 2 adds what it needs to
make its model again as ``keras_metadata.pb`` (keras/protobuf/saved_metadata.proto), or in TensorFlow 2.0 to 2.4 as
metadata of the objects in the graph. A SavedModel that we write holds a whole ``.keras`` file beside that, ``OWN``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from modelkeep.errors import IntegrityError, LimitExceeded, UnsafeContent
from modelkeep.formats import keras_archive, strict_json
from modelkeep.formats.checkpointed import Checkpointed, read_checkpointed
from modelkeep.formats.contents import Contents, Member, Problem
from modelkeep.formats.folders import Folder, open_folder
from modelkeep.formats.forms import Form, Place, look
from modelkeep.formats.json_walk import mapped
from modelkeep.formats.limits import Limits
from modelkeep.formats.mapped import MappedFile
from modelkeep.formats.object_graph import ObjectGraph, children
from modelkeep.formats.protobuf import Message
from modelkeep.formats.tensor_bundle import DTYPES, TensorBundle, open_bundle, shape_of
from modelkeep.formats.tf_graph import Graph
from modelkeep.formats.vocabularies import Tables, Vocabulary, filled_in
from modelkeep.manifest import Signature, TensorSpec

GRAPHS = "saved_model.pb"
METADATA = "keras_metadata.pb"
FINGERPRINT = "fingerprint.pb"
VARIABLES = "variables/variables"
ASSETS, EXTRA = "assets/", "assets.extra/"
OWN = "assets.extra/modelkeep/model.keras"
SERVE = "serve"  # the tag of the graph that answers
MAX_GRAPHS = 64  # one each for training and for serving, on CPU and on TPU
INIT = "__saved_model_init_op"  # TensorFlow's own, under the signatures

_LAYER = re.compile(r"layer-(\d{1,9})")
_OF_NUMBERS = "IntegerLookup"
_LOOKUPS = ("StringLookup", "TextVectorization", _OF_NUMBERS)
_VARIABLE_OPS = ("VarHandleOp", "VariableV2", "Variable")


@dataclass(frozen=True, slots=True)
class MetaGraph:
    """One graph with what makes it a program: how to call it, what files it reads, how it is restored."""

    tags: tuple[str, ...]
    tensorflow: str  # the version that wrote it
    graph: Graph
    signatures: Mapping[str, Message]  # SignatureDef
    assets: Mapping[str, str]  # name of a tensor in the outer graph → file in assets/ whose path it becomes
    collections: Mapping[str, Message]  # CollectionDef; TensorFlow 1 keeps there what is run when it is loaded
    saver: Message  # SaverDef
    objects: Message  # SavedObjectGraph


def read_graphs(data: memoryview, limits: Limits) -> tuple[MetaGraph, ...]:
    """The graphs in the bytes of a ``saved_model.pb``. Raises IntegrityError, LimitExceeded."""
    saved = Message(data)
    graphs = saved.views(2)
    if saved.unsigned(1) != 1 or not graphs:
        raise IntegrityError(
            f"{GRAPHS} is no SavedModel",
            found=f"schema {saved.unsigned(1)}, {len(graphs)} graphs",
            expected="schema 1, and at least one graph",
        )
    if len(graphs) > MAX_GRAPHS:
        raise LimitExceeded(f"{GRAPHS} has too many graphs", found=len(graphs), expected=f"at most {MAX_GRAPHS}")
    return tuple(_meta_graph(Message(graph), limits) for graph in graphs)


def _meta_graph(meta: Message, limits: Limits) -> MetaGraph:
    info, collections = meta.message(1), meta.map(4)
    # TensorFlow 1 keeps assets as google.protobuf.Any in a collection, later versions in a field as well.
    listed = [
        any_value.message(2) for any_value in collections.get("saved_model_assets", Message(b"")).message(5).messages(1)
    ]
    return MetaGraph(
        tags=tuple(info.texts(4)),
        tensorflow=info.text(5),
        graph=Graph(meta.view(2), limits),
        signatures=meta.map(5),
        assets={asset.message(1).text(1): asset.text(2) for asset in [*listed, *meta.messages(6)]},
        collections=collections,
        saver=meta.message(3),
        objects=meta.message(7),
    )


@dataclass(frozen=True, slots=True)
class KerasObject:
    """A Keras layer, model or metric of Keras 2: its place among the objects, and what Keras kept of it."""

    path: str  # "root.layer_with_weights-0"; "" where only the object graph tells
    node: int  # in the object graph
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a folder holds beside tensors. ``files`` are all files in it, with their bytes."""

    folder: Folder
    graphs: tuple[MetaGraph, ...]
    objects: tuple[KerasObject, ...]
    problems: tuple[Problem, ...]

    @property
    def files(self) -> Mapping[str, int]:
        """Every file in the folder, links left out, with its bytes."""
        return self.folder.sizes

    @property
    def serving(self) -> MetaGraph:
        """The graph that serves, else the first."""
        return next((graph for graph in self.graphs if SERVE in graph.tags), self.graphs[0])


@contextmanager
def open_parts(path: Path, limits: Limits) -> Iterator[Parts]:
    """Read the graphs of a SavedModel and what Keras 2 kept in it.

    Raises NotFound, StorageError, UnsafeContent for links in place of files, LimitExceeded, IntegrityError.
    """
    with open_folder(path, limits) as folder:
        graphs = read_graphs(_file(path, folder, GRAPHS, "graph", limits), limits)
        told = _Objects(limits)
        if METADATA in folder.sizes:
            for one in Message(_file(path, folder, METADATA, "graph", limits)).messages(1):
                told.add(one.text(3), one.integer(2), one.view(5))
        else:
            for number, saved in enumerate(graphs[0].objects.messages(1)):
                if (user := saved.message(4)).text(1).startswith("_tf_keras_") and user.view(3):
                    told.add("" if number else "root", number, user.view(3))
        objects = _with_vocabularies(told.objects, graphs[0], folder, limits)
        yield Parts(folder, graphs, tuple(objects), (*folder.problems, *told.problems))


class _Objects:
    """Keras' objects, gathered one by one."""

    def __init__(self, limits: Limits) -> None:
        self.objects: list[KerasObject] = []
        self.problems: list[Problem] = []
        self._limits, self._bytes = limits, 0

    def add(self, path: str, node: int, metadata: memoryview) -> None:
        """Read one object's metadata. Raises IntegrityError, LimitExceeded."""
        what = f"{METADATA} of {path or f'object {node}'}"
        self._bytes += len(metadata)
        self._limits.check("config", self._bytes, f"{METADATA} is too large")
        value, odd = strict_json.read(bytes(metadata), what=what, limits=self._limits)
        if not isinstance(value, dict):
            raise IntegrityError(f"{what} is no JSON object")
        self.objects.append(KerasObject(path, node, mapped(value, _decoded)))
        self.problems += odd


def _decoded(record: dict[str, Any]) -> Any:
    """What stands for a tuple or a shape in Keras 2's metadata, as a list."""
    items = record.get("items")
    return items if record.get("class_name") in ("__tuple__", "TensorShape") and isinstance(items, list) else record


def _with_vocabularies(
    objects: list[KerasObject], graph: MetaGraph, folder: Folder, limits: Limits
) -> list[KerasObject]:
    """The objects, their lookup layers with a vocabulary in place of none, or of a path on another machine."""
    lookups = [one for one in objects if one.metadata.get("class_name") in _LOOKUPS and "name" in one.metadata]
    if not lookups:
        return objects
    tables = Tables(graph.objects, graph.graph.nodes(), partial(_asset, graph, folder, limits))
    found: dict[str, Vocabulary] = {}
    for one in lookups:
        words = tables.vocabulary(one.node)
        if words is not None:
            found[str(one.metadata["name"])] = _numbers(words) if one.metadata["class_name"] == _OF_NUMBERS else words
    return [replace(one, metadata=filled_in(one.metadata, found)) for one in objects]


def _numbers(words: Vocabulary) -> Vocabulary:
    """Whole numbers, which a file holds as texts."""
    return [int(word) for word in words] if all(re.fullmatch(r"-?\d{1,19}", str(word)) for word in words) else words


def _asset(graph: MetaGraph, folder: Folder, limits: Limits, number: int) -> bytes | None:
    """The bytes of the asset of that number; None where there is no such file."""
    names = list(graph.assets.values())
    name = f"{ASSETS}{names[number]}" if 0 <= number < len(names) else ""
    if name not in folder.sizes:
        return None
    limits.check("asset", folder.sizes[name], f"{name} is too large for a vocabulary")
    return folder.read(name)


def _file(path: Path, folder: Folder, name: str, most: str, limits: Limits) -> memoryview:
    if name not in folder.sizes:
        raise UnsafeContent(f"{name} is not a regular file")
    limits.check(most, folder.sizes[name], f"{name} is too large")
    file = MappedFile(path / name)
    try:
        return file.all()
    finally:
        file.close()


# --- the form


def recognise(place: Place) -> bool:
    """Whether a folder holds graphs of a SavedModel."""
    return place.is_folder and GRAPHS in place.names


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a folder; see :class:`modelkeep.formats.forms.Form`."""
    with ExitStack() as stack:
        parts = stack.enter_context(open_parts(place.path, limits))
        bundle = _variables(stack, place.path, parts, limits)
        held = read_checkpointed(bundle, limits) if bundle else Checkpointed((), (), {}, ObjectGraph(()))
        odd = (*bundle.problems, *(bundle.check() if thorough else ())) if bundle else ()
        root = next((one.metadata for one in parts.objects if one.node == 0), {})
        contents = Contents(
            form="saved_model",
            path=place.path,
            size=sum(parts.files.values()),
            writer=_writer(parts.serving, root),
            config=root.get("model_config") if _is_network(root) else None,
            compile=root.get("training_config") if _is_network(root) else None,
            tensors=held.tensors,
            optimizer=held.training,
            signatures=signatures(parts.serving),
            members=tuple(
                Member(name, size, partial(parts.folder.read, name))
                for name, size in parts.files.items()
                if name.startswith((ASSETS, EXTRA))
            ),
            details={**_details(parts, root), **held.details, **_layers(parts, held.graph)},
            problems=(*parts.problems, *odd),
        )
        yield _with_own(stack, contents, parts, limits, thorough)


def signatures(graph: MetaGraph) -> dict[str, Signature]:
    """What each signature of a graph takes and gives, names in their order in the alphabet."""
    return {
        name: Signature(inputs=_specs(signature.map(1)), outputs=_specs(signature.map(2)))
        for name, signature in sorted(graph.signatures.items())
        if name != INIT
    }


def _specs(infos: Mapping[str, Message]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=name, shape=shape_of(info.message(3)), dtype=DTYPES.get(info.unsigned(2) % 100, "unknown"))
        for name, info in sorted(infos.items())
    )


def _variables(stack: ExitStack, path: Path, parts: Parts, limits: Limits) -> TensorBundle | None:
    if f"{VARIABLES}.index" in parts.files:
        return stack.enter_context(open_bundle(path / VARIABLES, limits))
    if any(op in _VARIABLE_OPS for op in parts.serving.graph.operations()):
        raise IntegrityError("the graph has variables and the folder none", expected=f"{VARIABLES}.index")
    return None


def _is_network(root: Mapping[str, Any]) -> bool:
    """Whether a config tells the whole network: what a subclass' own ``call`` does is in no config."""
    config = root.get("model_config")
    return isinstance(config, dict) and (
        root.get("is_graph_network") is True or config.get("class_name") == "Sequential"
    )


def _writer(graph: MetaGraph, root: Mapping[str, Any]) -> dict[str, str]:
    found = {"tensorflow": graph.tensorflow, "keras": root.get("keras_version"), "backend": root.get("backend")}
    return {word: value for word, value in found.items() if value and isinstance(value, str)}


def _details(parts: Parts, root: Mapping[str, Any]) -> dict[str, Any]:
    graph = parts.serving.graph
    details: dict[str, Any] = {
        "tags": [list(one.tags) for one in parts.graphs],
        "functions": len(graph.functions),
        "ops": dict(sorted(Counter(graph.operations()).items())),
        "assets": sorted(set(parts.serving.assets.values())),
    }
    return details | ({"keras_class": root["class_name"]} if isinstance(root.get("class_name"), str) else {})


def _layers(parts: Parts, graph: ObjectGraph) -> dict[str, Any]:
    """The outermost layers of a model of Keras 2, each with the names of its weights in the order it lists them."""
    names = {one.node: one.metadata["name"] for one in parts.objects if isinstance(one.metadata.get("name"), str)}
    root = next(parts.serving.objects.messages(1), Message(b""))
    numbered = {int(match[1]): node for child, node in children(root).items() if (match := _LAYER.fullmatch(child))}
    layers = [
        {"layer": names[numbered[number]], "weights": _weights(graph, f"layer-{number}")}
        for number in sorted(numbered)
        if numbered[number] in names
    ]
    return {"layers": layers} if layers else {}


def _weights(graph: ObjectGraph, layer: str) -> list[str]:
    listed = graph.at((layer, "variables"))
    if listed is None:
        return []
    places = graph.nodes[listed].children
    in_order = [places[place] for place in sorted(places, key=lambda place: (len(place), place))]
    return [name for number in in_order if (name := graph.name_of(number))]


def _with_own(stack: ExitStack, contents: Contents, parts: Parts, limits: Limits, thorough: bool) -> Contents:
    """With the config of the ``.keras`` file that our own writer puts beside the graphs, where there is one."""
    if OWN not in parts.files:
        return contents
    inside = stack.enter_context(keras_archive.read(look(contents.path / OWN), limits, thorough))
    odd = tuple(replace(problem, place=f"{OWN}: {problem.place}".rstrip(": ")) for problem in inside.problems)
    return replace(
        contents,
        writer={**inside.writer, **contents.writer},
        config=inside.config,
        compile=inside.compile,
        pickles=inside.pickles,
        problems=(*contents.problems, *odd),
    )


FORM = Form(
    names=("saved_model",),
    title="SavedModel of TensorFlow (a folder)",
    endings=(),
    holds=frozenset({"architecture", "weights", "optimizer", "servable"}),
    recognise=recognise,
    read=read,
)
