"""Each step does what its name says, and refuses what it cannot do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modelkeep.errors import UsageError
from modelkeep.pipeline import Pipeline, Tokenizer, steps

VOCAB = {"vocab": ["[?]", "red", "blue"], "numbers": {"red": 7}, "lines": "[?]\nred\nblue\n", "not words": [1]}


def refused(message):
    return pytest.raises(UsageError, match=message)


# --- tokenize


def test_tokenize_takes_texts_and_lists_of_words():
    tokenizer = Tokenizer()
    tokenizer.fit_on_texts(["a b"])
    assert steps.tokenize("t").apply(["B, a", ["A", "z"]], {"t": tokenizer}) == [[2, 1], [1]]
    assert steps.tokenize("t").apply(np.array(["b"]), {"t": tokenizer}) == [[2]]


def test_tokenize_takes_a_hugging_face_tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"[UNK]": 0, "hello": 1, "world": 2}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    assert steps.tokenize("t").apply(["hello big world", ""], {"t": tokenizer}) == [[1, 0, 2], []]
    assert steps.tokenize("t").apply([["world", "hello"]], {"t": tokenizer}) == [[2, 1]]


def test_tokenize_with_an_asset_that_is_no_tokenizer_is_refused():
    with refused("the asset 'vocab' does not fit this step: found list, expected a Keras Tokenizer"):
        steps.tokenize("vocab").apply(["a"], VOCAB)


# --- lookup


@pytest.mark.parametrize("asset", ["vocab", "lines"])
def test_lookup_counts_places_from_zero_nested_as_the_words_are(asset):
    assert steps.lookup(asset).apply(["blue", "red"], VOCAB) == [2, 1]
    assert steps.lookup(asset).apply([["red", "blue"], []], VOCAB) == [[1, 2], []]
    assert steps.lookup(asset).apply(np.array([["red"]], object), VOCAB) == [[1]]


def test_lookup_uses_the_numbers_of_a_mapping():
    assert steps.lookup("numbers", oov=0).apply(["red", "pink"], VOCAB) == [7, 0]


def test_lookup_refuses_unknown_words_unless_they_have_a_number():
    with refused(r"row 1 is not in 'vocab': found 'pink'.*\n.*steps.lookup\('vocab', oov=0\)"):
        steps.lookup("vocab").apply(["red", "pink"], VOCAB)
    assert steps.lookup("vocab", oov=0).apply(["red", "pink"], VOCAB) == [1, 0]


@pytest.mark.parametrize("bad", [None, 1, ["red", float("nan")]])
def test_lookup_refuses_what_is_not_text(bad):
    with refused("row 0 is not text"):
        steps.lookup("vocab", oov=0).apply([bad], VOCAB)


def test_lookup_in_an_asset_that_is_no_list_of_words_is_refused():
    with refused("the asset 'not words' does not fit"):
        steps.lookup("not words").apply(["red"], VOCAB)


# --- cast, rescale, reshape


def test_cast_cuts_fractions_and_refuses_numbers_that_do_not_fit():
    assert steps.cast("int8").apply([1.9, -1.9], {}).tolist() == [1, -1]
    for too_large in ([1, 300], [-1], [float("nan")], [float("inf")]):
        with refused("a number does not fit uint8"):
            steps.cast("uint8").apply(too_large, {})


@pytest.mark.keras
@given(arrays(st.sampled_from([np.uint8, np.int32, np.float32, np.float64]), (2, 3), elements=st.integers(0, 255)))
def test_rescale_is_keras_rescaling(batch):
    import keras

    ours = steps.rescale(1 / 127.5, offset=-1).apply(batch, {})
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, keras.layers.Rescaling(1 / 127.5, offset=-1)(batch), rtol=0, atol=1e-6)


def test_rescale_takes_a_number_a_column():
    assert steps.rescale([1, 10], offset=[0, 1]).apply([[1, 2]], {}).tolist() == [[1, 21]]


def test_reshape_leaves_the_rows_alone_and_works_out_one_axis():
    assert steps.reshape((2, -1)).apply(np.zeros((5, 8)), {}).shape == (5, 2, 4)


def test_a_shape_that_does_not_fit_is_refused_with_the_step():
    with refused(r"step 2 \(reshape\) failed: ValueError: cannot reshape"):
        Pipeline([steps.cast("float32"), steps.reshape((3,))]).prepare([[1, 2]], {})


# --- transform


@pytest.fixture
def scaler():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    return preprocessing.StandardScaler().fit([[0.0], [10.0]])


def test_transform_takes_a_plain_list_as_one_column_and_goes_both_ways(scaler):
    there = steps.transform("s").apply([0, 10], {"s": scaler})
    assert there.tolist() == [[-1], [1]]
    assert steps.transform("s", inverse=True).apply(there, {"s": scaler}).tolist() == [[0], [10]]


def test_transform_gives_dense_arrays_of_text_columns():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    encoder = preprocessing.OneHotEncoder().fit([["a"], ["b"]])
    assert steps.transform("e").apply(["b", "a"], {"e": encoder}).tolist() == [[0, 1], [1, 0]]


def test_transform_leaves_numbers_among_texts_as_they_are():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    encoder = preprocessing.OrdinalEncoder(categories=[["a", "b"], [1, 2]]).fit(np.array([["a", 1]], object))
    assert steps.transform("e").apply([["b", 1], ["a", 2]], {"e": encoder}).tolist() == [[1, 0], [0, 1]]


def test_transform_takes_a_label_encoder_whose_values_are_no_columns():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    encoder = preprocessing.LabelEncoder().fit(["a", "b"])
    assert steps.transform("e").apply(["b", "a"], {"e": encoder}).tolist() == [1, 0]


def test_transform_with_an_asset_that_transforms_nothing_is_refused():
    with refused("the asset 'vocab' does not fit"):
        steps.transform("vocab").apply([1], VOCAB)


# --- labels, threshold, top_k


def test_labels_of_one_score_a_row_are_two():
    answer = steps.labels(["no", "yes"]).apply
    expected = [{"label": "no", "score": 0.75}, {"label": "yes", "score": 0.75}, {"label": "no", "score": 0.5}]
    assert answer(np.array([[0.25], [0.75], [0.5]]), {}) == expected
    assert answer(np.array([0.25, 0.75, 0.5]), {}) == expected


def test_the_threshold_decides_between_two_labels_of_one_score():
    assert steps.labels(["no", "yes"], threshold=0.9).apply(np.array([[0.75]]), {}) == [{"label": "no", "score": 0.25}]


def test_labels_of_several_scores_are_the_highest():
    assert steps.labels("vocab").apply(np.array([[0.1, 0.7, 0.2]]), VOCAB) == [{"label": "red", "score": 0.7}]


def test_labels_above_a_threshold_are_all_of_them():
    scores = np.array([[0.1, 0.7, 0.9], [0.1, 0.1, 0.1]])
    both = [{"label": "red", "score": 0.7}, {"label": "blue", "score": 0.9}]
    assert steps.labels("vocab", threshold=0.5).apply(scores, VOCAB) == [both, []]


def test_labels_of_more_axes_are_nested_alike():
    scores = np.array([[[0.75, 0.25], [0.25, 0.75]]])
    assert steps.labels(["a", "b"]).apply(scores, {}) == [
        [{"label": "a", "score": 0.75}, {"label": "b", "score": 0.75}]
    ]


def test_labels_come_from_a_label_encoders_classes():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    assets = {"e": preprocessing.LabelEncoder().fit(["cat", "ant"])}
    assert steps.labels("e").apply(np.array([[0.25, 0.75]]), assets) == [{"label": "cat", "score": 0.75}]


@pytest.mark.parametrize("step", [steps.labels(["a", "b"]), steps.top_k(1, ["a", "b"])])
def test_label_names_and_scores_must_be_of_one_number(step):
    with refused("found 3, expected 2"):
        step.apply(np.zeros((1, 3)), {})


def test_a_single_label_without_a_threshold_is_refused():
    with refused("would be every row's answer"):
        steps.labels(["spam"]).apply(np.array([[0.1]]), {})
    assert steps.labels(["spam"], threshold=0.5).apply(np.array([[0.75]]), {}) == [[{"label": "spam", "score": 0.75}]]


@pytest.mark.parametrize("step", [steps.labels(["a", "b"]), steps.threshold(), steps.top_k(1)])
def test_an_answer_that_is_not_a_number_is_refused_by_row(step):
    with refused("answer for row 1 is not a number"):
        step.apply(np.array([[0.5, 0.5], [float("nan"), 0.5]]), {})


def test_low_precision_scores_are_read_too():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert steps.threshold(0.5).apply(np.array([[0.75]], ml_dtypes.bfloat16), {}) == [True]
    assert steps.threshold(0.5).apply(np.float16([[0.25]]), {}) == [False]


@pytest.mark.keras
@given(arrays(np.float32, (4, 1), elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1])))
def test_threshold_counts_as_keras_binary_accuracy(scores):
    import keras

    truth = np.ones((4, 1), np.float32)
    assert np.mean(steps.threshold(0.5).apply(scores, {})) == np.mean(keras.metrics.binary_accuracy(truth, scores, 0.5))


def test_threshold_nests_as_the_scores_do():
    assert steps.threshold(0.5).apply(np.array([[0.25, 0.75]]), {}) == [[False, True]]


def test_top_k_is_best_first_and_equal_scores_keep_their_order():
    scores = np.array([[0.25, 0.5, 0.25]])
    best = [{"index": 1, "score": 0.5}, {"index": 0, "score": 0.25}]
    assert steps.top_k(2).apply(scores, {}) == [best]
    assert steps.top_k(9, "vocab").apply(scores, VOCAB)[0][0] == {"label": "red", "score": 0.5}
    assert steps.top_k(1).apply(scores[None], {}) == [[best[:1]]]


def test_top_k_of_one_score_a_row_knows_both_labels():
    both = [{"label": "yes", "score": 0.75}, {"label": "no", "score": 0.25}]
    assert steps.top_k(2, ["no", "yes"]).apply(np.array([[0.75]]), {}) == [both]


# --- functions of your own


@steps.register("tests>shorten")
def shorten(batch, *, to):
    return [text[:to] for text in batch]


def test_a_registered_function_is_a_step_with_its_settings():
    pipeline = Pipeline([steps.custom("tests>shorten", to=2)])
    assert pipeline.prepare(["abc", "d"], {}).tolist() == ["ab", "d"]
    assert steps.custom("tests>shorten", to=2).defined == f"{__name__}:shorten"


def test_a_registered_function_may_be_defined_again_but_not_taken_over():
    steps.register("tests>shorten")(shorten)
    with refused("registered already"):
        steps.register("tests>shorten")(len)


@pytest.mark.parametrize("name", ["clean", ">x", "a>b>c", "a b>c", ""])
def test_a_name_without_its_package_is_refused(name):
    with refused("not a step's name"):
        steps.register(name)


def test_an_unregistered_function_is_refused_with_the_line_to_write():
    with refused(r'@modelkeep.steps.register\("tests>nowhere"\)'):
        steps.custom("tests>nowhere")


def test_settings_that_are_not_json_are_refused():
    with refused("not a JSON value"):
        steps.custom("tests>shorten", to=object())


@steps.register("tests>spoil")
def spoil(batch, how):
    return batch[1:] if how == "drop" else {}["missing"] if how == "raise" else 3


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("drop", r"step 1 \(custom\) changed the number of rows: found 1, expected 2"),
        ("number", "changed the number of rows: found int"),
        ("raise", "failed: KeyError: 'missing'"),
    ],
)
def test_a_function_that_goes_wrong_is_named(how, message):
    with refused(message) as caught:
        Pipeline([steps.custom("tests>spoil", how=how)]).prepare([1, 2], {})
    assert (caught.value.__cause__ is not None) == (how == "raise")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: steps.pad("long"), "pad: length cannot be so: Expected `int"),
        (lambda: steps.pad(0), "pad: length"),
        (lambda: steps.pad(3, padding="left"), "pad: padding"),
        (lambda: steps.pad(3, value=float("nan")), "not a JSON value: nan"),
        (lambda: steps.cast("str"), "cast: dtype"),
        (lambda: steps.rescale("1"), "rescale: scale"),
        (lambda: steps.top_k(0), "top_k: k"),
        (lambda: steps.labels([]), "labels: names"),
        (lambda: steps.tokenize(None), "tokenize: asset"),
    ],
)
def test_a_wrong_setting_is_refused_when_the_step_is_made(make, message):
    with refused(message):
        make()
