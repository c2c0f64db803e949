"""Keras' HDF5 files: whole models (``.h5`` of Keras 1 to 3), and weights alone in either of two layouts.

The old layout, of Keras 1 and 2 and of every whole ``.h5``, lists its layers and their weights in attributes
(``layer_names``, ``weight_names``), and their order counts. The new one, of ``.weights.h5`` and of the file
inside a ``.keras``, has a group ``vars`` for each object, whose datasets are numbered. The new one may lie in
several files, which a ``.weights.json`` maps.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelkeep.errors import IntegrityError, NotFound, StorageError, UnsafeContent, UsageError
from modelkeep.formats import hdf5, strict_json, superblock
from modelkeep.formats.contents import Contents, ForeignTensor, Problem
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.hdf5 import Attributes, Tree
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.formats.superblock import Stream

_WRITER = {"keras_version": "keras", "backend": "backend"}  # attributes, and what Contents calls them
_LISTS = re.compile(r"(layer_names|weight_names)\d*")
_TOP_LEVEL = "top_level_model_weights"
_OPTIMIZER = "optimizer_weights"
# What may stand where the weights would.
_HIDING = {"hdf5-external-link", "hdf5-soft-link", "hdf5-user-link", "hdf5-virtual-dataset", "hdf5-name"}
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # the second until Keras 2.12


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one file or of its shards. Tensors can be read while it is open.

    ``form`` is ``weights_h5`` (new layout), ``legacy_weights_h5`` (old layout), or None where there are none.

    Old: tensors are named ``<layer>/<weight>``, the optimizer's as in the file, both in the file's order;
    ``details`` has ``layers`` (the names of each layer's tensors) and ``top_level``. New: tensors are named by
    path and sorted, ``vars/2`` before ``vars/10``; ``details`` has ``names`` of layers by path, and the names of
    the state of ``metrics``, which Keras 2 kept here and which is no part of the network.
    """

    form: str | None
    tensors: tuple[ForeignTensor, ...]
    optimizer: tuple[ForeignTensor, ...]
    details: Mapping[str, Any]
    problems: tuple[Problem, ...]


@contextmanager
def open_weights(
    stream: Stream, limits: Limits = DEFAULT, name: str = "model.weights.h5", *, thorough: bool = False
) -> Iterator[Weights]:
    """The weights in an HDF5 file that lies within another file. Raises what ``hdf5.open_stream`` does."""
    with hdf5.open_stream(stream, limits, name, thorough=thorough) as tree:
        yield _weights(tree, limits, name)


@contextmanager
def open_shards(
    index: bytes,
    open_shard: Callable[[str], Stream],
    limits: Limits = DEFAULT,
    name: str = "model.weights.json",
    *,
    thorough: bool = False,
) -> Iterator[Weights]:
    """The weights in several HDF5 files, which ``index``, the bytes of a ``.weights.json``, maps.

    ``open_shard`` is given plain names, and its streams are closed here. Raises UnsafeContent for a name that
    is a path, IntegrityError for an index that is none, and what ``hdf5.open_stream`` does.
    """
    weight_map, odd = _weight_map(index, limits, name)
    shards = sorted({shard for listed in weight_map.values() for shard in listed})
    limits.check("members", len(shards), f"{name} names too many files")
    with ExitStack() as stack:
        trees = {}
        for shard in shards:
            stream = stack.enter_context(closing(open_shard(shard)))
            trees[shard] = stack.enter_context(hdf5.open_stream(stream, limits, shard, thorough=thorough))
        weights = _weights(_merged(trees, weight_map, name), limits, name)
        yield replace(weights, problems=(*odd, *weights.problems), details={**weights.details, "shards": shards})


# --- the new layout and the old one


def _weights(tree: Tree, limits: Limits, name: str) -> Weights:
    limits.check("tensors", len(tree.datasets), f"{name} holds too many tensors")
    for base in ("", "model_weights"):
        layers = _layers_of(tree.groups.get(base, {}), limits)
        if layers is not None:
            limits.check("layers", len(layers), f"{name} lists too many layers")
            return _old_layout(tree, base, layers, limits, name)
    return _new_layout(tree, name)


