"""A whole model in HDF5, as Keras has written it since 2015, for those who cannot read ``.keras`` files yet."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from modelkeep.errors import UsageError
from modelkeep.live import internals
from modelkeep.live.allowlist import own_function
from modelkeep.live.capture import assets, configs
from modelkeep.live.golden import Predict
from modelkeep.live.tensors import EXOTIC
from modelkeep.live.variables import Inventory, inventory, stored_dtype
from modelkeep.live.writing import plain
from modelkeep.live.writing.tracing import quiet
from modelkeep.manifest import Signature
from modelkeep.report import Finding, Report, Severity, several

BACKENDS = ("tensorflow", "jax", "torch")


def write(
    model: keras.Model, path: Path, *, form: str = "h5", signature: Signature | None = None
) -> tuple[Finding, ...]:
    """Write an ``.h5`` file that plain Keras opens.

    Raises UsageError for what Keras would leave out without a word, or could not read again: vocabularies, bfloat16,
    weights that layers save by themselves, models that are neither Sequential nor functional. CannotRebuild for a
    class without a config, UnsafeContent for lambdas.
    """
    configs(model)  # refuses what cannot be told in a config at all
    found = inventory(internals.walk(model))
    _refuse(model, found)
    with _compiled_as_before(model), warnings.catch_warnings(), quiet():
        warnings.filterwarnings("ignore", module="keras")
        model.save(path)
    _name_losses_in_full(path)
    slots = model.compiled and model.optimizer.built
    note = plain.note("plain Keras starts an optimizer anew that comes from an .h5 file, though its state is in there")
    return (*([note] if slots else []), *plain.not_held(found, "an .h5 file"))


def reopen(path: Path, *, form: str = "h5", model: keras.Model) -> Predict:
    """What plain Keras makes of the file, after every weight in it was compared with the model's."""
    return plain.reopen(path, model, optimizer=False)


def _refuse(model: keras.Model, found: Inventory) -> None:
    """Raise UsageError with every reason for which an ``.h5`` file cannot hold the model."""
    is_own = not isinstance(model, keras.Sequential) and type(model).__name__ not in ("Functional", "Model")
    reasons = {
        "a model of a class of its own": [type(model).__name__] if is_own else [],
        "vocabularies and other files of layers": list(assets(found)),
        "what layers save by themselves": list(found.arrays),
        "bfloat16 and float8": [variable.path for variable in model.weights if stored_dtype(variable) in EXOTIC],
    }
    findings = [
        Finding(plain.NOT_HELD, Severity.FAILURE, f"{what}: {several(names)}")
        for what, names in reasons.items()
        if names
    ]
    title = "an .h5 file cannot hold this model, which a .keras file can"
    Report(title, tuple(findings), UsageError).raise_for_failures()


def _name_losses_in_full(path: Path) -> None:
    """Write ``mean_squared_error`` where ``compile`` was given ``mse``, which Keras would not find when it loads."""
    import h5py

    with h5py.File(path, "r+") as file:
        text = file.attrs.get("training_config")
        if text is None:
            return
        config = json.loads(text)
        config["loss"] = _in_full(config["loss"])
        file.attrs["training_config"] = json.dumps(config).encode()


def _in_full(loss: Any) -> Any:
    if isinstance(loss, str):
        function = keras.losses.get(loss)
        return function.__name__ if own_function("keras.losses", getattr(function, "__name__", "")) else loss
    if isinstance(loss, list):
        return [_in_full(inner) for inner in loss]
    if isinstance(loss, dict) and "class_name" not in loss:
        return {name: _in_full(inner) for name, inner in loss.items()}
    return loss


@contextmanager
def _compiled_as_before(model: keras.Model) -> Iterator[None]:
    """Keras takes the optimizer out of what it remembers of ``compile`` when it writes ``.h5``; put it back."""
    arguments = internals.compile_arguments(model)
    before = dict(arguments or {})
    try:
        yield
    finally:
        if arguments is not None:
            arguments.update(before)
