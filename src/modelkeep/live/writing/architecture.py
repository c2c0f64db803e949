"""The architecture alone, as ``model.to_json()`` writes it."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path

import keras

from modelkeep.formats.forms import open_contents
from modelkeep.live.capture import configs
from modelkeep.live.golden import Predict, outputs_of
from modelkeep.live.reading import architecture, store
from modelkeep.live.writing import keras_archive, plain
from modelkeep.manifest import Signature
from modelkeep.report import Finding

BACKENDS = ("tensorflow", "jax", "torch")


def write(
    model: keras.Model, path: Path, *, form: str = "json", signature: Signature | None = None
) -> tuple[Finding, ...]:
    """Write the config as JSON, with what ``compile`` was given. Raises CannotRebuild, UnsafeContent for lambdas."""
    config, compile_config, _ = configs(model)
    if compile_config is not None:
        config = {**config, "compile_config": compile_config}
    path.write_text(json.dumps({**config, "keras_version": keras.version()}, indent=1))
    return (plain.note("an architecture holds no weights and no optimizer's state"),)


def reopen(path: Path, *, form: str = "json", model: keras.Model) -> Predict:
    """What the architecture answers once it has the model's own weights."""
    with open_contents(path) as contents:
        made = architecture.read(contents, custom_objects=plain.objects_of(model), compile=False).model
    with tempfile.TemporaryDirectory(prefix="modelkeep-") as folder:
        whole = Path(folder, "model.keras")
        keras_archive.write(model, whole)
        with open_contents(whole) as contents:
            store.fill(made, contents)
    return partial(outputs_of, made)
