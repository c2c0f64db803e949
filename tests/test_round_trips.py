"""Every form that is both read and written, over the zoo and over ``keras.applications``: there and back, equal."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from keeping import numbers_in
from modelkeep.errors import NotFaithful, UsageError
from modelkeep.formats.forms import open_contents
from modelkeep.live.exporting import WRITERS
from modelkeep.live.golden import outputs_of
from modelkeep.live.opening import READERS
from modelkeep.live.reading import Read
from zoo import ZOO, here

pytestmark = [
    pytest.mark.keras,
    pytest.mark.backends,
    # Keras' own, about what it leaves out; every one of these tests looks at what came back.
    pytest.mark.filterwarnings("ignore::UserWarning:keras", "ignore::DeprecationWarning:keras"),
]

WHOLE = ("keras", "h5")
WEIGHTS = ("weights_h5", "legacy_weights_h5", "safetensors", "npz")

# What a form cannot hold, and who says so: the writer, or the comparison once it was opened again.
REFUSED: dict[tuple[str, str], type[Exception]] = {
    **{("h5", name): UsageError for name in ("subclassed", "own_train_step", "bfloat16", "custom_objects")},
    **{("h5", name): UsageError for name in ("categories", "vectorized_text", "looked_up_strings", "feature_space")},
    **{("h5", name): NotFaithful for name in ("functional", "attention")},  # graphs of operations
    ("h5", "float8"): NotFaithful,  # quantized in place, its variables have another order
    **{(form, name): UsageError for form in ("npz", "legacy_weights_h5") for name in ("bfloat16",)},
}
# Their classes leave weights out, Keras merges them with others, or lists them in another order once they are read.
KEEP_WEIGHTS_BACK = {"custom_objects", "lora", "int8_lora", "float8"}
# They answer by states, or by matrices, that no file of Keras holds; their weights come back all the same.
ANSWER_OTHERWISE = {"stateful_rnn", "int8_lora"}
# Compiled otherwise than they were trained: what of their optimizers is lost is told.
LOSE_THEIR_OPTIMIZER = {"frozen", "int8_lora", "lora"}


def written(model: keras.Model, form: str, folder: Path) -> Path:
    """Written; whole models are proved as an export does it, weights by being read into a model below."""
    path = folder / f"model{WRITERS[form].ending}"
    writer = import_module(f"modelkeep.live.writing.{WRITERS[form].module}")
    writer.write(model, path, form=form)
    if form in WHOLE:
        writer.reopen(path, form=form, model=model)
    return path


def read(path: Path, form: str, into: keras.Model | None = None) -> Read:
    with open_contents(path) as contents:
        assert contents.form == form
        reader = import_module(f"modelkeep.live.reading.{READERS[form]}")
        back: Read = reader.read(contents, into=into, custom_objects=[zoo.squared])
        return back


def values(variables: Any) -> list[Any]:
    return [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in variables]


def equal(some: list[Any], others: list[Any]) -> bool:
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(some, others, strict=True))


# What differs by backend: dtypes, quantizing, loops, and what a torch layer keeps apart.
NAMES = (
    here()
    if keras.backend.backend() == "tensorflow"
    else ["nested", "subclassed", "bidirectional", "mixed_float16", "bfloat16", "int8", "float8"]
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_zoo_comes_back_from_every_form(name: str, tmp_path: Path) -> None:
    specimen = ZOO[name]
    model = specimen.build()
    specimen.use(model, steps=1)
    expected = numbers_in(outputs_of(model, specimen.inputs))
    weights = values(model.weights)
    other = None
    for form in (*WHOLE, *WEIGHTS):
        if error := REFUSED.get((form, name)):
            with pytest.raises(error):
                written(model, form, tmp_path)
            continue
        path = written(model, form, tmp_path)
        if form in WEIGHTS:
            for weight in other.weights:
                weight.assign(np.ones_like(keras.ops.convert_to_numpy(weight)))
        found = read(path, form, other if form in WEIGHTS else None).model
        other = other or found
        if name not in ANSWER_OTHERWISE:
            assert equal(numbers_in(outputs_of(found, specimen.inputs)), expected), form
        if form == "keras" and model.compiled and name not in LOSE_THEIR_OPTIMIZER:
            assert equal(values(found.optimizer.variables), values(model.optimizer.variables))
        if name not in KEEP_WEIGHTS_BACK:
            assert equal(values(found.weights), weights), form


# The small ones in every form, of each other family one in those that are used most.
APPLICATIONS = {
    "MobileNet": ((*WHOLE, *WEIGHTS), {"alpha": 0.25}),
    "MobileNetV2": ((*WHOLE, *WEIGHTS), {"alpha": 0.35}),
    "MobileNetV3Small": ((*WHOLE, *WEIGHTS), {"minimalistic": True}),
    "EfficientNetV2B0": (("keras", "h5"), {}),
    "DenseNet121": (("keras", "legacy_weights_h5"), {}),
    "ResNet50V2": (("keras", "safetensors"), {}),
    "Xception": (("keras",), {"input_shape": (71, 71, 3)}),
    "ConvNeXtTiny": (("keras", "safetensors"), {}),
}


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="their files do not differ by backend")
@pytest.mark.parametrize("name", list(APPLICATIONS))
def test_an_application_comes_back(name: str, tmp_path: Path) -> None:
    forms, more = APPLICATIONS[name]
    options: dict[str, Any] = {"input_shape": (32, 32, 3), "weights": None, "classes": 5, **more}
    model = getattr(keras.applications, name)(**options)
    inputs = np.random.default_rng(5).standard_normal((2, *options["input_shape"])).astype("float32")
    expected, weights = numbers_in(outputs_of(model, inputs)), values(model.weights)
    found = model
    for form in forms:
        path = tmp_path / f"model{WRITERS[form].ending}"
        import_module(f"modelkeep.live.writing.{WRITERS[form].module}").write(model, path, form=form)
        if form in WEIGHTS:
            found.set_weights([np.zeros_like(array) for array in weights])
        found = read(path, form, found if form in WEIGHTS else None).model
        assert equal(values(found.weights), weights), form
        path.unlink()
    assert equal(numbers_in(outputs_of(found, inputs)), expected)
