"""The weights of a model in memory, compared with those that were stored."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from modelkeep.live import internals
from modelkeep.live.variables import inventory, source, stored_dtype
from modelkeep.manifest import Manifest, Tensor
from modelkeep.report import Finding, Severity
from modelkeep.storage.hashing import digest_of


def weights_equal(model: keras.Model, manifest: Manifest) -> tuple[Finding, ...]:
    """Whether every variable of ``model`` holds, to the bit, what was stored of it.

    Variables that this backend holds in another dtype than the one that saved them are told, not compared.
    """
    paths = {tensor.name: tensor.variable for tensor in manifest.tensors}
    variables = inventory(internals.walk(model), paths).variables
    stored = {tensor.name: tensor for tensor in manifest.tensors if tensor.name in variables}
    differing = [name for name, tensor in stored.items() if not _is_widened(variables[name], tensor)]
    findings = list(_compared(variables, [stored[name] for name in differing]))
    widened = len(stored) - len(differing)
    if widened:
        text = f"{widened} variables are held in another dtype by this backend and were not compared to the bit"
        findings.append(Finding("weights", Severity.NOTE, text))
    if not any(finding.severity is Severity.FAILURE for finding in findings):
        findings.insert(0, Finding("weights", Severity.OK, f"{len(differing)} variables are equal to the bit"))
    return tuple(findings)


def _is_widened(variable: keras.Variable, tensor: Tensor) -> bool:
    return stored_dtype(variable) != tensor.dtype


def _compared(variables: dict[str, keras.Variable], tensors: list[Tensor]) -> Iterator[Finding]:
    for tensor in tensors:
        variable = variables[tensor.name]
        shape = tuple(int(length) for length in variable.shape)
        if shape != tensor.shape:
            text = f"has the shape {shape}, stored was {tensor.shape}"
            yield Finding("weights", Severity.FAILURE, text, variable.path)
        elif digest_of(source(tensor.name, variable).read()) != tensor.digest:
            yield Finding("weights", Severity.FAILURE, "differs from what was stored", variable.path)
