"""A SavedModel that serves, with a ``serving_default`` of named inputs and outputs, and that restores whole.

A complete ``.keras`` file rides along in ``assets.extra``, which servers pass by.
"""

from __future__ import annotations

from pathlib import Path

import keras

from modelkeep.errors import CannotRebuild, UnsafeContent
from modelkeep.formats.saved_model import OWN
from modelkeep.live import internals
from modelkeep.live.writing import keras_archive
from modelkeep.live.writing.tracing import answers, quiet, specs
from modelkeep.manifest import Signature
from modelkeep.report import Finding, Severity

ROUTES = {"tensorflow": ("tensorflow",), "jax": ("tensorflow",)}  # backend → modules it needs
ENDPOINT = "serving_default"


def write(model: keras.Model, path: Path, *, form: str, signature: Signature) -> tuple[Finding, ...]:
    """Write what serves into a folder. Raises whatever TensorFlow raises."""
    archive = keras.export.ExportArchive()
    with quiet(), internals.unchanged_randomness():
        archive.track(model)
        archive.add_endpoint(ENDPOINT, answers(model, signature), input_signature=specs(signature))
        archive.write_out(str(path), verbose=False)
    return ()


def ride_along(model: keras.Model, path: Path) -> tuple[Finding, ...]:
    """Put a whole ``.keras`` file into the folder; its findings say what that cannot hold.

    A model that has none (a class without a config, a lambda) serves all the same; then a finding says so.
    """
    own = path / OWN
    own.parent.mkdir(parents=True)
    try:
        return keras_archive.write(model, own, form="keras")
    except (CannotRebuild, UnsafeContent) as error:
        own.unlink(missing_ok=True)
        return (restores_nothing(error.what),)


def restores_nothing(why: str) -> Finding:
    """The finding for a folder that serves alone."""
    return Finding("not-held", Severity.NOTE, f"it serves, and restores no Keras model: {why}")
