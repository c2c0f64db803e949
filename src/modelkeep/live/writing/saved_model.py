"""A SavedModel that serves, with a ``serving_default`` of named inputs and outputs, and that restores whole.

A complete ``.keras`` file rides along in ``assets.extra``, which servers pass by.
"""

from __future__ import annotations

from pathlib import Path

import keras

from modelkeep.errors import MissingExtra
from modelkeep.live import internals
from modelkeep.live.writing.tracing import answers, quiet, specs
from modelkeep.manifest import Signature
from modelkeep.report import Finding

BACKENDS = ("tensorflow", "jax")
ENDPOINT = "serving_default"


def write(model: keras.Model, path: Path, *, form: str, signature: Signature) -> tuple[Finding, ...]:
    """Write a SavedModel folder. Raises MissingExtra without TensorFlow, and whatever TensorFlow raises."""
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise MissingExtra("a SavedModel needs TensorFlow", hint="pip install 'modelkeep[tensorflow]'") from error
    archive = keras.export.ExportArchive()
    with quiet(), internals.unchanged_randomness():
        archive.track(model)
        archive.add_endpoint(ENDPOINT, answers(model, signature), input_signature=specs(signature))
        archive.write_out(str(path), verbose=False)
    return ()
