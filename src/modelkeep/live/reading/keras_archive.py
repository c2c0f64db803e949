"""A ``.keras`` file, or its unpacked folder, as the model it was: built, filled, compiled, its optimizer going on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from modelkeep.formats.contents import Contents
from modelkeep.live import building
from modelkeep.live.reading import Read, store


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
    version = contents.writer.get("keras")
    built = building.build(
        {key: value for key, value in contents.config.items() if key != "compile_config"},
        keras_version=version,
        compile_config=contents.compile if compile else None,
        custom_objects=custom_objects,
        trust=trust,
        file=contents.path.name,
    )
    findings = built.findings
    if compile and contents.compile:
        findings += building.compile_model(built.model, contents.compile, keras_version=version, objects=built.objects)
    return Read(built.model, (*findings, *store.fill(built.model, contents, skip=skip)))
