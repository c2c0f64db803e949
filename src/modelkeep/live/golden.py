"""Golden examples: inputs with the outputs given at save; recorded, made up where none are given, and replayed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from modelkeep.errors import IntegrityError, ModelkeepError, NotFaithful, UsageError
from modelkeep.live import internals
from modelkeep.live.arrays import Array, holds_arrays, is_array, is_float, leaves, mapped, to_array, to_arrays
from modelkeep.live.comparison import Comparison
from modelkeep.live.probes import probes
from modelkeep.live.tensors import numpy_dtype
from modelkeep.live.variables import inventory, stored_dtype, view
from modelkeep.manifest import Golden, Signature, canonical_json
from modelkeep.report import Finding, Report, Severity

Predict = Callable[[Any], Any]

RAW = "golden/inputs.json"
_JSON = ".json"  # leaves with this ending name a part, not a tensor
_PIECE = 2**18  # values


@dataclass(frozen=True)
class Recorded:
    """Golden examples as they are stored: ``arrays`` by tensor name, ``parts`` by part name.

    ``golden`` is None where no examples could be made up; ``findings`` say why, or what is odd about the outputs.
    """

    golden: Golden | None
    arrays: dict[str, Array] = field(default_factory=dict)
    parts: dict[str, bytes] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


# --- the network's answer


def outputs_of(model: keras.Model, inputs: Any) -> Any:
    """What the network answers to one batch, as arrays nested like its outputs; no state of the model changes.

    ``inputs`` are nested as the model takes them: arrays or tensors of any backend, text, or plain lists of numbers.
    """
    # Inside a stateless scope what layers assign (states of RNNs, seeds, moving means) never reaches their variables.
    with internals.unchanged_randomness(), _without_gradients(), keras.StatelessScope():
        outputs = model(to_arrays(inputs), training=False)
        return mapped(to_array, outputs)


def _without_gradients() -> AbstractContextManager[Any]:
    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch

    gradients_off: AbstractContextManager[Any] = torch.no_grad()
    return gradients_off


# --- recorded


def record(predict: Predict, inputs: Any, *, allow: Iterable[str] = ()) -> Recorded:
    """Record what ``predict`` answers to ``inputs``.

    ``inputs`` with an array in them are kept as tensors; anything else (a list of texts) is raw input of a
    pipeline, kept as JSON. A NaN or infinity in an output is a failure unless ``allow`` has the output's name
    (``outputs``, ``outputs/0``, ``outputs/<key>``).

    Raises UsageError for inputs that the model does not take, and for inputs or outputs that are neither arrays,
    text nor JSON values.
    """
    try:
        recorded = _recorded(predict, inputs, probe=False)
    except ModelkeepError:
        raise
    except Exception as error:
        raise UsageError(
            f"the golden examples are nothing that this model answers ({type(error).__name__}: {error})",
            hint="give a batch of what it takes, such as x_test[:10]",
        ) from error
    return replace(recorded, findings=tuple(_non_finite_outputs(recorded.arrays, allow)))


def _recorded(predict: Predict, inputs: Any, *, probe: bool) -> Recorded:
    written = _Writer()
    if holds_arrays(inputs):
        kept, raw = to_arrays(inputs), None
        structure = written.put("golden/inputs", kept)
        count = next((len(leaf) for leaf in leaves(kept) if np.ndim(leaf)), 1)
    else:
        kept, raw, structure = mapped(_plain, inputs), RAW, None
        written.parts[RAW] = canonical_json(kept)
        count = len(kept) if isinstance(kept, list) else 1
    outputs = written.put("golden/outputs", predict(kept))
    golden = Golden(count=count, inputs=structure, raw=raw, outputs=outputs, probe=probe)
    return Recorded(golden, written.arrays, written.parts)


@dataclass
class _Writer:
    arrays: dict[str, Array] = field(default_factory=dict)
    parts: dict[str, bytes] = field(default_factory=dict)

    def put(self, name: str, value: Any) -> Any:
        """Keep ``value`` under ``name`` and give the structure that names its leaves."""
        if is_array(value):
            return self._put_array(name, to_array(value))
        if not holds_arrays(value):
            return self._put_json(name, {"value": mapped(_plain, value)})
        if isinstance(value, Mapping):
            return {str(key): self.put(f"{name}/{key}", inner) for key, inner in value.items()}
        return [self.put(f"{name}/{index}", inner) for index, inner in enumerate(value)]

    def _put_array(self, name: str, array: Array) -> str:
        if array.dtype.kind == "U":
            return self._put_json(name, {"text": array.tolist()})
        self.arrays[name] = array
        return name

    def _put_json(self, name: str, value: Any) -> str:
        self.parts[name + _JSON] = canonical_json(value)
        return name + _JSON


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float | None):
        raise UsageError(
            "golden examples hold something that cannot be kept",
            found=type(value).__name__,
            expected="arrays, text, numbers, booleans or None, nested in lists and mappings",
        )
    return value


def _non_finite_outputs(arrays: Mapping[str, Array], allow: Iterable[str]) -> Iterator[Finding]:
    allowed = set(allow)
    for full, array in arrays.items():
        name = full.removeprefix("golden/")
        if name.startswith("outputs") and name not in allowed and (count := _count_non_finite(array)):
            yield _not_finite(name, count, array.size)


# --- made up


def probe(model: keras.Model, signature: Signature | None) -> Recorded:
    """Record two made-up examples, so that a rebuilt model is always compared. Never raises.

    A model that does not run on them gets a notice, and no examples.
    """
    try:
        inputs = probes(model, signature)
        if inputs is None:
            return _no_probe("the model does not tell what it takes")
        return _recorded(lambda batch: outputs_of(model, batch), inputs, probe=True)
    except Exception as error:  # noqa: BLE001 - the user's own code runs on inputs it may never have been meant for
        return _no_probe(f"the model does not run on made-up inputs ({type(error).__name__}: {error})")


def _no_probe(why: str) -> Recorded:
    message = f"{why}; without golden examples only weights are compared. Give some: golden=x_test[:10]"
    return Recorded(None, findings=(Finding("golden-probe", Severity.NOTE, message),))


def inputs_of(golden: Golden, arrays: Mapping[str, Array], parts: Callable[[str], bytes]) -> Any:
    """The recorded inputs as they were given. Raises IntegrityError where they cannot be read."""
    return _Reader(arrays, parts).inputs(golden)


# --- replayed


def replay(
    predict: Predict,
    golden: Golden,
    arrays: Mapping[str, Array],
    parts: Callable[[str], bytes],
    *,
    same_backend: bool,
    computed_in: Iterable[str] = (),
    atol: float | None = None,
    rtol: float | None = None,
) -> Report:
    """Answer the recorded inputs again and compare, each output with its worst element.

    ``arrays`` are the golden tensors by name, ``parts`` reads parts by name. ``computed_in`` are the dtypes the
    model computes in (:func:`computed_in`). ``atol`` and ``rtol`` replace the module's tolerances. An exception
    from ``predict`` is a failure in the report. Raises IntegrityError where the examples cannot be read.
    """
    read = _Reader(arrays, parts)
    inputs = read.inputs(golden)
    allowed = Comparison(same_backend, tuple(computed_in), atol, rtol)
    try:
        found = predict(inputs)
    except Exception as error:  # noqa: BLE001 - whatever the model's code raises is the answer to "does it still run"
        message = f"the model does not run on the recorded inputs ({type(error).__name__}: {error})"
        findings = [Finding("golden-output", Severity.FAILURE, message)]
    else:
        findings = list(allowed.compare("outputs", read.get(golden.outputs), found))
    what = "made-up examples" if golden.probe else "golden examples"
    return Report(f"{golden.count} {what} replayed", tuple(findings), NotFaithful)


def computed_in(model: keras.Model) -> frozenset[str]:
    """The dtypes that a model's layers compute in; integers where layers are quantized."""
    layers = [node for _, node in internals.walk(model) if isinstance(node, keras.Layer)]
    quantized = {mode for layer in layers if (mode := getattr(layer, "quantization_mode", None))}
    return frozenset({layer.compute_dtype for layer in layers} | quantized)


