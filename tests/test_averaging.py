"""An average is the mean of its parents' weights, says what it is not the mean of, and names whom it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import modelkeep as mk
from modelkeep.cli.main import main
from modelkeep.errors import CannotLoad, NotFaithful, UsageError
from modelkeep.live import averaging
from modelkeep.live.averaging import Averaged

pytestmark = [
    pytest.mark.keras,
    # TensorFlow's own, of protocol buffers, when it is first imported by a test.
    pytest.mark.filterwarnings("ignore:.*google._upb.*:DeprecationWarning"),
]

PAIR = ["m:1.0.0", "m:1.1.0"]


def line(kernel: float, bias: float = 0.0, **options: Any) -> keras.Model:
    """``kernel * x + bias``, compiled."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="line", **options)], name="net")
    model.set_weights([np.full((1, 1), kernel, "float32"), np.full((1,), bias, "float32")])
    model.compile(keras.optimizers.Adam(0.1), "mse", metrics=["mae"])
    return model


@pytest.fixture
def keep(tmp_path: Path) -> mk.Keep:
    return mk.open(tmp_path / "models")


def save(keep: mk.Keep, *models: keras.Model, name: str = "m", **options: Any) -> list[str]:
    return [keep.save(model, name, check=False, **options).ref for model in models]


def values(averaged: Averaged) -> list[float]:
    return [float(np.ravel(weight)[0]) for weight in averaged.model.get_weights()]


def checks(averaged: Averaged) -> set[str]:
    return {finding.check for finding in averaged.report} - {"average"}


# --- the mean

floats = arrays.arrays(
    st.sampled_from(["float32", "float64", "float16"]),
    (3, 2),
    elements=st.floats(-1000, 1000, width=16),
)


@given(floats, st.lists(st.floats(0.01, 10), min_size=2, max_size=4))
def test_the_mean_of_what_is_the_same_is_the_same(array, shares):
    mean = np.frombuffer(averaging._mean([array] * len(shares), shares), array.dtype).reshape(3, 2)
    np.testing.assert_allclose(mean, array, rtol=1e-15 if array.dtype == "float64" else 0, atol=0)


