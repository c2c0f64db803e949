"""Tensors of a file given to the variables of a model: all of them or none, and every one accounted for.

Keras' own loaders skip what does not fit: a name that matches nothing loads nothing, a layer that the file lacks keeps
its random numbers, a bias is loaded without its kernel. Here a tensor is matched, mismatched, or unused, a variable may
be missing, and anything but *matched* stops the whole before the first value is assigned, unless it was named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import keras
import numpy as np

from modelkeep.errors import NotFaithful
from modelkeep.formats.contents import ForeignTensor
from modelkeep.live import variables
from modelkeep.live.internals import Variable
from modelkeep.live.tensors import Array, numpy_dtype
from modelkeep.report import Finding, Report, Severity

Pair: TypeAlias = tuple[Variable, ForeignTensor]

TITLE = "weights"


def assign(
    pairs: Iterable[Pair],
    *,
    missing: Iterable[Variable] = (),
    unused: Iterable[ForeignTensor] = (),
    skip: Sequence[str] = (),
) -> Report:
    """Give every variable the values of its tensor, or none of them; call it once for all tensors of a file.

    ``missing`` are variables that no tensor was found for, ``unused`` tensors without a variable. ``skip`` names what
    may be left out: a tensor's name, a variable's path, or whole parts of either (``dense_2``, ``layers/dense``). What
    belongs to one layer or optimizer is loaded whole or not at all, so naming a kernel leaves its bias, too.

    A dtype is converted where every value stays what it was (float16 to float32, int64 to int32 where they fit) and
    that is said. Raises NotFaithful with the report, and nothing changed, where anything else does not fit.
    """
    plan = _Plan(tuple(pairs), tuple(missing), tuple(unused), tuple(skip))
    report = Report(TITLE, tuple(plan.findings()), NotFaithful)
    report.raise_for_failures()
    # All values are at hand, in their final dtype, before the first is assigned.
    values = [(variable, _values(variable, tensor)) for variable, tensor in plan.loaded]
    for variable, array in values:
        variables.run_initializers([variable])
        variables.assign(variable, array)
    return report


@dataclass(frozen=True)
class _Plan:
    pairs: tuple[Pair, ...]
    missing: tuple[Variable, ...]
    unused: tuple[ForeignTensor, ...]
    skip: tuple[str, ...]

    @property
    def loaded(self) -> list[Pair]:
        left = self._left_owners()
        return [pair for pair in self.pairs if _owner(pair[0]) not in left]

    def findings(self) -> Iterator[Finding]:
        """A summary, then one finding for each tensor or variable."""
        left = self._left_owners()
        yield self._summary()
        for variable, tensor in self.pairs:
            yield self._pair(variable, tensor, left=_owner(variable) in left)
        for variable in self.missing:
            severity = Severity.WARNING if _owner(variable) in left else Severity.FAILURE
            text = f"{form_of(_shape(variable), _dtype(variable))} has no tensor in the file"
            yield Finding("weights-missing", severity, text, variable.path, _details(variable=variable))
        for tensor in self.unused:
            severity = Severity.WARNING if self._is_named(tensor.name) else Severity.FAILURE
            text = f"{form_of(tensor.shape, tensor.dtype)} has no variable in the model"
            yield Finding("weights-unused", severity, text, tensor.name, _details(tensor=tensor))
        for entry in self.skip:
            if not any(is_part(entry, name) for name in self._names()):
                yield Finding("weights-skip", Severity.WARNING, "skip names nothing of file or model", entry)

    def _summary(self) -> Finding:
        loaded = self.loaded
        parameters = sum(prod(tensor.shape) for _, tensor in loaded)
        details = {
            "matched": len(loaded),
            "left": len(self.pairs) - len(loaded),
            "missing": len(self.missing),
            "unused": len(self.unused),
            "parameters": parameters,
            "model_parameters": sum(prod(_shape(v)) for v in (*(v for v, _ in self.pairs), *self.missing)),
        }
        text = f"{len(loaded)} of {len(self.pairs) + len(self.unused)} tensors, {parameters:,} numbers"
        return Finding("weights", Severity.OK, text, details=details)

    def _pair(self, variable: Variable, tensor: ForeignTensor, *, left: bool) -> Finding:
        fault = _fault(variable, tensor)
        details = _details(variable=variable, tensor=tensor)
        if left:
            text = f"{variable.path} is left as it was" + (f": {fault}" if fault else "")
            return Finding("weights-skipped", Severity.WARNING, text, tensor.name, details)
        if fault:
            return Finding("weights-mismatched", Severity.FAILURE, f"{variable.path}: {fault}", tensor.name, details)
        held = variables.held_dtype(variable)
        text = f"{variable.path} {form_of(tensor.shape, tensor.dtype)}"
        if held == tensor.dtype:
            return Finding("weights-matched", Severity.OK, text, tensor.name, details)
        return Finding("weights-matched", Severity.NOTE, f"{text}, as {held} with equal values", tensor.name, details)

    def _left_owners(self) -> set[str]:
        """The layers, and optimizers, that keep what they have because something of them was named."""
        named = {_owner(v) for v, tensor in self.pairs if self._is_named(v.path) or self._is_named(tensor.name)}
        return named | {_owner(variable) for variable in self.missing if self._is_named(variable.path)}

    def _is_named(self, name: str) -> bool:
        return any(is_part(entry, name) for entry in self.skip)

    def _names(self) -> Iterator[str]:
        for variable, tensor in self.pairs:
            yield from (variable.path, tensor.name)
        yield from (variable.path for variable in self.missing)
        yield from (tensor.name for tensor in self.unused)


def is_part(entry: str, name: str) -> bool:
    """Whether an entry of ``skip`` is a name or whole parts of it."""
    return f"/{entry.strip('/')}/" in f"/{name}/"


def _owner(variable: Variable) -> str:
    return str(variable.path.rpartition("/")[0])


def _fault(variable: Variable, tensor: ForeignTensor) -> str:
    """Why a tensor cannot become a variable's value; empty where it can."""
    shape, dtype = _shape(variable), variables.held_dtype(variable)
    if shape != tensor.shape:
        return f"the file has the shape {tensor.shape}, the model {shape}"
    if not is_exact(tensor.dtype, dtype):
        return f"the file has {tensor.dtype}, which {dtype} cannot hold exactly"
    return ""


