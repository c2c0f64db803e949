"""Tensors of a file become a model's weights all together or not at all, and each is accounted for."""

from __future__ import annotations

from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest

from modelkeep.errors import NotFaithful
from modelkeep.formats.contents import ForeignTensor
from modelkeep.live import matching
from modelkeep.report import Finding, Report, Severity

pytestmark = [pytest.mark.keras, pytest.mark.backends]


def tensor(name: str, array: Any) -> ForeignTensor:
    array = np.asarray(array)
    return ForeignTensor(name, array.dtype.name, array.shape, array.nbytes, lambda: array)


def filled(variable: Any, value: float, dtype: str | None = None) -> ForeignTensor:
    return tensor(variable.path, np.full(variable.shape, value, dtype or variable.dtype))


def model_of(*units: int, dtype: str = "float32") -> keras.Model:
    layers = [keras.layers.Dense(count, name=f"layer{index}") for index, count in enumerate(units)]
    return keras.Sequential([keras.Input((3,)), *layers], name="m") if dtype == "float32" else _typed(layers, dtype)


def _typed(layers: list[keras.Layer], dtype: str) -> keras.Model:
    made = [keras.layers.Dense(layer.units, name=layer.name, dtype=dtype) for layer in layers]
    return keras.Sequential([keras.Input((3,)), *made], name="m")


def values(model: keras.Model) -> list[Any]:
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def unchanged(before: list[Any], model: keras.Model) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(before, values(model), strict=True))


def named(report: object, check: str) -> list[Finding]:
    assert isinstance(report, Report)
    return [finding for finding in report if finding.check == check]


def test_every_tensor_that_fits_is_assigned_and_listed() -> None:
    model = model_of(4, 2)
    report = matching.assign([(v, filled(v, 0.5)) for v in model.weights])
    assert all((value == 0.5).all() for value in values(model))
    assert len(named(report, "weights-matched")) == 4
    assert named(report, "weights")[0].details["parameters"] == model.count_params()


def test_one_wrong_shape_leaves_the_whole_model_as_it_was() -> None:
    model = model_of(4, 2)
    before = values(model)
    pairs = [(v, filled(v, 0.5)) for v in model.weights]
    pairs[-1] = (model.weights[-1], tensor("x", np.zeros(7, "float32")))
    with pytest.raises(NotFaithful, match=r"the file has the shape \(7,\), the model \(2,\)") as error:
        matching.assign(pairs)
    assert unchanged(before, model)
    assert [finding.subject for finding in named(error.value.report, "weights-mismatched")] == ["x"]


def test_what_is_missing_or_unused_is_an_error_until_it_is_named() -> None:
    model = model_of(4, 2)
    first, last = model.weights[:2], model.weights[2:]
    arguments: dict[str, Any] = {"missing": last, "unused": [tensor("head/kernel", np.zeros((4, 9), "float32"))]}
    with pytest.raises(NotFaithful) as error:
        matching.assign([(v, filled(v, 0.5)) for v in first], **arguments)
    assert len(named(error.value.report, "weights-missing")) == 2
    report = matching.assign([(v, filled(v, 0.5)) for v in first], **arguments, skip=["layer1", "head"])
    assert report.ok
    assert len(report.warnings) == 3
    assert (values(model)[0] == 0.5).all()


@pytest.mark.parametrize("entry", ["layer0", "m/layer0/kernel", "from the file"])
def test_a_bias_is_never_loaded_without_its_kernel(entry: str) -> None:
    model = model_of(4, 2)
    before = values(model)
    kernel, bias, *_ = model.weights
    pairs = [(kernel, tensor("from the file", np.zeros((9, 9), "float32"))), (bias, filled(bias, 0.5))]
    pairs += [(v, filled(v, 0.5)) for v in model.weights[2:]]
    report = matching.assign(pairs, skip=[entry])
    assert np.array_equal(before[1], values(model)[1])
    assert (values(model)[2] == 0.5).all()
    assert len(named(report, "weights-skipped")) == 2


@pytest.mark.parametrize(
    ("stored", "held", "exact"),
    [
        ("float16", "float32", True),
        ("bfloat16", "float32", True),
        ("bfloat16", "bfloat16", True),
        ("float32", "bfloat16", False),
        ("float32", "float16", False),
        ("float16", "bfloat16", False),
        ("int8", "float32", False),
    ],
)
def test_a_dtype_is_converted_only_where_every_value_stays(stored: str, held: str, exact: bool) -> None:
    model = model_of(2, dtype=held)
    dtype = ml_dtypes.bfloat16 if stored == "bfloat16" else stored
    pairs = [(v, tensor(v.path, np.full(v.shape, 3, dtype))) for v in model.weights]
    if exact:
        severity = Severity.OK if stored == held else Severity.NOTE
        assert {f.severity for f in named(matching.assign(pairs), "weights-matched")} == {severity}
        assert all((value.astype("float32") == 3).all() for value in values(model))
        assert {v.dtype for v in model.weights} == {held}
    else:
        with pytest.raises(NotFaithful, match="cannot hold exactly"):
            matching.assign(pairs)


def test_integers_that_do_not_fit_stop_everything() -> None:
    counter = keras.Variable(3, dtype="int32", trainable=False, name="counter")
    model = model_of(2)
    before = values(model)
    with pytest.raises(NotFaithful, match="values that int32 cannot hold"):
        matching.assign([*((v, filled(v, 0.5)) for v in model.weights), (counter, tensor("counter", np.int64(2**40)))])
    assert unchanged(before, model)
    matching.assign([(counter, tensor("counter", np.int64(7)))])
    assert int(counter.value) == 7


def test_the_model_does_not_share_the_memory_of_the_file() -> None:
    model = model_of(2)
    arrays = [np.full(v.shape, 0.5, "float32") for v in model.weights]
    views = [array[...] for array in arrays]
    matching.assign([(v, tensor(v.path, view)) for v, view in zip(model.weights, views, strict=True)])
    for array in arrays:
        array[...] = 9
    assert all((value == 0.5).all() for value in values(model))


def test_a_skip_that_names_nothing_is_said() -> None:
    model = model_of(2)
    report = matching.assign([(v, filled(v, 0.5)) for v in model.weights], skip=["laier0"])
    assert [finding.subject for finding in report.warnings] == ["laier0"]
