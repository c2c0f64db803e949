"""A ``.keras`` file, or its unpacked folder, as the model it was: built, filled, compiled, its optimizer going on."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import keras

from modelkeep.formats.contents import Contents
from modelkeep.live import building
from modelkeep.live.capture import name_publicly
from modelkeep.live.reading import Read, store
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
    """The model of a ``.keras`` file of any Keras 3, compiled if it was and ``compile`` is true.

    With ``into`` that model takes the file's weights, and its optimizer the file's state if it is compiled. ``skip``
    names what may be left out (:func:`modelkeep.live.matching.assign`). Raises MissingCustomObjects, UnsafeContent,
    CannotLoad, NotFaithful with its report.
    """
    if into is not None:
        return Read(into, store.fill(into, contents, skip=skip))
    model, findings = construct(contents, custom_objects=custom_objects, trust=trust, compile=compile)
    return Read(model, (*findings, *store.fill(model, contents, skip=skip)))


def construct(
    contents: Contents, *, custom_objects: Any, trust: Sequence[str], compile: bool
) -> tuple[keras.Model, tuple[Finding, ...]]:
    """The model that a config of Keras 3 and its compile arguments describe, with the weights its initializers give."""
    version = contents.writer.get("keras")
    config, compile_config = deepcopy((contents.config, contents.compile if compile else None))
    config.pop("compile_config", None)
    name_publicly([config, compile_config])
    built = building.build(
        config,
        keras_version=version,
        compile_config=compile_config,
        custom_objects=custom_objects,
        trust=trust,
        file=contents.path.name,
    )
    model, findings = built.model, built.findings
    if not model.built and config.get("build_config"):
        model.build_from_config(config["build_config"])
    if compile_config:
        findings += building.compile_model(model, compile_config, keras_version=version, objects=built.objects)
    return model, findings
