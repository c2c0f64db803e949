"""What a written form answers against what the model answers, at several batch sizes and lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from modelkeep.errors import UsageError
from modelkeep.live import internals
from modelkeep.live.arrays import Array, to_array
from modelkeep.live.comparison import Comparison
from modelkeep.live.golden import Predict, computed_in, outputs_of
from modelkeep.live.interface import has_open_rows, rows, with_rows
from modelkeep.live.variables import inventory
from modelkeep.live.writing.tracing import by_name, nested
from modelkeep.manifest import Signature, TensorSpec
from modelkeep.report import Finding, Severity, several

CHECK = "export-replay"
_BATCHES = (1, 3)


@dataclass(frozen=True)
class Batch:
    """Inputs, nested as the model takes them, with what it answers, by output name."""

    title: str
    inputs: Any
    outputs: dict[str, Array]


@dataclass(frozen=True)
class Examples:
    """What a written form has to answer, by the signature it is to have; ``notes`` tell what could not be tried."""

    signature: Signature
    batches: tuple[Batch, ...]
    notes: tuple[Finding, ...] = ()


def examples_of(model: keras.Model, signature: Signature, inputs: Any) -> Examples:
    """``inputs`` at batch sizes 1, 3 and their own, and once with every unknown axis twice as long.

    A model of a fixed batch size answers at that alone. Where it does not run at another length, though it says that
    any will do, a note tells so. Raises UsageError for inputs that are nothing the model answers.
    """
    given = rows(inputs)
    counts = sorted({*_BATCHES, given}) if has_open_rows(signature) else [_fixed_rows(signature, given)]
    try:
        made = [_batch(model, signature, f"{count} rows", with_rows(inputs, count)) for count in counts]
    except Exception as error:
        raise UsageError(
            f"the examples are nothing that this model answers ({type(error).__name__}: {error})",
            hint="give a batch of what it takes, such as x_test[:10]",
        ) from error
    longer = _longer(signature, with_rows(inputs, counts[0]))
    if longer is None:
        return Examples(signature, tuple(made))
    try:
        made.append(_batch(model, signature, "twice the length", longer))
    except Exception as error:  # noqa: BLE001 - the model's own code, on inputs it may not be meant for
        message = f"not tried at another length: the model does not run at twice that of the examples ({error})"
        return Examples(signature, tuple(made), (Finding(CHECK, Severity.NOTE, message),))
    return Examples(signature, tuple(made))


def changes(model: keras.Model, examples: Examples) -> list[Finding]:
    """A warning where the model changes as it answers: no form does, each call starts from what the model is now."""
    with internals.unchanged_randomness(), keras.StatelessScope() as scope:
        model(examples.batches[0].inputs, training=False)
    variables = inventory(internals.walk(model)).variables
    changed = [name for name, variable in variables.items() if scope.get_current_value(variable) is not None]
    if not changed:
        return []
    message = (
        f"states and random numbers are what they are now, and the same at every call: {several(changed)} would change"
    )
    return [Finding("export-state", Severity.WARNING, message)]


def compare(predict: Predict, model: keras.Model, examples: Examples, *, same_backend: bool) -> list[Finding]:
    """One finding for each output: its largest difference in all batches, or why ``predict`` does not run."""
    allowed = Comparison(same_backend, tuple(computed_in(model)))
    worst: dict[str, Finding] = {}
    for batch in examples.batches:
        for finding in _compared(predict, examples.signature, batch, allowed):
            if finding.subject not in worst or _badness(finding) > _badness(worst[finding.subject]):
                worst[finding.subject] = replace(finding, message=f"{finding.message}, at {batch.title}")
    return [*(_in_all(finding, examples.batches) for finding in worst.values()), *examples.notes]


def _in_all(worst: Finding, made: Sequence[Batch]) -> Finding:
    if _badness(worst) > (False, 0.0):
        return worst
    return replace(worst, message=f"{worst.message.partition(', at ')[0]}, at {', '.join(b.title for b in made)}")


def _compared(predict: Predict, signature: Signature, batch: Batch, allowed: Comparison) -> Iterator[Finding]:
    try:
        found = by_name(signature.output_structure, predict(batch.inputs))
    except Exception as error:  # noqa: BLE001 - whatever its runtime raises is the answer
        message = f"does not run on the examples ({type(error).__name__}: {' '.join(str(error).split())[:500]})"
        yield Finding(CHECK, Severity.FAILURE, message)
        return
    for name, recorded in batch.outputs.items():
        for finding in allowed.compare(name, recorded, to_array(found[name])):
            yield replace(finding, check=CHECK, details={**finding.details, "batch": batch.title})


def _badness(finding: Finding) -> tuple[bool, float]:
    difference = finding.details.get("difference", 0.0)
    return finding.severity is Severity.FAILURE, difference if isinstance(difference, float) else float("inf")


def _batch(model: keras.Model, signature: Signature, title: str, inputs: Any) -> Batch:
    return Batch(title, inputs, by_name(signature.output_structure, outputs_of(model, inputs)))


def _fixed_rows(signature: Signature, given: int) -> int:
    return next((spec.shape[0] for spec in signature.inputs if spec.shape and spec.shape[0] is not None), given)


def _longer(signature: Signature, inputs: Any) -> Any:
    """The inputs with every axis of unknown length, the first apart, twice as long; None where there is none."""
    specs = {spec.name: spec for spec in signature.inputs}
    found = by_name(signature.input_structure, inputs)
    longer = {name: _doubled(array, specs[name]) for name, array in found.items()}
    if all(longer[name].shape == array.shape for name, array in found.items()):
        return None
    return nested(signature.input_structure, longer)


def _doubled(array: Array, spec: TensorSpec) -> Array:
    for axis, length in enumerate(spec.shape or ()):
        if axis and length is None:
            array = np.concatenate([array, array], axis=axis)
    return array