def is_exact(source: str, target: str) -> bool:
    """Whether numbers of one dtype may be exact in another of its kind; for integers their values decide."""
    if source == target:
        return True
    kind = kind_of(source)
    return kind == kind_of(target) and (kind == "int" or np.can_cast(numpy_dtype(source), numpy_dtype(target)))


def kind_of(dtype: str) -> str:
    """``float``, ``int`` or ``complex``; any other dtype is a kind of its own."""
    # An int8 kernel is no float32 kernel, though each number would fit: it lacks its scale.
    return next((kind for kind in ("complex", "float", "int") if kind in dtype), dtype)


def _values(variable: Variable, tensor: ForeignTensor) -> Array:
    """The tensor's values in memory of their own, in the dtype that the variable is held in."""
    array = tensor.read()
    if array.shape != tensor.shape or array.dtype.name != tensor.dtype:
        raise NotFaithful(
            f"{tensor.name} is not what the file declared",
            found=form_of(array.shape, array.dtype.name),
            expected=form_of(tensor.shape, tensor.dtype),
        )
    held = numpy_dtype(variables.held_dtype(variable))
    if array.dtype == held:
        return array if array.flags.owndata and array.flags.writeable else array.copy()
    converted = array.astype(held)
    if held.kind in "iu" and not np.array_equal(converted, array):
        raise NotFaithful(
            f"{tensor.name} has values that {held.name} cannot hold", found=f"{array.min()} to {array.max()}"
        )
    return converted


def _shape(variable: Variable) -> tuple[int, ...]:
    return tuple(int(length) for length in variable.shape)


def _dtype(variable: Variable) -> str:
    return str(keras.backend.standardize_dtype(variable.dtype))


def form_of(shape: tuple[int, ...], dtype: str) -> str:
    """Dtype and shape in one word: ``float32[3, 4]``."""
    return f"{dtype}{list(shape)}"


def _details(*, variable: Variable | None = None, tensor: ForeignTensor | None = None) -> dict[str, object]:
    details: dict[str, object] = {}
    if variable is not None:
        details |= {"variable": variable.path, "shape": list(_shape(variable)), "dtype": _dtype(variable)}
        details["parameters"] = prod(_shape(variable))
    if tensor is not None:
        details |= {"tensor": tensor.name, "file_shape": list(tensor.shape), "file_dtype": tensor.dtype}
        details["file_parameters"] = prod(tensor.shape)
    return details
