"""Golden examples: recorded without touching the model, replayed with the tolerance of the dtype."""

import json

import hypothesis
import hypothesis.strategies as st
import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis.extra.numpy import array_shapes, arrays

from modelkeep.errors import IntegrityError, NotFaithful, UsageError
from modelkeep.live import golden
from modelkeep.live.capture import capture
from modelkeep.live.comparison import Comparison
from modelkeep.live.probes import probes
from modelkeep.live.signature import signature
from modelkeep.report import Severity

pytestmark = pytest.mark.keras

X = np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4)


def dense(*, outputs=2, **kwargs):
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(outputs, **kwargs)])


def answers(model):
    return lambda inputs: golden.outputs_of(model, inputs)


def replayed(recorded, predict, *, same_backend=True, **given):
    return golden.replay(
        predict, recorded.golden, recorded.arrays, recorded.parts.__getitem__, same_backend=same_backend, **given
    )


def state(model):
    tensors = capture(model, architecture=False).tensors
    return {source.name: bytes(source.read()) for source in tensors}


# --- recorded and replayed


def test_the_same_model_answers_to_the_bit():
    model = dense()
    (finding,) = replayed(golden.record(answers(model), X), answers(model))
    assert (finding.severity, finding.message, finding.subject) == (Severity.OK, "equal to the bit", "outputs")


def test_another_answer_shows_the_worst_element():
    model = dense()
    recorded = golden.record(answers(model), X)
    error = np.array([[0, 0], [0, 0.5], [0, 0.25]], "float32")
    report = replayed(recorded, lambda inputs: golden.outputs_of(model, inputs) + error)
    (finding,) = report.failures
    assert finding.details["index"] == [1, 1]
    assert finding.details["difference"] == pytest.approx(0.5)
    assert "2 of 6 values differ" in finding.message
    with pytest.raises(NotFaithful, match="the worst at"):
        report.raise_for_failures()


@pytest.mark.backends
def test_nested_inputs_and_outputs_keep_their_nesting():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, {"sum": a + b, "both": [a * b, keras.ops.concatenate([a, b])]})
    inputs = {"a": X[:, :2], "b": keras.ops.convert_to_tensor(X[:, 2:])}
    recorded = golden.record(answers(model), inputs)
    assert recorded.golden.inputs == {"a": "golden/inputs/a", "b": "golden/inputs/b"}
    assert recorded.golden.outputs["both"] == ["golden/outputs/both/0", "golden/outputs/both/1"]
    assert len(replayed(recorded, answers(model)).findings) == 3


def test_raw_texts_and_labels_are_kept_as_json():
    recorded = golden.record(lambda texts: [text.upper() for text in texts], ["good", "bad"])
    assert recorded.golden.count == 2
    assert json.loads(recorded.parts[recorded.golden.raw]) == ["good", "bad"]
    assert replayed(recorded, lambda texts: [text.upper() for text in texts]).ok
    assert not replayed(recorded, lambda texts: [text.title() for text in texts]).ok


def test_scores_beside_labels_are_compared_with_a_tolerance():
    recorded = golden.record(lambda texts: [{"label": "good", "score": np.float32(0.5)} for _ in texts], ["a"])
    assert replayed(recorded, lambda texts: [{"label": "good", "score": 0.5000001}]).ok
    assert not replayed(recorded, lambda texts: [{"label": "good", "score": 0.51}]).ok
    assert not replayed(recorded, lambda texts: [{"label": "good"}]).ok


def test_text_in_and_out_of_the_network_comes_back_as_text():
    texts = np.array([["a"], ["é"]])
    recorded = golden.record(lambda inputs: np.char.upper(inputs), texts)
    assert recorded.arrays == {}
    assert replayed(recorded, lambda inputs: np.char.upper(inputs)).ok
    assert not replayed(recorded, lambda inputs: inputs).ok


def test_the_number_of_examples_is_the_first_dimension():
    assert golden.record(lambda inputs: inputs, {"x": X}).golden.count == 3


@pytest.mark.parametrize("outputs", [object(), {"x": object()}, {1, 2}])
def test_outputs_without_a_form_are_refused(outputs):
    with pytest.raises(UsageError):
        golden.record(lambda inputs: outputs, X)


@pytest.mark.parametrize("inputs", [X[0], X[:, :1], {"other": X}, ["text"]])
def test_examples_that_the_model_does_not_take_are_refused(inputs):
    with pytest.raises(UsageError, match="give a batch of what it takes"):
        golden.record(answers(dense()), inputs)


def test_a_model_that_no_longer_runs_is_a_failure():
    recorded = golden.record(answers(dense()), X)
    (finding,) = replayed(recorded, answers(keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)]))).failures
    assert "does not run" in finding.message


def test_examples_that_are_not_there_are_an_integrity_error():
    recorded = golden.record(answers(dense()), X)
    with pytest.raises(IntegrityError, match="lack the tensor golden/inputs"):
        golden.replay(np.abs, recorded.golden, {}, recorded.parts.__getitem__, same_backend=True)


