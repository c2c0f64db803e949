"""Functions that Keras 3 changed or dropped, kept for models that were trained with them.

They are registered with Keras under the package ``modelkeep``, so a model that holds one can be saved by modelkeep
and to ``.keras``. Plain Keras opens such a ``.keras`` after ``import modelkeep.live.legacy_functions``.
"""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="modelkeep")
def hard_sigmoid(x: Any) -> Any:
    """``min(max(0.2 x + 0.5, 0), 1)``, as Keras 1 and 2 had it; Keras 3's own is ``min(max(x / 6 + 0.5, 0), 1)``."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


OWN = {"modelkeep>hard_sigmoid": hard_sigmoid}
"""Each by the name that configs have for it."""
