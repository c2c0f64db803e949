"""An architecture alone: a model with fresh weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from modelkeep.errors import UsageError
from modelkeep.formats.contents import Contents
from modelkeep.live.reading import Read
from modelkeep.live.reading.keras_archive import construct
from modelkeep.report import Finding, Severity


def read(
    contents: Contents,
    *,
    into: keras.Model | None = None,
    custom_objects: Any = None,
    trust: Sequence[str] = (),
    compile: bool = True,
    skip: Sequence[str] = (),
) -> Read:
    """The model that the JSON of ``model.to_json()`` describes, with the weights its initializers give.

    Raises UsageError for ``into``, since there are no weights to load; MissingCustomObjects, UnsafeContent,
    CannotLoad with every reason.
    """
    if into is not None or skip:
        raise UsageError(f"{contents.path.name} holds an architecture and no weights")
    model, findings = construct(contents, custom_objects=custom_objects, trust=trust, compile=compile)
    fresh = Finding("weights-fresh", Severity.WARNING, "it holds no weights: the model starts with random ones")
    return Read(model, (*findings, fresh))
