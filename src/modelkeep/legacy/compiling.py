"""What ``compile`` was given, in the forms that each Keras wrote it: optimizers, losses, metrics."""

from __future__ import annotations

from typing import Any

from modelkeep.legacy import functions
from modelkeep.legacy.rules import JSON, Node, Note, Rules

RULES = rule = Rules()

# Arguments of Keras 2's compile that Keras 3 has, too.
_ARGUMENTS = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics", "run_eagerly", "jit_compile")
# Losses and metrics that a text means in Keras 3, too.
_SAME = frozenset(
    [
        "mse",
        "mae",
        "mape",
        "msle",
        "bce",
        "kld",
        "mean_squared_error",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "mean_squared_logarithmic_error",
        "binary_crossentropy",
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
        "categorical_hinge",
        "hinge",
        "squared_hinge",
        "kl_divergence",
        "poisson",
        "log_cosh",
        "cosine_similarity",
        "huber",
        "accuracy",
        "acc",
        "ce",
        "crossentropy",
        "binary_accuracy",
        "categorical_accuracy",
        "sparse_categorical_accuracy",
        "top_k_categorical_accuracy",
        "sparse_top_k_categorical_accuracy",
    ]
)
_RENAMED = {
    "cosine_proximity": "cosine_similarity",
    "cosine": "cosine_similarity",
    "kullback_leibler_divergence": "kl_divergence",
    "logcosh": "log_cosh",
    "huber_loss": "huber",
    "binary_focal_crossentropy": "binary_focal_crossentropy",
    "MSE": "mse",
    "MAE": "mae",
    "MAPE": "mape",
    "MSLE": "msle",
    "KLD": "kld",
    "kl_divergence_loss": "kl_divergence",
}


def arguments(config: JSON) -> JSON:
    """The arguments of ``compile``; an HDF5 file has the optimizer under another name, and arguments now gone."""
    found = dict(config)
    if "optimizer_config" in found:
        found["optimizer"] = found.pop("optimizer_config")
    found = {name: found[name] for name in _ARGUMENTS if found.get(name) is not None}
    for name in ("metrics", "weighted_metrics"):
        # Of one output, in a list of its own.
        if isinstance(found.get(name), list) and len(found[name]) == 1 and isinstance(found[name][0], list):
            found[name] = found[name][0]
    return found


def measure(name: str, argument: str, place: str, notes: list[Note]) -> Any:
    """What a text means that is given for a loss or a metric."""
    if name in _SAME:
        return name
    if name in _RENAMED:
        notes.append(Note("renamed-measure", place, f"{argument} {name} is {_RENAMED[name]}"))
        return _RENAMED[name]
    return functions.function(name)


# --- optimizers

_OPTIMIZERS = frozenset(
    [
        "Adadelta",
        "Adafactor",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "Ftrl",
        "Lion",
        "LossScaleOptimizer",
        "Nadam",
        "RMSprop",
        "SGD",
    ]
)


def without_package(raw: JSON) -> JSON:
    """One of Keras' own optimizers by its own name: for a while they were registered like custom ones."""
    name = str(raw["class_name"]).removeprefix("Custom>").removesuffix("V3")
    if name not in _OPTIMIZERS or "." in str(raw.get("registered_name") or ""):
        return raw
    return {"class_name": name, "config": raw["config"]}


@rule("optimizer-arguments", kind="optimizer")
def optimizer_arguments(node: Node) -> str | None:
    """Arguments that only said how it is run."""
    for name in ("is_legacy_optimizer", "jit_compile", "schedule_decay"):
        node.config.pop(name, None)
    return None


@rule("optimizer-learning-rate", kind="optimizer")
def learning_rate(node: Node) -> str | None:
    """The learning rate has one name; a decay beside it became a schedule, which computes the same."""
    config = node.config
    if "lr" in config:
        config["learning_rate"] = config.pop("lr")
    decay = config.pop("decay", None) or 0.0
    if not decay or node.class_name == "Nadam":  # there it was the decay of the momentum
        return None
    rate = config.get("learning_rate", 0.001)
    if isinstance(rate, dict):
        node.refuse("both a schedule and a decay tell its learning rate")
        return None
    inner = {"initial_learning_rate": rate, "decay_steps": 1, "decay_rate": decay}
    config["learning_rate"] = {"class_name": "InverseTimeDecay", "config": inner}
    return f"decay={decay:.6g} is InverseTimeDecay({rate:.6g}, 1, {decay:.6g})"


@rule("optimizer-epsilon", kind="optimizer", versions="2.0 to 2.3")
def optimizer_epsilon(node: Node) -> str | None:
    """No epsilon meant the usual one, which was and is 1e-7."""
    if node.config.get("epsilon", 0) is None:
        node.config["epsilon"] = 1e-7
    return None


@rule("adagrad-start", "Adagrad", kind="optimizer", versions="1.0 to 2.3")
def adagrad_start(node: Node) -> str | None:
    """Accumulators began at zero before that could be chosen."""
    if "initial_accumulator_value" in node.config:
        return None
    node.config["initial_accumulator_value"] = 0.0
    return "initial_accumulator_value=0, as it was before it could be chosen"


@rule("loss-scale", "LossScaleOptimizer", kind="optimizer", versions="2.1 on")
def loss_scale(node: Node) -> str | None:
    """How a loss is scaled was an object of its own, and fixed scales were possible."""
    config = node.config
    if "optimizer" in config:
        config["inner_optimizer"] = config.pop("optimizer")
    scale = config.pop("loss_scale", None)
    if isinstance(scale, dict):
        inner = scale["config"]
        config["initial_scale"] = inner.get("initial_loss_scale", 2.0**15)
        config["dynamic_growth_steps"] = inner.get("increment_period", 2000)
    if config.pop("dynamic", True) is False:
        node.refuse("it scales the loss by a fixed number")
    for name in ("learning_rate", "iterations"):
        config.pop(name, None)
    return None


@rule("schedule-name", kind="schedule", versions="2.0 on")
def schedule_name(node: Node) -> str | None:
    """A schedule without a name was written with none; Keras 3 names it by itself, but not if told to name it none."""
    if node.config.get("name", "") is None:
        del node.config["name"]
    return None


# --- losses


@rule("loss-reduction", kind="loss", versions="2.0 on")
def loss_reduction(node: Node) -> str | None:
    """Automatic reduction was the mean over the batch outside of distributed training."""
    if node.config.get("reduction") == "auto":
        node.config["reduction"] = "sum_over_batch_size"
    return None


@rule("loss-names", "LossFunctionWrapper", "LogCosh", "KLD", "KLDivergence", kind="loss", versions="2.0 on")
def loss_names(node: Node) -> str | None:
    """A function was wrapped into a loss; Keras 3 takes the function."""
    _name_function(node)
    return None


# --- metrics


@rule("metric-function", "MeanMetricWrapper", "SumOverBatchSizeMetricWrapper", kind="metric", versions="2.0 on")
def metric_function(node: Node) -> str | None:
    """The function that a metric averages was written by its name alone."""
    node.class_name = "MeanMetricWrapper"
    _name_function(node)
    return None


def _name_function(node: Node) -> None:
    name = node.config.get("fn")
    if isinstance(name, str):
        node.config["fn"] = functions.function(_RENAMED.get(name, name))