def _new_layout(tree: Tree, name: str) -> Weights:
    paths = sorted((path for path in tree.datasets if "vars" in path.split("/")[:-1]), key=_natural)
    by_owner: dict[str, list[ForeignTensor]] = {"network": [], "optimizer": [], "metrics": []}
    for path in paths:
        by_owner[_owner(path)].append(_tensor(tree, path, path))
    names = {
        path.removesuffix("vars").rstrip("/"): attributes["name"]
        for path, attributes in tree.groups.items()
        if path.split("/")[-1] == "vars" and isinstance(attributes.get("name"), str)
    }
    form = "weights_h5" if paths or names else None
    unlisted = _unlisted(tree, paths, name) if form else []
    return Weights(
        form,
        tuple(by_owner["network"]),
        tuple(by_owner["optimizer"]),
        {"names": names, "metrics": [tensor.name for tensor in by_owner["metrics"]]},
        (*tree.problems, *unlisted),
    )


def _owner(path: str) -> str:
    """What a variable belongs to, by the attributes that lead to it; a layer of that name is in ``layers``."""
    parts = path.split("/")
    owners = (part for before, part in zip(["", *parts], parts, strict=False) if before not in _CONTAINERS)
    return next((part for part in owners if part in ("optimizer", "metrics")), "network")


def _natural(path: str) -> list[tuple[int, str]]:
    """Sorts ``vars/2`` before ``vars/10``."""
    pieces = re.split(r"([0-9]{1,9})", path)
    return [(int(piece), "") if index % 2 else (-1, piece) for index, piece in enumerate(pieces)]


def _old_layout(tree: Tree, base: str, names: list[str], limits: Limits, name: str) -> Weights:
    listing = _Listing(tree, limits, name)
    layers = [{"layer": layer, "weights": listing.of(base, layer)} for layer in names]
    top_level = listing.of(base, _TOP_LEVEL) if f"{base}/{_TOP_LEVEL}".lstrip("/") in tree.groups else []
    tensors = listing.take()
    if _OPTIMIZER in tree.groups:
        listing.of("", _OPTIMIZER, prefix="")
    optimizer = listing.take()
    details = {"layers": layers, "top_level": top_level}
    problems = (*tree.problems, *listing.problems, *_unlisted(tree, listing.paths, name))
    return Weights("legacy_weights_h5", tensors, optimizer, details, problems)


class _Listing:
    """The weights that attributes list, in their order; each must be there, and be listed once."""

    def __init__(self, tree: Tree, limits: Limits, name: str) -> None:
        self.paths: set[str] = set()
        self.problems: list[Problem] = []
        self._tree, self._limits, self._name = tree, limits, name
        self._found: list[ForeignTensor] = []

    def of(self, base: str, group: str, *, prefix: str | None = None) -> list[str]:
        """The names of a group's weights, which begin with the group's own unless with another ``prefix``."""
        place = _joined(base, group)
        start = f"{group}/" if prefix is None else prefix
        names = []
        for weight in _weights_of(self._tree.groups.get(place, {}), self._limits):
            path = _joined(place, weight)
            if path in self._tree.datasets and path not in self.paths:
                self.paths.add(path)
                names.append(start + weight)
                self._found.append(_tensor(self._tree, path, start + weight))
            else:
                self._limits.check("tensors", len(self.problems), f"{self._name} lists too many weights")
                wrong = "is listed twice" if path in self.paths else "is listed and not there"
                self.problems.append(Problem("h5-weight-names", f"{weight[:200]!r} {wrong}", f"{self._name}:/{place}"))
        if place not in self._tree.groups:
            self.problems.append(
                Problem("h5-weight-names", f"the layer {group[:200]!r} is listed and not there", self._name)
            )
        return names

    def take(self) -> tuple[ForeignTensor, ...]:
        """The tensors found since the last time."""
        found, self._found = tuple(self._found), []
        return found


