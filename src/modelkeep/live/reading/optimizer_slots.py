"""The state of an optimizer in HDF5, slot by slot, where the optimizer of that name has the same slots today.

Four generations name them differently::

    adam/dense_kernel_momentum       Keras 3, by the paths of its variables
    Adam/m/dense/kernel:0            Keras 2.11 on
    Adam/dense/kernel/m:0            TensorFlow 2.0 to 2.10, and optimizers.legacy since
    training/Adam/Variable_3:0       Keras 1 and 2 without TensorFlow's: by order, all slots of a kind together

Anything that does not fit leaves the whole optimizer as if nothing had been trained, and is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from modelkeep.formats.contents import ForeignTensor
from modelkeep.live import internals
from modelkeep.live.internals import Variable
from modelkeep.live.matching import Pair
from modelkeep.live.variables import inventory
from modelkeep.report import Finding, Severity

# What Keras 3 calls the slots of each optimizer, by what files call them; in the order of the oldest files.
_SLOTS: dict[str, dict[str, str]] = {
    "SGD": {"m": "momentum", "momentum": "momentum"},
    "Adam": {"m": "momentum", "v": "velocity", "vhat": "velocity_hat", "v_hat": "velocity_hat"},
    "RMSprop": {
        "rms": "velocity",
        "velocity": "velocity",
        "momentum": "momentum",
        "mg": "average_gradient",
        "average_gradient": "average_gradient",
    },
    "Adagrad": {"accumulator": "accumulator"},
    "Adadelta": {
        "accum_grad": "accumulated_grad",
        "accumulated_grad": "accumulated_grad",
        "accum_var": "accumulated_delta_var",
        "accumulated_delta_var": "accumulated_delta_var",
    },
    "Adamax": {"m": "momentum", "v": "norm", "u": "norm"},
    "Ftrl": {"accumulator": "accumulator", "linear": "linear"},
    "Lion": {"m": "momentum"},
}
_SLOTS["AdamW"] = _SLOTS["Adam"]
_COUNTERS = frozenset({"iter", "iteration", "iterations"})
_RATES = frozenset({"learning_rate", "current_learning_rate"})
_NUMBERED = re.compile(r"(^|/)Variable(_\d+)?$")


_OTHER_SLOTS = "its slots in the file are others than those of the model"


class _DoesNotFit(Exception):
    """Why the state cannot be carried over."""


def plan(
    model: keras.Model,
    tensors: Sequence[ForeignTensor],
    by_name: Mapping[str, Variable],
    trainable: Sequence[Variable],
) -> tuple[list[Pair], list[Finding]]:
    """Which tensor is which variable of the model's optimizer, whose slots are made here.

    ``by_name`` has the weights by their names in the file, ``trainable`` those that were trained, in the file's order.
    """
    optimizer = model.optimizer
    if not tensors:
        return [], [_fresh("the file holds none of its state")]
    optimizer.build(model.trainable_variables)
    written = {tensor.name for tensor in tensors}
    for by_path in ({v.path: v for v in optimizer.variables}, _by_path_in_file(optimizer, by_name)):
        if by_path.keys() == written:
            return [(by_path[tensor.name], tensor) for tensor in tensors], []
    found = inventory(internals.walk(model))
    slots = {name.removeprefix("optimizer/"): v for name, v in found.variables.items() if name.startswith("optimizer/")}
    paths = {name: found.names[id(variable)].removeprefix("weights/") for name, variable in by_name.items()}
    order = [found.names[id(variable)].removeprefix("weights/") for variable in trainable]
    # Before Keras 2.1 what was trained was sorted by name, for some time and not for some.
    by_their_names = [path for _, path in sorted(paths.items()) if path in set(order)]
    reading = _Reading(type(optimizer).__name__, slots, paths, (order, by_their_names))
    try:
        return reading.pairs(tensors), []
    except _DoesNotFit as reason:
        return [], [_fresh(str(reason))]


def _by_path_in_file(optimizer: keras.optimizers.Optimizer, by_name: Mapping[str, Variable]) -> dict[str, Variable]:
    """The slots of Keras 3 by the paths they had: a model that was itself read has others, below its own name."""
    stems = {_stem(variable.path): _stem(name) for name, variable in by_name.items()}
    found = {}
    for slot in optimizer.variables:
        owner, _, name = slot.path.rpartition("/")
        here = max((stem for stem in stems if name.startswith(f"{stem}_")), key=len, default=None)
        found[slot.path if here is None else f"{owner}/{stems[here]}{name.removeprefix(here)}"] = slot
    return found


def _stem(path: str) -> str:
    return path.replace("/", "_")


def _fresh(why: str) -> Finding:
    return Finding("optimizer-fresh", Severity.WARNING, f"{why}; it starts anew", subject="optimizer")


@dataclass(frozen=True)
class _Reading:
    optimizer: str
    slots: Mapping[str, Variable]  # "layers/dense/vars/0/momentum" → the variable
    paths: Mapping[str, str]  # "dense/kernel:0" → "layers/dense/vars/0"
    orders: tuple[Sequence[str], ...]  # paths of what was trained, in each order that a file may have

    def pairs(self, tensors: Sequence[ForeignTensor]) -> list[Pair]:
        words = _SLOTS.get(self.optimizer)
        if words is None:
            raise _DoesNotFit(f"{self.optimizer} keeps its state in another form than it did")
        if any(_NUMBERED.search(_bare(tensor.name)) for tensor in tensors):
            pairs = self._by_order(tensors, list(dict.fromkeys(words.values())))
        else:
            pairs = [pair for tensor in tensors if (pair := self._by_name(tensor, words))]
        self._check(pairs)
        return pairs

    def _by_name(self, tensor: ForeignTensor, words: Mapping[str, str]) -> Pair | None:
        _, _, inner = _bare(tensor.name).removeprefix("training/").partition("/")
        last = _bare(tensor.name).rpartition("/")[2]
        if last in _RATES:
            return None
        if last in _COUNTERS:
            return self.slots["iteration"], _whole(tensor)
        first, _, rest = inner.partition("/")
        before, _, final = inner.rpartition("/")
        for word, weight in ((first, rest), (final, before)):
            path = self.paths.get(f"{weight}:0") or self.paths.get(weight)
            if word in words and path is not None:
                # Some releases made slots that the arguments leave unused.
                is_used = any(name.endswith(f"/{words[word]}") for name in self.slots)
                return (self._slot(path, words[word]), tensor) if is_used else None
        raise _DoesNotFit(f"{tensor.name} belongs to no weight of the model")

    def _by_order(self, tensors: Sequence[ForeignTensor], kinds: Sequence[str]) -> list[Pair]:
        fitting: list[list[Pair]] = []
        for order in self.orders:
            pairs = self._in_order(tensors, kinds, order)
            if all(tuple(variable.shape) == tensor.shape for variable, tensor in pairs) and pairs not in fitting:
                fitting.append(pairs)
        if len(fitting) != 1:
            raise _DoesNotFit("its slots have no names, and their order does not tell" if fitting else _OTHER_SLOTS)
        return fitting[0]

    def _in_order(self, tensors: Sequence[ForeignTensor], kinds: Sequence[str], order: Sequence[str]) -> list[Pair]:
        pairs = []
        left = list(tensors)
        if left and left[0].shape == ():
            pairs.append((self.slots["iteration"], _whole(left.pop(0))))
        for kind in kinds:
            if f"{order[0]}/{kind}" in self.slots:
                group, left = left[: len(order)], left[len(order) :]
                pairs += [(self._slot(path, kind), tensor) for path, tensor in zip(order, group, strict=False)]
        if any(tensor.shape not in ((), (1,)) for tensor in left):  # placeholders of slots that are not used
            raise _DoesNotFit(_OTHER_SLOTS)
        return pairs

    def _slot(self, path: str, kind: str) -> Variable:
        if f"{path}/{kind}" not in self.slots:
            raise _DoesNotFit(f"there is no {kind} of {path}")
        return self.slots[f"{path}/{kind}"]

    def _check(self, pairs: Sequence[Pair]) -> None:
        for variable, tensor in pairs:
            if tuple(variable.shape) != tensor.shape:
                raise _DoesNotFit(f"{tensor.name} has the shape {tensor.shape}, here it is {tuple(variable.shape)}")
        filled = {id(variable) for variable, _ in pairs}
        empty = [name for name, variable in self.slots.items() if id(variable) not in filled]
        if missing := [name for name in empty if name not in ("iteration", "learning_rate")]:
            raise _DoesNotFit(f"the file has nothing for {missing[0]}")


def _whole(counter: ForeignTensor) -> ForeignTensor:
    """A counter of steps, which Keras before 2.1 kept as a float."""
    if "int" in counter.dtype:
        return counter
    # NumPy makes a number of an array without axes once it is rounded; PyTorch takes arrays alone.
    return replace(counter, dtype="int64", nbytes=8, read=lambda: np.asarray(counter.read().round(), "int64"))


def _bare(name: str) -> str:
    return name.partition(":")[0]