@dataclass(frozen=True)
class _Reader:
    arrays: Mapping[str, Array]
    parts: Callable[[str], bytes]

    def inputs(self, golden: Golden) -> Any:
        return self.json(golden.raw) if golden.raw is not None else self.get(golden.inputs)

    def get(self, structure: Any) -> Any:
        return mapped(self._leaf, structure)

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.parts(name))
        except (KeyError, ValueError) as error:
            raise IntegrityError(f"the golden examples cannot be read: {name}", found=error) from error

    def _leaf(self, name: str) -> Any:
        if name.endswith(_JSON):
            value = self.json(name)
            return np.array(value["text"], dtype=str) if "text" in value else value["value"]
        if name not in self.arrays:
            raise IntegrityError(f"the golden examples lack the tensor {name}")
        return self.arrays[name]


# --- not finite


def non_finite(model: keras.Model, *, allow: Iterable[str] = ()) -> tuple[Finding, ...]:
    """A failure for each variable that holds NaN or an infinity, unless ``allow`` names it.

    Names are a variable's path or its end: ``dense/kernel``. Optimizer slots and metrics are looked at too,
    since training would go on from them.
    """
    allowed = tuple(allow)
    findings = []
    for variable in inventory(internals.walk(model)).variables.values():
        dtype = stored_dtype(variable)
        if "float" not in dtype or any(variable.path == name or variable.path.endswith(f"/{name}") for name in allowed):
            continue
        values = view(variable)
        if count := _count_non_finite(values.view(numpy_dtype(dtype)) if values.dtype.kind == "u" else values):
            # Without the model's own name, which Keras may number.
            findings.append(_not_finite(variable.path.partition("/")[2] or variable.path, count, values.size))
    return tuple(findings)


def _count_non_finite(array: Array) -> int:
    if not is_float(array):
        return 0
    flat = array.reshape(-1)
    # In pieces whose flags stay in the cache; counting is several times dearer than asking for any.
    pieces = (flat[at : at + _PIECE] for at in range(0, flat.size, _PIECE))
    odd = (piece for piece in pieces if not np.isfinite(piece).all())
    return sum(int(np.count_nonzero(~np.isfinite(piece))) for piece in odd)


def _not_finite(name: str, count: int, size: int) -> Finding:
    message = f"{count} of {size} values are NaN or infinite; allow_non_finite=[{name!r}] lets them pass"
    return Finding("non-finite", Severity.FAILURE, message, subject=name, details={"count": count, "size": size})
