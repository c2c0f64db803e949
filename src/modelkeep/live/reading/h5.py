"""A whole model in HDF5, of Keras 1 to 3: its config made new, its weights given layer by layer, compiled last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from modelkeep.errors import CannotLoad
from modelkeep.formats.contents import Contents
from modelkeep.live import building, internals, matching
from modelkeep.live.reading import Read, legacy_weights, optimizer_slots
from modelkeep.report import Finding


def read(
    contents: Contents,
    *,
    into: keras.Model | None = None,
    custom_objects: Any = None,
    trust: Sequence[str] = (),
    compile: bool = True,
    skip: Sequence[str] = (),
) -> Read:
    """The model of an ``.h5`` file, with its weights; compiled, and its optimizer going on, if ``compile`` is true.

    With ``into`` that model takes the file's weights and is left as it was otherwise. ``skip`` names what may be left
    out (:func:`modelkeep.live.matching.assign`). Raises MissingCustomObjects, UnsafeContent, CannotLoad with every
    reason, and NotFaithful with the report where a tensor or a variable stands alone.
    """
    if into is not None:
        return Read(into, _assigned(into, legacy_weights.plan(into, contents), skip))
    if contents.config is None:
        raise CannotLoad(
            f"{contents.path.name} holds weights and no architecture",
            hint="give the model to load them into, or its architecture as JSON",
        )
    version = contents.writer.get("keras")
    built = building.build(
        contents.config,
        keras_version=version,
        compile_config=contents.compile if compile else None,
        custom_objects=custom_objects,
        trust=trust,
        file=contents.path.name,
    )
    plan = legacy_weights.plan(built.model, contents, config=built.config["config"], renamed=built.renamed)
    findings = [*built.findings, *_assigned(built.model, plan, skip)]
    if compile and contents.compile is not None:
        findings += building.compile_model(built.model, contents.compile, keras_version=version, objects=built.objects)
        findings += _continued(built.model, contents, plan)
    return Read(built.model, tuple(findings))


def _assigned(model: keras.Model, plan: legacy_weights.Plan, skip: Sequence[str]) -> tuple[Finding, ...]:
    report = matching.assign(plan.pairs, missing=plan.missing, unused=plan.unused, skip=skip)
    for _, node in internals.walk(model):
        internals.finish(node)
    return (*report.findings, *plan.findings)


def _continued(model: keras.Model, contents: Contents, plan: legacy_weights.Plan) -> tuple[Finding, ...]:
    """Let the optimizer go on where the file's stood, if it can."""
    pairs, findings = optimizer_slots.plan(model, contents.optimizer, plan.by_name, plan.trainable)
    return (*findings, *matching.assign(pairs).findings) if pairs else tuple(findings)
