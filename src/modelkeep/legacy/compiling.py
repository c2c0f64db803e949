"""What ``compile`` was given, in the forms that each Keras wrote it."""

from __future__ import annotations

from modelkeep.legacy.rules import JSON

# Arguments of Keras 2's compile that Keras 3 has, too.
_TAKEN = (
    "optimizer",
    "loss",
    "loss_weights",
    "metrics",
    "weighted_metrics",
    "run_eagerly",
    "steps_per_execution",
    "jit_compile",
    "auto_scale_loss",
)


def arguments(config: JSON) -> JSON:
    """The arguments of ``compile``: an HDF5 file tells the optimizer apart, and arguments that Keras 3 lacks."""
    found: JSON = dict(config)
    if "optimizer_config" in found:
        found["optimizer"] = found.pop("optimizer_config")
    return {name: found[name] for name in _TAKEN if found.get(name) is not None}
