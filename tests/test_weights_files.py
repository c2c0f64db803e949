"""Weights alone, of every form: brought into a model that fits, and told where they do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from modelkeep.errors import NotFaithful, UsageError
from modelkeep.formats.forms import open_contents
from modelkeep.live.reading import Read, weights
from modelkeep.live.writing import weights as writing

pytestmark = [pytest.mark.keras, pytest.mark.backends]

ENDINGS = {
    "weights_h5": "model.weights.h5",
    "legacy_weights_h5": "model.h5",
    "safetensors": "model.safetensors",
    "npz": "model.npz",
}
FORMS = pytest.mark.parametrize("form", list(ENDINGS))
BY_NAME = pytest.mark.parametrize("form", ["legacy_weights_h5", "safetensors", "npz"])


def chain(*names: str | None, head: int = 3) -> keras.Model:
    """Layers of one shape but for the last, with chosen names or, where there is none, automatic ones."""
    units = [*(3 for _ in names[1:]), head]
    made = [layers.Dense(count, name=name) for count, name in zip(units, names, strict=True)]
    return keras.Sequential([layers.Input((3,)), *made])


def branched() -> keras.Model:
    """Nested and wrapped layers, some of them named by Keras."""
    inputs = keras.Input((4, 3))
    inner = keras.Sequential([layers.Input((4, 3)), layers.Conv1D(2, 2), layers.BatchNormalization()], name="inner")
    x = layers.Bidirectional(layers.GRU(2, return_sequences=True))(layers.Dense(3)(inputs))
    x = layers.MultiHeadAttention(1, 2)(x, x)
    return keras.Model(inputs, [layers.Dense(2)(x), inner(inputs)])


def written(model: keras.Model, form: str, folder: Path) -> Path:
    path = folder / ENDINGS[form]
    writing.write(model, path, form=form)
    return path


def opened(path: Path, into: keras.Model | None, skip: Sequence[str] = ()) -> Read:
    with open_contents(path) as contents:
        return weights.read(contents, into=into, skip=skip)


def values(model: keras.Model) -> list[Any]:
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def equal(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def told(raised: pytest.ExceptionInfo[NotFaithful]) -> set[str]:
    """What was wrong, in the words of checks."""
    return {finding.check for finding in raised.value.report.failures}  # type: ignore[attr-defined]


@FORMS
@pytest.mark.parametrize("build", [branched, lambda: chain("a", "b"), lambda: chain(None, None, None)])
def test_weights_come_into_a_model_built_once_more(build: Callable[[], keras.Model], form: str, tmp_path: Path) -> None:
    model, other = build(), build()  # automatic names count on
    read = opened(written(model, form, tmp_path), other)
    assert equal(values(model), values(other))
    assert next(f for f in read.findings if f.check == "weights").details["matched"] == len(model.weights)


@FORMS
def test_a_model_without_the_last_layer_is_refused_and_unchanged(form: str, tmp_path: Path) -> None:
    path, smaller = written(chain("a", "b", "c"), form, tmp_path), chain("a", "b")
    before = values(smaller)
    with pytest.raises(NotFaithful) as raised:
        opened(path, smaller)
    assert told(raised) == {"weights-unused"}
    assert equal(before, values(smaller))


@FORMS
def test_a_layer_more_than_the_file_has_is_missing(form: str, tmp_path: Path) -> None:
    path, larger = written(chain("a", "b"), form, tmp_path), chain("a", "b", "c")
    with pytest.raises(NotFaithful) as raised:
        opened(path, larger)
    assert told(raised) == {"weights-missing"}


@FORMS
def test_a_head_of_another_size_is_loaded_around_once_it_is_named(form: str, tmp_path: Path) -> None:
    model, other = chain("a", "head", head=2), chain("a", "head", head=3)
    path, before = written(model, form, tmp_path), values(other)
    with pytest.raises(NotFaithful) as raised:
        opened(path, other)
    assert told(raised) == {"weights-mismatched"}
    opened(path, other, skip=["head"] if form != "weights_h5" else ["layers/dense_1"])
    assert equal(values(other)[:2], values(model)[:2])
    assert equal(values(other)[2:], before[2:])


@BY_NAME
def test_layers_that_changed_places_keep_their_own_weights(form: str, tmp_path: Path) -> None:
    model, swapped = chain("a", "b"), chain("b", "a")
    opened(written(model, form, tmp_path), swapped)
    assert equal([*values(model)[2:], *values(model)[:2]], values(swapped))


@pytest.mark.parametrize("form", ["safetensors", "npz"])
def test_names_that_match_nothing_load_nothing_and_say_so(form: str, tmp_path: Path) -> None:
    path, other = written(chain("a", "b"), form, tmp_path), chain("x", "y")
    before = values(other)
    with pytest.raises(NotFaithful) as raised:
        opened(path, other)
    assert told(raised) == {"weights-missing", "weights-unused"}
    assert equal(before, values(other))


def test_old_files_with_other_names_are_read_in_order(tmp_path: Path) -> None:
    model, other = chain("a", "b"), chain("x", "y")
    opened(written(model, "legacy_weights_h5", tmp_path), other)
    assert equal(values(model), values(other))


def test_the_package_of_safetensors_reads_and_writes_the_same(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    model, other = branched(), branched()
    assert equal(
        sorted(package.load_file(written(model, "safetensors", tmp_path)).values(), key=str),
        sorted(values(model), key=str),
    )
    package.save_file({w.path: v for w, v in zip(other.weights, values(model), strict=True)}, tmp_path / "theirs")
    opened(tmp_path / "theirs", other)
    assert equal(values(model), values(other))


def test_numpy_reads_and_writes_the_same(tmp_path: Path) -> None:
    model, other = branched(), branched()
    with np.load(written(model, "npz", tmp_path)) as file:
        assert equal(sorted(file.values(), key=str), sorted(values(model), key=str))
    np.savez(tmp_path / "theirs.npz", **{w.path: v for w, v in zip(other.weights, values(model), strict=True)})
    opened(tmp_path / "theirs.npz", other)
    assert equal(values(model), values(other))


def test_weights_in_shards_are_one(tmp_path: Path) -> None:
    model, other = branched(), branched()
    model.save_weights(tmp_path / "model.weights.json", max_shard_size=2e-7)
    assert len(list(tmp_path.iterdir())) > 2
    opened(tmp_path / "model.weights.json", other)
    assert equal(values(model), values(other))


def test_an_optimizer_goes_on_from_weights_of_keras_3(tmp_path: Path) -> None:
    model, other = chain("a", "b"), chain("a", "b")
    for one in (model, other):
        one.compile("adam", "mse", run_eagerly=keras.backend.backend() != "jax")
    model.train_on_batch(np.ones((2, 3), "float32"), np.zeros((2, 3), "float32"))
    opened(written(model, "weights_h5", tmp_path), other)
    slots = [[keras.ops.convert_to_numpy(v) for v in one.optimizer.variables] for one in (model, other)]
    assert equal(*slots)


def test_bfloat16_comes_back_as_it_was_and_is_refused_where_it_would_not(tmp_path: Path) -> None:
    model, other = (keras.Sequential([layers.Input((3,)), layers.Dense(2, dtype="bfloat16")]) for _ in range(2))
    opened(written(model, "safetensors", tmp_path), other)
    assert equal([v.view("uint16") for v in values(model)], [v.view("uint16") for v in values(other)])
    for form in ("npz", "legacy_weights_h5"):
        with pytest.raises(UsageError, match=r"no such dtype|no word for a dtype"):
            written(model, form, tmp_path)


@FORMS
def test_weights_without_a_model_ask_for_one(form: str, tmp_path: Path) -> None:
    path = written(chain("a"), form, tmp_path)
    with pytest.raises(UsageError, match="architecture="):
        opened(path, None)
    with pytest.raises(UsageError, match="never built"):
        opened(path, keras.Sequential([layers.Dense(3)]))


def test_bytes_are_the_same_at_every_export(tmp_path: Path) -> None:
    model = branched()
    for form in ("safetensors", "npz"):
        first, second = (written(model, form, tmp_path).read_bytes() for _ in range(2))
        assert first == second