def _layers_of(attributes: Attributes, limits: Limits) -> list[str] | None:
    if isinstance(count := attributes.get("nb_layers"), int):  # until Keras 1.0
        limits.check("layers", count, "too many layers are listed")
        return [f"layer_{index}" for index in range(count)]
    return _listed(attributes, "layer_names")


def _weights_of(attributes: Attributes, limits: Limits) -> list[str]:
    if isinstance(count := attributes.get("nb_params"), int):
        limits.check("tensors", count, "too many weights are listed")
        return [f"param_{index}" for index in range(count)]
    return _listed(attributes, "weight_names") or []


def _listed(attributes: Attributes, name: str) -> list[str] | None:
    """A list of names in one attribute, or in several numbered ones where it is longer than 64 KiB."""
    if name in attributes:
        pieces = [attributes[name]]
    else:
        pieces = []
        while (piece := f"{name}{len(pieces)}") in attributes:
            pieces.append(attributes[piece])
    if not pieces:
        return None
    names = [one for piece in pieces for one in (piece if isinstance(piece, list) else [piece])]
    if not all(isinstance(one, str) for one in names):
        raise IntegrityError(f"the attribute {name} holds no names", found=repr(names[:3])[:80])
    return names


def _joined(base: str, name: str) -> str:
    """A path as HDF5 reads it: ``a//b`` is ``a/b``. What is in no file, such as ``..``, is found in none."""
    return "/".join(part for part in f"{base}/{name}".split("/") if part)


def _unlisted(tree: Tree, paths: Iterable[str], name: str) -> list[Problem]:
    known = set(paths)
    return [
        Problem("h5-unlisted", "a dataset that Keras does not read", f"{name}:/{path}")
        for path in tree.datasets
        if path not in known
    ]


def _tensor(tree: Tree, path: str, name: str) -> ForeignTensor:
    dataset = tree.datasets[path]
    return ForeignTensor(name, dataset.dtype, dataset.shape, dataset.nbytes, dataset.read)


# --- shards


def _weight_map(index: bytes, limits: Limits, name: str) -> tuple[dict[str, list[str]], tuple[Problem, ...]]:
    """The groups that a ``.weights.json`` lists, and the files that each lies in."""
    value, odd = strict_json.read(index, what=name, limits=limits)
    listed = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(listed, dict):
        raise IntegrityError(f"{name} maps no weights", expected="an object with a 'weight_map'")
    weight_map = {}
    for group, shards in listed.items():
        shards = shards if isinstance(shards, list) else [shards]
        for shard in shards:
            if not isinstance(shard, str):
                raise IntegrityError(f"{name} does not say where {group[:80]} lies", found=repr(shard)[:80])
            if not re.fullmatch(r"[^/\\\0]+\.h5", shard):
                raise UnsafeContent(
                    f"{name} names a file elsewhere", found=repr(shard)[:200], expected="a file beside it"
                )
        weight_map[group.strip("/")] = shards
    return weight_map, odd


def _merged(trees: Mapping[str, Tree], weight_map: Mapping[str, list[str]], name: str) -> Tree:
    """The objects of all shards, as if of one file."""
    merged = Tree({"": {}})
    for shard, tree in trees.items():
        merged.problems.extend(tree.problems)
        for path, attributes in tree.groups.items():
            merged.groups[path] = {**merged.groups.get(path, {}), **attributes}
        for path, dataset in tree.datasets.items():
            if path in merged.datasets:
                merged.problems.append(Problem("h5-weight-names", "it lies in two files", f"{shard}:/{path}"))
            merged.datasets.setdefault(path, dataset)
    for group, shards in weight_map.items():
        for shard in shards:
            if not any(path.startswith(f"{group}/") for path in trees[shard].datasets):
                message = f"{group!r} is listed in {shard} and not there"
                merged.problems.append(Problem("h5-weight-names", message, name))
    return merged


# --- files


def recognise(place: Place) -> bool:
    """Whether a file is HDF5, wherever its superblock stands, or the index of sharded weights."""
    if place.is_folder:
        return False
    if place.head.startswith(superblock.MAGIC) or _is_index(place.head):
        return True
    # In a tar or zip file, an HDF5 file may stand where its superblock could.
    if place.head.startswith(b"PK\x03\x04") or place.head[257:262] == b"ustar":
        return False
    with _opened(place.path) as stream:
        return superblock.find(stream, place.size) is not None