# --- compared


def compared(recorded, found, **given):
    return next(iter(Comparison(**{"same_backend": True, **given}).compare("y", recorded, found)))


@pytest.mark.parametrize(
    ("dtype", "same", "other"),
    [("float64", 1e-12, 1e-9), ("float32", 1e-6, 1e-5), ("float16", 2e-3, 1e-2), (ml_dtypes.bfloat16, 1.6e-2, 5e-2)],
)
def test_each_dtype_has_its_tolerance(dtype, same, other):
    for same_backend, tolerance in ((True, same), (False, other)):
        details = compared(np.ones(2, dtype), np.ones(2, dtype), same_backend=same_backend).details
        assert (details["atol"], details["rtol"]) == (tolerance, tolerance)


def test_the_coarsest_dtype_that_the_model_computes_in_counts():
    one = np.ones(2, "float32")
    assert compared(one, one * 1.004, same_backend=False, computed_in=("float32", "float16")).severity is Severity.OK
    assert compared(one, one * 1.004, same_backend=False, computed_in=("float32",)).severity is Severity.FAILURE


def test_given_tolerances_count_alone():
    assert compared(np.ones(2), np.ones(2) * 1.1, atol=0.2, rtol=0.0).severity is Severity.OK
    assert compared(np.ones(2), np.ones(2) * 1.1, atol=0.0, rtol=0.01).severity is Severity.FAILURE


@pytest.mark.parametrize(
    ("recorded", "found", "severity"),
    [
        (np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), Severity.OK),
        (np.array([np.nan, 1.0]), np.array([1.0, 1.0]), Severity.FAILURE),
        (np.array([1.0, 1.0]), np.array([np.nan, 1.0]), Severity.FAILURE),
        (np.array([np.inf]), np.array([np.inf]), Severity.OK),
        (np.array([np.inf]), np.array([-np.inf]), Severity.FAILURE),
        (np.array([1e30]), np.array([np.inf]), Severity.FAILURE),
        (np.array([1, 2]), np.array([1, 2]), Severity.OK),
        (np.array([1, 2]), np.array([1, 3]), Severity.FAILURE),
        (np.array([True]), np.array([False]), Severity.FAILURE),
        (np.zeros((2, 0)), np.zeros((2, 0)), Severity.OK),
        (np.zeros((2, 1)), np.zeros((1, 2)), Severity.FAILURE),
        (np.zeros(1, "float32"), np.zeros(1, "float64"), Severity.FAILURE),
        (np.zeros(1), [0.0], Severity.FAILURE),
        (np.array(1.0), np.array(1.0), Severity.OK),
        ([np.zeros(1)], [np.zeros(1), np.zeros(1)], Severity.FAILURE),
        (None, None, Severity.OK),
        ("a", "b", Severity.FAILURE),
        (1, True, Severity.FAILURE),
    ],
)
def test_what_is_equal(recorded, found, severity):
    assert compared(recorded, found).severity is severity


floats = arrays(st.sampled_from(["float32", "float64"]), array_shapes(max_dims=3, max_side=4, min_side=0))


@hypothesis.given(floats)
def test_everything_equals_itself(values):
    assert compared(values, values.copy()).severity is Severity.OK


@hypothesis.given(floats.filter(lambda values: values.size > 0), st.data())
def test_one_value_that_is_off_is_found_where_it_is(values, data):
    index = tuple(data.draw(st.integers(0, side - 1)) for side in values.shape)
    found = values.copy()
    with np.errstate(over="ignore"):
        found[index] = 1.0 if not np.isfinite(values[index]) else values[index] + 1 + abs(values[index])
    finding = compared(values, found)
    assert finding.severity is Severity.FAILURE
    assert tuple(finding.details["index"]) == index


def test_widths_may_differ_between_backends_but_kinds_may_not():
    assert compared(np.arange(3), np.arange(3, dtype="int32"), same_backend=False).severity is Severity.OK
    assert compared(np.arange(3), np.arange(3.0), same_backend=False).severity is Severity.FAILURE


def test_a_report_of_infinities_is_json():
    finding = compared(np.array([np.inf]), np.array([0.0]))
    assert json.loads(json.dumps(finding.details, allow_nan=False))["recorded"] == "inf"


# --- the model stays as it was


