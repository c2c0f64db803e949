"""Moving statistics of BatchNormalization layers, computed for weights that were never trained as they are now.

The procedure is that of stochastic weight averaging (Izmailov et al., https://arxiv.org/abs/1803.05407): the data is
fed once as in training, and every batch counts alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from modelkeep.errors import UsageError
from modelkeep.live import internals


def recalibrate(model: keras.Model, batches: Iterable[Any]) -> None:
    """Compute the moving statistics anew, as one mean over all batches; nothing else of the model changes.

    A batch is what the model takes, or a tuple of that and targets, as ``fit`` reads it. Frozen layers keep what they
    have. Raises UsageError where there is no batch.
    """
    layers = measured(model)
    own = {id(variable) for layer in layers for variable in (layer.moving_mean, layer.moving_variance)}
    others = [variable for variable in model.non_trainable_variables if id(variable) not in own]
    before = [keras.ops.convert_to_numpy(variable) for variable in others]
    momenta = [layer.momentum for layer in layers]
    number = 0
    try:
        for number, batch in enumerate(batches, start=1):
            for layer in layers:
                layer.momentum = 1 - 1 / number  # so that every batch counts alike
            model(keras.utils.unpack_x_y_sample_weight(batch)[0], training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for variable, value in zip(others, before, strict=True):
            variable.assign(value)
    if not number:
        raise UsageError(
            "recalibrate gave no batch",
            hint="give what can be read more than once, such as a dataset or a list: a soup is tried many times",
        )


def measured(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The layers whose moving statistics training changes."""
    found = (node for _, node in internals.walk(model) if isinstance(node, keras.layers.BatchNormalization))
    return [layer for layer in found if layer.trainable]