@given(st.data(), st.lists(st.floats(0.01, 10), min_size=2, max_size=4))
def test_the_mean_is_that_of_float64_rounded_once(data, shares):
    given = [data.draw(arrays.arrays("float32", 5, elements=st.floats(-1000, 1000, width=32))) for _ in shares]
    mean = np.frombuffer(averaging._mean(given, shares), "float32")
    wide = np.average([array.astype("float64") for array in given], axis=0, weights=shares)
    np.testing.assert_allclose(mean, wide, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64"])
def test_other_floats_are_averaged_in_their_own_dtype(dtype, monkeypatch):
    monkeypatch.setattr(averaging, "_CHUNK", 2)  # in pieces
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    one, other = np.arange(5).astype(dtype), np.arange(5, 0, -1).astype(dtype)
    mean = np.frombuffer(averaging._mean([one, other], [1, 3]), dtype)
    assert mean.tolist() == [3.75, 3.25, 2.75, 2.25, 1.75]


@pytest.mark.backends
def test_all_count_alike_unless_told_otherwise(keep):
    save(keep, line(1, 4), line(2, 8), line(6, 0))
    refs = [*PAIR, "m:1.2.0"]
    assert values(keep.average(refs)) == [3, 4]
    assert values(keep.average(refs, [2, 1, 1])) == [2.5, 4]
    assert values(keep.average(PAIR, weights=[0.2, 0.2])) == [1.5, 6]


def test_a_moving_average_is_led_by_the_last(keep):
    save(keep, line(8), line(4), line(0))
    average = 8.0
    for latest in (4, 0):
        average = 0.75 * average + 0.25 * latest
    averaged = keep.average([*PAIR, "m:1.2.0"], ema=0.75)
    assert values(averaged)[0] == average
    assert averaged.weights == (0.5625, 0.1875, 0.25)


def test_what_counts_nothing_is_no_parent(keep):
    save(keep, line(1), line(5))
    averaged = keep.average(PAIR, [0, 3])
    assert (values(averaged)[0], averaged.weights) == (5, (1.0,))
    assert [parent.partition("@")[0] for parent in averaged.parents] == ["m:1.1.0"]


# --- greedy soup


def near(target: float) -> Any:
    return lambda model: -abs(float(np.ravel(model.get_weights()[0])[0]) - target)


def test_a_soup_keeps_what_makes_it_no_worse_and_records_every_decision(keep):
    save(keep, line(1), line(3), line(30), line(2))
    averaged = keep.average(["m:1.0.0", "m:1.1.0", "m:1.2.0", "m:1.3.0"], soup=near(2.5))
    # Best alone are 3 and 2 (in their order), whose mean is the target; 1 and 30 lead away from it.
    assert values(averaged)[0] == 2.5
    found = {finding.subject: finding.details for finding in averaged.report if finding.check == "soup"}
    assert {ref: details["stays"] for ref, details in found.items()} == {
        "m:1.1.0": True,
        "m:1.3.0": True,
        "m:1.0.0": False,
        "m:1.2.0": False,
    }
    assert found["m:1.0.0"] == {"alone": -1.5, "average": -0.5, "before": 0.0, "stays": False}
    assert [parent.partition("@")[0] for parent in averaged.parents] == ["m:1.1.0", "m:1.3.0"]


def test_a_metric_may_do_with_the_models_what_it_likes(keep):
    def trained(model: keras.Model) -> float:
        model.fit(np.ones((2, 1)), np.zeros((2, 1)), verbose=0)
        return 1.0

    save(keep, line(1), line(3))
    assert values(keep.average(PAIR, soup=trained))[0] == 2


def test_a_model_that_diverged_is_left_out_of_a_soup(keep):
    save(keep, line(1))
    save(keep, line(float("nan")), allow_non_finite=["line/kernel"])
    averaged = keep.average(PAIR[::-1], soup=near(0))
    assert (values(averaged)[0], averaged.weights) == (1, (1.0,))
    with pytest.raises(UsageError, match=r"the metric gave no number for m:1\.0\.0: found None"):
        keep.average(PAIR, soup=lambda model: None)


# --- what is not averaged


def test_whole_numbers_and_states_are_those_of_the_first_and_that_is_said(keep):
    def counting(count: int) -> keras.Model:
        model = keras.Sequential(
            [keras.Input((2,)), keras.layers.Normalization(), keras.layers.Dropout(0.5, seed=count)]
        )
        model.layers[0].adapt(np.random.default_rng(count).normal(size=(count, 2)))
        return model

    models = [counting(3), counting(5)]
    save(keep, *models)
    averaged = keep.average(PAIR)
    assert checks(averaged) == {"average-taken"}
    states = [np.array(model.layers[1].seed_generator.state).tolist() for model in (*models, averaged.model)]
    assert states[2] == states[0] != states[1]
    mean = np.mean([model.layers[0].get_weights()[0] for model in models], axis=0)
    np.testing.assert_allclose(averaged.model.layers[0].get_weights()[0], mean, rtol=1e-6)


def test_the_optimizer_begins_anew_and_the_rest_of_compile_is_the_first_ones(keep):
    models = [line(1), line(3)]
    for model in models:
        model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
    save(keep, *models)
    averaged = keep.average(PAIR)
    assert checks(averaged) == {"average-optimizer"}
    model = averaged.model
    assert (int(model.optimizer.iterations), float(model.optimizer.learning_rate)) == (0, pytest.approx(0.1))
    history = model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0).history
    assert history.keys() == {"loss", "mae"}
    assert int(model.optimizer.iterations) == 1