@pytest.mark.backends
def test_recording_changes_no_state():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((3, 4), batch_size=2),
            keras.layers.LSTM(3, stateful=True, return_sequences=True),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=1),
            Noise(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    if keras.backend.backend() != "torch":  # there Keras cannot train a stateful RNN
        model.fit(np.ones((2, 3, 4)), np.ones((2, 3, 1)), verbose=0)
    before = state(model)
    inputs = np.ones((2, 3, 4), "float32")
    recorded = golden.record(answers(model), inputs)
    assert state(model) == before
    assert replayed(recorded, answers(model)).findings[0].message == "equal to the bit"


class Noise(keras.layers.Layer):
    """Draws anew at each call, and counts the calls."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(3)
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.generator) + self.calls


def test_dropout_is_off():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.9)])
    np.testing.assert_array_equal(golden.outputs_of(model, X), X)


def test_a_call_without_a_training_argument_works():
    class Twice(keras.Model):
        def call(self, inputs):
            return inputs * 2

    model = Twice()
    model(X)
    np.testing.assert_array_equal(golden.outputs_of(model, X), X * 2)


@pytest.mark.backends
def test_half_precision_keeps_its_dtype():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype="bfloat16")])
    recorded = golden.record(answers(model), X)
    assert recorded.arrays["golden/outputs"].dtype == ml_dtypes.bfloat16
    assert replayed(recorded, answers(model), computed_in=golden.computed_in(model)).ok


@pytest.mark.backends
def test_what_a_model_computes_in_is_told():
    model = dense(dtype="mixed_float16")
    assert {"float16"} <= golden.computed_in(model)
    model = dense()
    model.layers[0].quantize("int8")
    assert "int8" in golden.computed_in(model)


# --- made up


def test_two_examples_are_made_up_and_always_the_same():
    model = dense()
    recorded = golden.probe(model, signature(model))
    assert recorded.golden.probe
    assert recorded.golden.count == 2
    again = golden.probe(model, signature(model))
    np.testing.assert_array_equal(recorded.arrays["golden/inputs"], again.arrays["golden/inputs"])
    assert replayed(recorded, answers(model)).title == "2 made-up examples replayed"


def test_made_up_integers_lie_within_the_table_they_go_to():
    words, kind = keras.Input((None,), dtype="int32", name="words"), keras.Input((1,), dtype="int32", name="kind")
    both = keras.layers.Embedding(1000, 2)(words), keras.layers.Embedding(3, 2)(kind)
    model = keras.Model({"words": words, "kind": kind}, keras.layers.Concatenate(axis=1)(list(both)))
    made = probes(model, signature(model))
    assert made["words"].shape == (2, 16)
    assert made["words"].max() > 3
    assert made["kind"].max() < 3
    assert golden.probe(model, signature(model)).golden


def test_a_table_without_a_declared_input_gets_integers_all_the_same():
    model = keras.Sequential([keras.layers.Embedding(50, 4), keras.layers.GlobalAveragePooling1D()])
    model.build((None, 6))
    made = probes(model, signature(model))
    assert made.dtype.kind == "i"
    assert made.min() >= 0


def test_a_fixed_batch_is_kept_to():
    inputs = keras.Input((3, 4), batch_size=5)
    model = keras.Model(inputs, keras.layers.LSTM(2, stateful=True)(inputs))
    assert golden.probe(model, signature(model)).golden.count == 5


@pytest.mark.parametrize("dtype", ["float32", "float16", "bool", "uint8", "int64", "string"])
def test_every_dtype_can_be_made_up(dtype):
    model = keras.Model(inputs := keras.Input((2,), dtype=dtype), inputs)
    made = probes(model, signature(model))
    assert made.shape == (2, 2)
    assert made.dtype.kind == "U" if dtype == "string" else made.dtype == dtype


def test_a_model_that_tells_no_inputs_gets_a_notice():
    recorded = golden.probe(dense(), None)
    assert recorded.golden is None
    assert recorded.findings[0].severity is Severity.NOTE


def test_a_model_that_does_not_run_on_made_up_inputs_gets_a_notice():
    class Picky(keras.layers.Layer):
        def compute_output_spec(self, inputs):
            return keras.KerasTensor(inputs.shape, inputs.dtype)

        def call(self, inputs):
            raise ValueError("too small")

    model = keras.Sequential([keras.Input((4,)), Picky()])
    (finding,) = golden.probe(model, signature(model)).findings
    assert "too small" in finding.message


# --- not finite


@pytest.mark.backends
def test_weights_that_are_not_finite_are_named():
    model = dense(name="head")
    model.layers[0].bias.assign([np.nan, np.inf])
    (finding,) = golden.non_finite(model)
    assert finding.severity is Severity.FAILURE
    assert finding.subject.endswith("head/bias")
    assert "2 of 2 values" in finding.message


def test_what_is_allowed_by_name_passes():
    model = dense(name="head")
    model.layers[0].bias.assign([np.nan, np.inf])
    assert golden.non_finite(model, allow=["head/bias"]) == ()
    assert golden.non_finite(model, allow=["ead/bias", "bias/x"])


@pytest.mark.backends
def test_half_precision_weights_are_looked_at_too():
    model = dense(dtype="bfloat16")
    assert golden.non_finite(model) == ()
    model.layers[0].kernel.assign(np.full((4, 2), np.inf))
    assert len(golden.non_finite(model)) == 1


def test_outputs_that_are_not_finite_are_a_failure_unless_allowed():
    predict = lambda inputs: {"a": inputs / 0.0, "b": inputs}  # noqa: E731
    with np.errstate(all="ignore"):
        assert [finding.subject for finding in golden.record(predict, X).findings] == ["outputs/a"]
        assert golden.record(predict, X, allow=["outputs/a"]).findings == ()