def _is_index(head: bytes) -> bool:
    return head.lstrip().startswith(b"{") and b'"weight_map"' in head and b'.h5"' in head


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a file of any of the three kinds; see :class:`modelkeep.formats.forms.Form`.

    Raises UsageError for an HDF5 file that holds no model.
    """
    with _sharded(place, limits, thorough) if _is_index(place.head) else _single(place, limits, thorough) as contents:
        yield contents


@contextmanager
def _sharded(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    limits.check("config", place.size, f"{place.path.name} is too large")
    sizes = [place.size]

    def open_shard(name: str) -> Stream:
        stream = _opened(place.path.with_name(name), follow=False)
        sizes.append(stream.seek(0, os.SEEK_END))
        limits.check("file", sum(sizes), f"the shards of {place.path.name} are too large")
        return stream

    index = place.path.read_bytes()
    with open_shards(index, open_shard, limits, place.path.name, thorough=thorough) as weights:
        yield Contents(
            form="weights_h5",
            path=place.path,
            size=sum(sizes),
            tensors=weights.tensors,
            optimizer=weights.optimizer,
            details=weights.details,
            problems=weights.problems,
        )


@contextmanager
def _single(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    name = place.path.name
    with _opened(place.path) as stream, hdf5.open_stream(stream, limits, name, thorough=thorough) as tree:
        weights = _weights(tree, limits, name)
        root = tree.groups[""]
        hidden = any(problem.rule in _HIDING for problem in weights.problems)
        if weights.form is None and "model_config" not in root and not hidden:
            raise _no_model(tree, name)
        config, odd = _json(root, "model_config", limits)
        compiled, odd_too = _json(root, "training_config", limits)
        known = {"model_config", "training_config", *_WRITER}
        others = {key: value for key, value in root.items() if key not in known and not _LISTS.fullmatch(key)}
        yield Contents(
            form="h5" if "model_config" in root else weights.form or "weights_h5",
            path=place.path,
            size=place.size,
            writer=_writer(tree),
            config=config,
            compile=compiled,
            tensors=weights.tensors,
            optimizer=weights.optimizer,
            details={**weights.details, "attributes": others},
            problems=(*weights.problems, *odd, *odd_too),
        )


def _json(attributes: Attributes, key: str, limits: Limits) -> tuple[Any, tuple[Problem, ...]]:
    if key not in attributes:
        return None, ()
    text = attributes[key]
    if not isinstance(text, str):
        raise IntegrityError(f"the attribute {key} is no text", found=repr(text)[:80])
    return strict_json.read(text.encode(), what=key, limits=limits)


def _writer(tree: Tree) -> dict[str, str]:
    attributes = {**tree.groups.get("model_weights", {}), **tree.groups[""]}
    return {word: attributes[key] for key, word in _WRITER.items() if isinstance(attributes.get(key), str)}


def _no_model(tree: Tree, name: str) -> UsageError:
    inside = sorted({path.split("/")[0] for path in (*tree.groups, *tree.datasets) if path})
    return UsageError(
        f"{name} is an HDF5 file that holds no Keras model",
        found=", ".join(inside[:10]) + (", …" if len(inside) > 10 else "") if inside else "nothing in it",
        expected="a model_config, layer_names, or groups of vars",
    )


def _opened(path: Path, *, follow: bool = True) -> io.FileIO:
    """A file to be read. One that another file names is not opened through a link."""
    # NONBLOCK: should somebody put a pipe in its place, opening must not wait for a writer.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        stream = io.FileIO(os.open(path, flags))
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise UnsafeContent(f"{path.name} is not a regular file")


FORM = Form(
    names=("h5", "weights_h5", "legacy_weights_h5"),
    title="Keras HDF5 file (.h5, .weights.h5)",
    endings=(".h5", ".hdf5", ".weights.h5", ".weights.json"),
    holds=frozenset({"architecture", "weights", "optimizer"}),
    recognise=recognise,
    read=read,
)
