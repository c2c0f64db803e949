"""A Keras 3 weights store brought into a model: every group of ``vars`` to the layer at its path.

Keras writes the variables of a layer as ``<path>/vars/<i>``, by a walk through the model and an order of its own, and
neither has a name. Its loader goes the other way round, from the model to the file, and so does not see what the
file holds beyond that, passes a layer by that is found at another path, and leaves an optimizer of another
length fresh. Here every group must find its layer, every tensor its variable, and every variable its tensor.

What differs between releases of Keras (3.0 to 3.15 were compared):

* the oldest files, and those of Keras 2.13, name ``layers`` of a functional model ``_layer_checkpoint_dependencies``;
* Nadam's product of momentum rates lay before its slots until 3.9 and lies behind them since;
* a loss scaling optimizer writes the one it wraps twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import keras
import numpy as np

from modelkeep.errors import CannotLoad, NotFaithful, UnsafeContent
from modelkeep.formats.contents import Contents, ForeignTensor, Member
from modelkeep.live import internals, matching
from modelkeep.live.arrays import is_float
from modelkeep.live.variables import run_initializers, stored_dtype, view, without_number
from modelkeep.report import Finding, Severity

Group = dict[str, ForeignTensor]  # by what stands behind `vars/`

ASSETS = "assets/"
_OLD_LAYERS = "_layer_checkpoint_dependencies"


def fill(model: keras.Model, contents: Contents, *, skip: Sequence[str] = ()) -> tuple[Finding, ...]:
    """Give a model all that a weights store holds: variables, optimizer, assets; all of it or nothing.

    The model is compiled already if its optimizer is to go on. Raises NotFaithful with the report where a tensor
    or a variable stands alone, unless ``skip`` names it (:func:`modelkeep.live.matching.assign`).
    """
    filling = _Filling(internals.walk(model), _groups(contents), contents, tuple(skip))
    return filling.run()


def _groups(contents: Contents) -> dict[str, Group]:
    """The tensors by the path of whoever they belong to; the model itself has an empty path."""
    groups: dict[str, Group] = {}
    for tensor in (*contents.tensors, *contents.optimizer):
        path, _, key = f"/{tensor.name}".rpartition("/vars/")
        groups.setdefault(path.strip("/").replace(_OLD_LAYERS, "layers"), {})[key] = tensor
    return groups


@dataclass
class _Filling:
    nodes: list[tuple[str, internals.Node]]
    groups: dict[str, Group]
    contents: Contents
    skip: tuple[str, ...]
    left: dict[int | str, Group] = field(default_factory=dict)  # that no node has taken yet
    pairs: list[matching.Pair] = field(default_factory=list)
    missing: list[internals.Variable] = field(default_factory=list)
    unused: list[ForeignTensor] = field(default_factory=list)
    by_themselves: list[tuple[str, internals.Node, Group]] = field(default_factory=list)
    merged: list[internals.Variable] = field(default_factory=list)  # LoRA's, whose product is in the kernel
    findings: list[Finding] = field(default_factory=list)

    def run(self) -> tuple[Finding, ...]:
        self._find_nodes()
        for path, node in self.nodes:
            self._plan(path, node, self._taken(node))
        for key, group in self.left.items():
            self._leave(str(key), group)
        self._compare_names()
        with _unchanged_on_error(self._variables_that_change()):
            for path, node, group in self.by_themselves:
                self._load_by_itself(path, node, group)
            report = matching.assign(self.pairs, missing=self.missing, unused=self.unused, skip=self.skip)
            for variable in self.merged:
                variable.assign(np.zeros(variable.shape, stored_dtype(variable)))
            assets = self._load_assets()
        for _, node in self.nodes:
            internals.finish(node)
        return (*report.findings, *self.findings, *assets)

    def _find_nodes(self) -> None:
        """Set each group beside the node it belongs to, by its id; those that belong to none stay under their path."""
        by_path = dict(self.nodes)
        for path, group in self.groups.items():
            node = by_path.get(path) or internals.at_path(by_path[""], path)
            key = path if node is None else id(node)
            if key in self.left:  # one layer that an older release wrote from two sides
                key = path
            self.left[key] = group

    def _taken(self, node: internals.Node) -> Group:
        return self.left.pop(id(node), {})

    # --- what belongs to what

    def _plan(self, path: str, node: internals.Node, group: Group) -> None:
        if isinstance(node, keras.optimizers.Optimizer):
            self._plan_optimizer(path, node, group)
            return
        variables = internals.saved_variables(node)
        if variables is not None:
            self._pair(variables, group)
            self.merged += internals.lora_variables(node)
        elif group:
            self.by_themselves.append((path, node, group))
        else:
            self.missing += internals.own_variables(node)

    def _pair(self, variables: Mapping[str, internals.Variable], group: Group) -> None:
        self.pairs += [(variable, group[key]) for key, variable in variables.items() if key in group]
        self.missing += [variable for key, variable in variables.items() if key not in group]
        self.unused += [tensor for key, tensor in group.items() if key not in variables]

    def _plan_optimizer(self, path: str, optimizer: Any, group: Group) -> None:
        tensors = _in_order(group)
        if not tensors:
            if optimizer.built and path == "optimizer":
                self._optimizer_stays_fresh(path, "the file holds none of its state", [])
            return
        was = without_number(self.contents.details.get("names", {}).get(path, optimizer.name))
        if was.lower() != without_number(optimizer.name).lower():
            self._optimizer_stays_fresh(path, f"the file has the state of {was}, this model {optimizer.name}", tensors)
            return
        owner = dict(self.nodes)[path.rpartition("/")[0]]
        variables = _slots(optimizer, owner, len(tensors))
        if variables is None:
            why = f"the file has {len(tensors)} of its variables, this one {len(optimizer.variables)}"
            self._optimizer_stays_fresh(path, why, tensors)
            return
        order = next((order for order in _orders(optimizer, variables) if _fits(order, tensors)), None)
        if order is None:
            self._optimizer_stays_fresh(path, "its slots in the file are of other shapes", tensors)
            return
        self.pairs += zip(order, tensors, strict=True)
        inner = getattr(optimizer, "inner_optimizer", None)
        if inner is not None:
            self._plan_again(inner.variables, self._taken(inner))

    def _plan_again(self, variables: list[internals.Variable], group: Group) -> None:
        """Hold what a file has a second time against what it has first."""
        first = {id(variable): tensor for variable, tensor in self.pairs}
        again = _in_order(group)
        for variable, tensor in zip(variables, again, strict=False):
            if id(variable) in first and not _equal(first[id(variable)].read(), tensor.read()):
                raise NotFaithful(f"the file holds {variable.path} twice, with different values", found=tensor.name)
        self.unused += again[len(variables) :]

    def _leave(self, path: str, group: Group) -> None:
        """Tell of a group that no node has taken. Optimizers are not there where a model was not compiled."""
        optimizer = {id(tensor) for tensor in self.contents.optimizer}
        if all(id(tensor) in optimizer for tensor in group.values()):
            text = f"{len(group)} variables of an optimizer are left, since what they belong to is not compiled"
            self.findings.append(Finding("optimizer-left", Severity.NOTE, text, path))
        else:
            self.unused += group.values()

    def _optimizer_stays_fresh(self, path: str, why: str, tensors: list[ForeignTensor]) -> None:
        text = f"{why}; it starts anew"
        details = {"tensors": [tensor.name for tensor in tensors]}
        self.findings.append(Finding("optimizer-fresh", Severity.WARNING, text, path, details))

    def _compare_names(self) -> None:
        """Refuse layers of one shape that changed places: their variables have no names in the file, they do."""
        names: Mapping[str, str] = self.contents.details.get("names", {})
        here = {path: node.name for path, node in self.nodes if path and isinstance(node, keras.Layer)}
        given = {path: internals.given_name(node) for path, node in self.nodes if path in here}
        for path, name in given.items():
            was = names.get(path, name)
            if name is None or was == name:
                continue
            swapped = was in given.values()
            text = f"the file has the layer {was!r} where this model has {name!r}"
            if swapped and not any(matching.is_part(entry, f"{path}/{name}") for entry in self.skip):
                raise NotFaithful(text, hint=f"build the model as it was saved, or leave the layer: skip=[{path!r}]")
            self.findings.append(Finding("weights-renamed", Severity.WARNING, text, path))

    # --- values

    def _variables_that_change(self) -> list[internals.Variable]:
        """Those that are assigned before everything else was found to fit."""
        return [variable for _, node, _ in self.by_themselves for variable in getattr(node, "variables", ())]

    def _load_by_itself(self, path: str, node: internals.Node, group: Group) -> None:
        """Let a class that has its own ``load_own_variables`` load, and compare what it would save now."""
        if any(matching.is_part(entry, path) for entry in self.skip):
            self.findings.append(Finding("weights-skipped", Severity.WARNING, "is left as it was", path))
            return
        run_initializers(internals.own_variables(node))
        store = {key: tensor.read() for key, tensor in group.items()}
        try:
            node.load_own_variables(dict(store))
            again: dict[str, Any] = {}
            node.save_own_variables(again)
        except Exception as error:
            cls = type(node).__name__
            raise NotFaithful(f"{cls} cannot load what the file holds for {path} ({error})") from error
        lost = [key for key in store if key not in again or not _equal(again[key], store[key])]
        if lost or again.keys() - store.keys():
            raise NotFaithful(
                f"{type(node).__name__} does not hold what the file has for {path}",
                found=", ".join(sorted(again)) or "nothing",
                expected=", ".join(sorted(store)),
                hint=f"leave it: skip=[{path!r}]",
            )
        count = sum(int(np.prod(tensor.shape)) for tensor in group.values())
        text = f"{type(node).__name__} loaded {count:,} numbers by itself"
        self.findings.append(Finding("weights-matched", Severity.OK, text, path, {"parameters": count}))

    # --- assets

    def _load_assets(self) -> tuple[Finding, ...]:
        members = [member for member in self.contents.members if member.name.startswith(ASSETS)]
        readers = [(path, node) for path, node in self.nodes if hasattr(node, "load_assets")]
        with tempfile.TemporaryDirectory(prefix="modelkeep-") as folder:
            _unpack(members, Path(folder))
            findings = []
            for path, node in readers:
                own = Path(folder, path)
                if own.is_dir() and any(file.is_file() for file in own.iterdir()):
                    try:
                        node.load_assets(str(own))
                    except Exception as error:  # what a layer makes of files that are not its own
                        raise CannotLoad(
                            f"{type(node).__name__} cannot take its files",
                            found=f"{type(error).__name__}: {error}",
                            hint=f"the file is not what wrote it made of it: {path}",
                        ) from error
                    findings.append(Finding("asset-loaded", Severity.OK, f"{type(node).__name__} read its files", path))
        taken = {path for path, _ in readers}
        unread = [member.name for member in members if _asset_owner(member.name) not in taken]
        return (*findings, *(Finding("asset-unused", Severity.WARNING, "no layer reads it", name) for name in unread))


def _asset_owner(name: str) -> str:
    parent = PurePosixPath(name.removeprefix(ASSETS)).parent.as_posix()
    return "" if parent == "." else parent


def _in_order(group: Group) -> list[ForeignTensor]:
    return [group[key] for key in sorted(group, key=lambda key: (len(key), key))]


def _slots(optimizer: Any, owner: Any, count: int) -> list[internals.Variable] | None:
    """As many of the optimizer's variables as the file has; None where it has another number of them.

    One that was saved before its first step has no slots, only its step and its rate.
    """
    if count <= _WITHOUT_SLOTS and count < len(optimizer.variables):
        return list(optimizer.variables[:count])
    if len(optimizer.variables) != count and not optimizer.built:
        optimizer.build(owner.trainable_variables)
    return list(optimizer.variables) if len(optimizer.variables) == count else None


_WITHOUT_SLOTS = 2


def _orders(optimizer: Any, variables: list[internals.Variable]) -> list[list[internals.Variable]]:
    """The orders in which releases of Keras write an optimizer's variables. The shapes tell which one it is."""
    if not isinstance(optimizer, keras.optimizers.Nadam):
        return [variables]
    *others, product = variables
    slots = next((i for i, v in enumerate(others) if v.path.endswith(("_momentum", "_velocity"))), len(others))
    return [variables, [*others[:slots], product, *others[slots:]]]