def test_tensors_that_do_not_agree_are_all_named(keep):
    save(keep, line(1), keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)], name="net"))
    with pytest.raises(NotFaithful) as error:
        keep.average(PAIR)
    assert str(error.value).splitlines()[1:] == [
        "  - net/line/kernel: float32[1, 1] in m:1.0.0, float32[2, 1] in m:1.1.0",
        "  - net/line/bias: float32[1] in m:1.0.0, none in m:1.1.0",
    ]


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantized_models_have_no_average(keep, mode):
    models = [line(1), line(2)]
    for model in models:
        model.layers[0].quantize(mode)
    save(keep, *models)
    with pytest.raises(UsageError, match=r"m:1\.0\.0 is quantized.*\n.*before they are quantized"):
        keep.average(PAIR)


def test_another_architecture_of_the_same_weights_is_said(keep):
    save(keep, line(1), line(1, activation="tanh"))
    (finding,) = keep.average(PAIR).report.warnings
    assert (finding.check, finding.subject) == ("average-architecture", "m:1.1.0")
    assert finding.message.endswith("which the average has: line.activation: linear → tanh")


# --- BatchNormalization


def normalizing(scale: float) -> keras.Model:
    layers = [
        keras.Input((2,)),
        keras.layers.Dense(3, kernel_initializer=keras.initializers.Constant(scale)),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5, seed=1),
    ]
    return keras.Sequential(layers)


def test_averaged_statistics_are_doubted(keep):
    save(keep, normalizing(1), normalizing(3))
    (warning,) = keep.average(PAIR).report.warnings
    assert warning.check == "average-statistics"
    assert "give recalibrate=batches" in warning.message


