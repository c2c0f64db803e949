"""Operations of TensorFlow between layers (``TFOpLambda``, ``SlicingOpLambda``) as operations of ``keras.ops``."""

from __future__ import annotations

from typing import Any

from modelkeep.legacy.rules import JSON

CLASSES = frozenset({"TFOpLambda", "SlicingOpLambda"})


class Unknown(Exception):
    """There is no operation of Keras for it; the text says for what."""


def constant(value: Any) -> Any:
    return value


def upgrade(layer: JSON, calls: list[JSON]) -> str:
    raise Unknown(f"there is no operation of Keras for tf.{layer['config'].get('function')}")