def _fits(variables: list[internals.Variable], tensors: list[ForeignTensor]) -> bool:
    return all(tuple(variable.shape) == tensor.shape for variable, tensor in zip(variables, tensors, strict=True))


def _equal(value: Any, array: Any) -> bool:
    """Whether a variable, tensor or array holds what the file does, to the bit."""
    if isinstance(value, internals.Variable):
        value = view(value)
    found = np.asarray(value if isinstance(value, np.ndarray) else keras.ops.convert_to_numpy(value))
    if found.dtype != array.dtype and found.itemsize == array.itemsize and found.dtype.kind == "u":
        found = found.view(array.dtype)  # bfloat16 comes as its bits
    if found.shape != array.shape:
        return False
    return bool(np.array_equal(found.astype(array.dtype), array, equal_nan=is_float(array)))


@contextmanager
def _unchanged_on_error(variables: list[internals.Variable]) -> Iterator[None]:
    """Give variables the values back that they had before the block raised."""
    before = [
        (v, None if internals.is_uninitialized(v) else np.array(keras.ops.convert_to_numpy(v))) for v in variables
    ]
    try:
        yield
    except BaseException:
        for variable, values in before:
            if values is not None:
                variable.assign(values)
        raise


def _unpack(members: list[Member], folder: Path) -> None:
    for member in members:
        inner = PurePosixPath(member.name.removeprefix(ASSETS))
        if inner.is_absolute() or ".." in inner.parts or "\\" in member.name or "\0" in member.name:
            raise UnsafeContent("an asset would be written outside its folder", found=repr(member.name))
        assert member.read is not None
        file = folder / inner
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(member.read())