@pytest.mark.backends
def test_statistics_are_computed_anew_from_batches_and_nothing_else_changes(keep):
    save(keep, normalizing(1), normalizing(3))
    batches = [np.random.default_rng(n).normal(size=(8, 2)).astype("float32") for n in range(4)]
    plain, averaged = keep.average(PAIR), keep.average(PAIR, recalibrate=[(x, None) for x in batches])
    assert averaged.report.warnings == ()
    fed = [x @ np.full((2, 3), 2.0) for x in batches]
    mean, variance = averaged.model.layers[1].get_weights()[2:]
    np.testing.assert_allclose(mean, np.mean([x.mean(0) for x in fed], 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, np.mean([x.var(0) for x in fed], 0), rtol=1e-4)
    assert averaged.model.layers[1].momentum == 0.99
    states = [np.array(model.layers[2].seed_generator.state).tolist() for model in (plain.model, averaged.model)]
    assert states[0] == states[1]


# --- where from, and where to


def test_checkpoints_and_files_are_averaged_with_versions(keep, tmp_path):
    save(keep, line(1))
    keep.checkpoints("m-run", every_epochs=1).fit(line(3), np.zeros((2, 1)), np.zeros((2, 1)), epochs=1, verbose=0)
    trained = values(keep.average(["m-run@1", "m-run@1"]))[0]
    line(5).save(tmp_path / "five.keras")
    line(7).save_weights(tmp_path / "seven.weights.h5")
    averaged = keep.average([tmp_path / "seven.weights.h5", "m:1.0.0", "m-run@1", str(tmp_path / "five.keras")])
    assert values(averaged)[0] == pytest.approx((7 + 1 + trained + 5) / 4)
    assert [parent[:12] for parent in averaged.parents] == [
        "seven.weight",
        "m:1.0.0@blak",
        "m-run@1@blak",
        "five.keras: ",
    ]


def test_weights_alone_need_one_that_has_kept_its_architecture(keep, tmp_path):
    save(keep, line(1), line(3), architecture=False)
    with pytest.raises(CannotLoad, match="none of these has kept its architecture"):
        keep.average(PAIR)
    line(100).save(tmp_path / "network.keras")
    assert values(keep.average([*PAIR, tmp_path / "network.keras"], [1, 1, 0]))[0] == 2


@keras.saving.register_keras_serializable("test_averaging")
class Doubled(keras.layers.Dense):
    """A layer that only this module knows."""


def test_custom_classes_are_given_as_for_a_load(keep):
    def model() -> keras.Model:
        return keras.Sequential([keras.Input((1,)), Doubled(1)])

    save(keep, model(), model())
    assert isinstance(keep.average(PAIR, custom_objects=[Doubled]).model.layers[0], Doubled)


def test_a_published_average_names_its_parents_and_has_what_they_share(keep):
    texts = ["a fine film", "a dull film"]
    tokenizer = mk.Tokenizer(num_words=8)
    tokenizer.fit_on_texts(texts)
    whole = {
        "assets": {"tokenizer": tokenizer},
        "pipeline": mk.Pipeline([mk.steps.tokenize("tokenizer"), mk.steps.pad(4)]),
        "golden": texts,
    }

    def network() -> keras.Model:
        return keras.Sequential(
            [keras.Input((4,), dtype="int32"), keras.layers.Embedding(8, 2), keras.layers.Flatten()]
        )

    save(keep, network(), network(), **whole)
    version = keep.average(PAIR, name="m", bump="major", note="both").version
    lineage = version.manifest.lineage
    assert (version.ref, version.note) == ("m:2.0.0", "both")
    assert lineage.parents == tuple(f"{keep.resolve(ref).ref}@{keep.resolve(ref).digest}" for ref in PAIR)
    loaded = keep.load("m:2.0.0")
    assert loaded.assets["tokenizer"].word_index == tokenizer.word_index
    assert (loaded.manifest.golden.count, loaded.manifest.golden.probe) == (2, False)
    assert np.shape(loaded.predict(texts)) == (2, 8)

    tokenizer.fit_on_texts(["another film"])
    save(keep, network(), **whole)
    averaged = keep.average(["m:1.0.0", "m:2.1.0"])
    assert [finding.subject for finding in averaged.report.warnings] == ["tokenizer"]
    assert (dict(averaged.assets), averaged.pipeline, averaged.golden) == ({}, None, None)


def test_the_command_line_averages_too(keep, tmp_path, monkeypatch, capsys):
    save(keep, line(1), line(3))
    monkeypatch.setenv("MODELKEEP_STORE", str(tmp_path / "models"))
    command = ["average", *PAIR, "--name", "m", "--bump", "major", "--weight", "3", "--weight", "1", "--no-check"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["version"]["ref"], told["weights"]) == ("m:2.0.0", [0.75, 0.25])
    assert told["report"]["ok"]
    assert np.ravel(keep.load("m:2.0.0").model.get_weights()[0]) == [1.5]
    assert main(["show", "m:2.0.0"]) == 0
    assert "AVERAGE OF" in capsys.readouterr().out
    assert main(["average", "m:1.0.0", "--name", "m"]) == 2
    assert "two models or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"refs": ["m:1.0.0"]}, "an average is of two models or more: found 1"),
        ({"refs": "m:1.0.0"}, "refs are a list"),
        ({"weights": [1]}, "2 models need as many weights"),
        ({"weights": [1, -1]}, "numbers from 0 on"),
        ({"weights": [0, 0]}, "not all 0"),
        ({"ema": 1.0}, "found 1.0, expected 0 to 1"),
        ({"ema": 0.5, "weights": [1, 1]}, "give one of them"),
        ({"recalibrate": np.ones((2, 1))}, r"recalibrate=\[x\]"),
        ({"recalibrate": []}, "recalibrate gave no batch"),
        ({"bump": "major"}, "bump are for a version that is published"),
    ],
)
def test_what_makes_no_average_is_refused(keep, arguments, message):
    save(keep, line(1), line(2))
    with pytest.raises(UsageError, match=message):
        keep.average(**{"refs": PAIR, **arguments})
