"""A version brought to life again and questioned: its weights to the bit, its golden examples by their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from modelkeep.errors import ModelkeepError
from modelkeep.live import loading
from modelkeep.live.compare import weights_equal
from modelkeep.manifest import Manifest
from modelkeep.report import Finding, Severity
from modelkeep.storage.blobs import Blobs


def verify(
    manifest: Manifest, blobs: Blobs, *, custom_objects: Any = None, trust: Sequence[str] = ()
) -> tuple[Finding, ...]:
    """Rebuild the version, compare every weight with the stored bytes, and replay its golden examples.

    What stops the rebuilding is a failure among the findings, not an error.
    """
    try:
        loaded = loading.load(manifest, blobs, custom_objects=custom_objects, trust=trust)
    except ModelkeepError as error:
        return (Finding("rebuild", Severity.FAILURE, str(error)),)
    backend = keras.backend.backend()
    saved_on = manifest.environment.backend if manifest.environment else None
    return (
        Finding("rebuild", Severity.OK, f"rebuilt on {backend}"),
        *loaded.findings,
        *(() if loaded.network is None else weights_equal(loaded.network, manifest)),
        *loaded.replay(same_backend=saved_on == backend),
    )
