"""Write ``safety/keras_names.json``: what the configs of each Keras may name without being custom.

``python tests/write_keras_names.py``, once with each Keras whose files are known, adds what that Keras has.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PATH = Path(__file__).parent.parent / "src" / "modelkeep" / "safety" / "keras_names.json"
_FUNCTIONS = ("activations", "losses", "metrics", "ops")
_BUILDERS = {"get", "serialize", "deserialize"}
# Of releases that are no longer to be had, and those that TensorFlow makes of plain operations.
_OLD = """ AtrousConvolution1D AtrousConvolution2D AtrousConv1D AtrousConv2D ConvRecurrent2D CuDNNGRU CuDNNLSTM Highway
 MaxoutDense Merge Recurrent SpatialDropout TFOptimizer TimeDistributedDense Deconv2D Deconvolution2D Deconv3D
 Deconvolution3D Conv2DLSTM AddLoss AddMetric ClassMethod InstanceMethod InstanceProperty SlicingOpLambda
 TFOpLambda Container Graph
"""


def of_keras_3() -> dict[str, Any]:
    """``classes`` and ``functions``: name → the modules under which this Keras knows it."""
    import keras

    saveable = next(base for base in keras.Layer.__mro__ if base.__name__ == "KerasSaveable")
    kinds = (saveable, *_kinds(keras))
    classes: dict[str, set[str]] = {}
    functions: dict[str, set[str]] = {}
    for place, module in _public("keras", keras):
        for name, value in vars(module).items():
            own = str(getattr(value, "__module__", "")).startswith("keras.")
            if own and isinstance(value, type) and issubclass(value, kinds):
                classes.setdefault(name, set()).add(place)
            if own and inspect.isfunction(value) and _is_pure(place, name):
                functions.setdefault(name, set()).add(place)
    for kind in kinds:
        for cls in _subclasses(kind):
            classes.setdefault(cls.__name__, set()).add(cls.__module__)
    return {"versions": {keras.__version__}, "classes": classes, "functions": functions}


def of_keras_2() -> dict[str, Any]:
    """``legacy_classes`` and ``legacy_functions``: Keras 2 gives no module, or any of many."""
    import tf_keras

    classes, functions = set(_OLD.split()), set()
    kinds = (tf_keras.layers.Layer, tf_keras.initializers.Initializer, tf_keras.regularizers.Regularizer)
    kinds += (tf_keras.constraints.Constraint, tf_keras.losses.Loss, tf_keras.mixed_precision.Policy)
    kinds += (tf_keras.optimizers.Optimizer, tf_keras.optimizers.legacy.Optimizer)
    kinds += (tf_keras.optimizers.schedules.LearningRateSchedule,)
    for place, module in _public("tf_keras", tf_keras):
        kind = place.split(".")[-1]
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, kinds):
                classes.add(name)
            if inspect.isfunction(value) and kind in _FUNCTIONS and name not in _BUILDERS:
                functions.add(name)
    for of_kind in kinds:
        classes |= {cls.__name__ for cls in _subclasses(of_kind) if cls.__module__.startswith("tf_keras.")}
    return {
        "versions": {f"tf-keras {tf_keras.__version__}"},
        "legacy_classes": {name for name in classes if name not in ("_", "TensorFlowOpLayer")},
        "legacy_functions": {name for name in functions if not name.startswith("_")},
    }


def _kinds(keras: Any) -> Iterator[type]:
    yield from (keras.losses.Loss, keras.metrics.Metric, keras.optimizers.Optimizer, keras.Operation)
    yield from (keras.optimizers.schedules.LearningRateSchedule, keras.initializers.Initializer)
    yield keras.quantizers.Quantizer
    yield from (keras.regularizers.Regularizer, keras.constraints.Constraint, keras.dtype_policies.DTypePolicy)
    for path in ("random.SeedGenerator", "quantizers.QuantizationConfig", "distillation.DistillationLoss"):
        room, name = path.split(".")
        found = getattr(getattr(keras, room, None), name, None)
        yield from () if found is None else (found,)


def _is_pure(place: str, name: str) -> bool:
    kind = place.removeprefix("keras.").split(".")[0]
    return (kind in _FUNCTIONS and name not in _BUILDERS) or (kind == "applications" and name == "preprocess_input")


def _public(name: str, module: ModuleType) -> Iterator[tuple[str, ModuleType]]:
    root = name
    waiting, seen = [(name, module)], set()
    while waiting:
        name, module = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        yield name, module
        for inner, value in vars(module).items():
            # In some releases the public modules live under `keras.api` or `keras._tf_keras`.
            is_public = inner not in ("src", "api") and inner[:1] != "_"
            if (
                is_public
                and inspect.ismodule(value)
                and value.__name__.startswith(root)
                and ".src" not in value.__name__
            ):
                waiting.append((f"{name}.{inner}", value))


def _subclasses(cls: type) -> Iterator[type]:
    for inner in cls.__subclasses__():
        yield inner
        yield from _subclasses(inner)


def merged(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Both, as JSON values in order."""
    result = dict(known)
    for part, values in found.items():
        before = known.get(part, [])
        if isinstance(values, dict):
            names = {*before, *values}
            result[part] = {name: sorted({*dict(before).get(name, ()), *values.get(name, ())}) for name in names}
        else:
            result[part] = sorted({*before, *values})
    return result


if __name__ == "__main__":
    known = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    of = of_keras_2 if sys.argv[1:] == ["2"] else of_keras_3
    PATH.write_text(json.dumps(merged(known, of()), indent=0, sort_keys=True) + "\n", encoding="utf-8")
