"""From raw input to the network's input, and from its output to the answer."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from modelkeep import errors
from modelkeep.pipeline import MAX_JSON, Pipeline, Tokenizer, steps

RAW = ["A great film", "bad", ""]


@pytest.fixture
def tokenizer():
    fitted = Tokenizer(num_words=5, oov_token="?")
    fitted.fit_on_texts(["a great film", "a bad film"])
    return fitted


@pytest.fixture
def sentiment():
    return Pipeline(
        [steps.tokenize("tokenizer"), steps.pad(4, padding="post")],
        outputs=[steps.labels(["negative", "positive"])],
    )


def test_texts_become_the_networks_input(sentiment, tokenizer):
    prepared = sentiment.prepare(RAW, {"tokenizer": tokenizer})
    assert prepared.dtype == np.int32
    assert prepared.tolist() == [[2, 4, 3, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_scores_become_answers_that_are_json(sentiment):
    answers = sentiment.finish(np.array([[0.75], [0.25]], np.float32), {})
    assert answers == [{"label": "positive", "score": 0.75}, {"label": "negative", "score": 0.75}]
    assert json.loads(json.dumps(answers)) == answers


def test_preparing_changes_neither_the_input_nor_the_assets(sentiment, tokenizer):
    raw, before = list(RAW), tokenizer.to_json()
    first, second = (sentiment.prepare(raw, {"tokenizer": tokenizer}) for _ in range(2))
    assert (raw, tokenizer.to_json()) == (RAW, before)
    assert first.tolist() == second.tolist()


def test_an_empty_batch_gives_an_empty_batch(sentiment, tokenizer):
    assert sentiment.prepare([], {"tokenizer": tokenizer}).shape == (0, 4)
    assert sentiment.finish(np.zeros((0, 1)), {}) == []


@pytest.mark.parametrize("raw", ["one text", b"x", {"text": ["a"]}, None, 3, (x for x in RAW)])
def test_what_is_not_a_batch_is_refused(sentiment, tokenizer, raw):
    with pytest.raises(errors.UsageError, match=r"a batch is a list or array"):
        sentiment.prepare(raw, {"tokenizer": tokenizer})


@pytest.mark.parametrize("bad", [None, 3.5, b"bytes", ["a", 1]])
def test_bad_raw_input_is_named_by_step_row_and_value(sentiment, tokenizer, bad):
    with pytest.raises(errors.UsageError) as caught:
        sentiment.prepare(["fine", bad], {"tokenizer": tokenizer})
    assert "step 1 (tokenize): row 1 is not text" in str(caught.value)
    assert repr(bad) in str(caught.value)


# --- several inputs and outputs

TWO = Pipeline(
    {"text": [steps.tokenize("tokenizer"), steps.pad(2)], "age": [steps.rescale(0.01), steps.reshape((1,))]},
    outputs={"mood": [steps.labels(["sad", "glad"])]},
)


def test_named_inputs_are_taken_as_records_or_as_columns_alike(tokenizer):
    records = [{"text": "a film", "age": 50}, {"text": "bad", "age": 20}]
    columns = {"text": ["a film", "bad"], "age": np.array([50, 20])}
    one, other = (TWO.prepare(raw, {"tokenizer": tokenizer}) for raw in (records, columns))
    assert one["text"].tolist() == other["text"].tolist() == [[2, 3], [0, 1]]
    assert one["age"].tolist() == other["age"].tolist() == [[0.5], [np.float32(20) * np.float32(0.01)]]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([{"text": "a"}], "row 0 does not have the pipeline's inputs: found text, expected text, age"),
        ([{"text": "a", "age": 1, "agee": 2}], "row 0 does not have"),
        ([{"text": "a", "age": 1}, "b"], "row 1 is not a record"),
        ({"text": ["a"], "ages": [1]}, "the batch does not have"),
        ({"text": ["a"], "age": [1, 2]}, "the columns differ in length"),
        ({"text": "a", "age": [1]}, "a batch is a list"),
        (["a"], "row 0 is not a record"),
        ("a", "a batch for several inputs"),
        ([{"text": "a", "age": None}], r"input 'age', step 1 \(rescale\): row 0 is not numbers: found None"),
        ([{"text": 7, "age": 1}], r"input 'text', step 1 \(tokenize\): row 0 is not text"),
    ],
)
def test_a_batch_that_does_not_fit_the_named_inputs_is_refused(tokenizer, raw, message):
    with pytest.raises(errors.UsageError, match=message):
        TWO.prepare(raw, {"tokenizer": tokenizer})


def test_named_outputs_go_their_own_ways_and_the_others_stay_numbers():
    answers = TWO.finish({"mood": np.array([[0.25, 0.75]]), "other": np.array([[1, 2]])}, {})
    assert answers == {"mood": [{"label": "glad", "score": 0.75}], "other": [[1, 2]]}


def test_outputs_in_a_list_are_named_by_their_place():
    second = Pipeline([], outputs={"1": [steps.threshold()]})
    assert second.finish([np.array([[1]]), np.array([[0.75]])], {}) == {"0": [[1]], "1": [True]}


@pytest.mark.parametrize("outputs", [np.zeros((1, 2)), {"moods": np.zeros((1, 2))}, [np.zeros((1, 2))]])
def test_outputs_without_the_declared_names_are_refused(outputs):
    with pytest.raises(errors.UsageError, match="does not give the outputs"):
        TWO.finish(outputs, {})


@pytest.mark.parametrize("outputs", [{"a": np.zeros((1, 2))}, [np.zeros((1, 2)), np.zeros((1, 2))]])
def test_several_outputs_need_a_pipeline_with_names(sentiment, outputs):
    with pytest.raises(errors.UsageError, match="a network with one output"):
        sentiment.finish(outputs, {})


def test_without_output_steps_the_answer_is_the_numbers_nested_as_the_network_nests_them():
    outputs = {"a": np.array([[1.5]]), "b": [np.array([True]), np.array([2])]}
    assert Pipeline([]).finish(outputs, {}) == {"a": [[1.5]], "b": [[True], [2]]}


# --- what reaches the network


def test_without_steps_numbers_pass_as_they_are():
    assert Pipeline([]).prepare(np.float16([[1, 2]]), {}).dtype == np.float16
    assert Pipeline([]).prepare([[1, 2]], {}).tolist() == [[1, 2]]


def test_text_that_no_step_turned_into_numbers_is_an_array_of_python_strings():
    prepared = Pipeline([]).prepare(["a", "bc"], {})
    assert prepared.dtype == object
    assert prepared.tolist() == ["a", "bc"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([[1], [1, 2]], r"rows differ in shape: found lengths \[1, 2\]\n.*steps.pad"),
        ([["a"], ["a", "b"]], "different numbers of texts"),
        ([[1], ["a"]], "row 1 is not numbers: found 'a'"),
        (["a", 1], "row 0 is not numbers: found 'a'"),
        ([1.0, None], "row 1 is not numbers: found None"),
        ([2**70], "row 0 is not numbers"),
        (np.array(["2024-01-01"], "M8[D]"), "row 0 is not numbers"),
        (np.array(3), "a batch is a list"),
    ],
)
def test_what_is_neither_numbers_nor_text_never_reaches_the_network(raw, message):
    with pytest.raises(errors.UsageError, match=message):
        Pipeline([]).prepare(raw, {})


# --- as data


def everything() -> Pipeline:
    @steps.register("tests>everything")
    def everything(batch, **config):
        return batch

    return Pipeline(
        {
            "a": [
                steps.tokenize("t"),
                steps.pad(9, truncating="post", value=1, dtype="float32"),
                steps.reshape((3, -1)),
            ],
            "b": [steps.lookup("v", oov=0), steps.cast("int64")],
            "c": [steps.transform("s"), steps.rescale((0.5, 1), offset=-1)],
            "d": [steps.custom("tests>everything", deep={"list": [1, None, "x"]})],
        },
        outputs={
            "x": [steps.labels("names", threshold=0.3)],
            "y": [steps.threshold(0.1)],
            "z": [steps.top_k(3, ["p"])],
        },
    )


def test_a_pipeline_comes_back_from_json_as_it_was():
    whole = everything()
    assert Pipeline.from_json(whole.to_json()) == whole
    assert Pipeline.from_json(whole.to_json().decode()).to_json() == whole.to_json()


def test_lists_and_tuples_name_the_same_pipeline():
    as_lists = Pipeline([steps.reshape([2, 2])], outputs=[steps.labels(["a", "b"])])
    as_tuples = Pipeline((steps.reshape((2, 2)),), outputs=(steps.labels(("a", "b")),))
    assert as_lists == as_tuples
    assert as_lists.to_json() == as_tuples.to_json()


def document(**changes):
    return json.dumps({"format": 1, "inputs": [], "outputs": []} | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        document(extra=1),
        document(format="1"),
        document(inputs=[{"step": "exec", "code": "x"}]),
        document(inputs=[{"step": "pad", "length": 0}]),
        document(inputs=[{"step": "pad", "length": 10**9}]),
        document(inputs=[{"step": "pad", "size": 3}]),
        document(inputs=[{"step": "pad", "padding": "both"}]),
        document(inputs=[{"step": "cast", "dtype": "object"}]),
        document(inputs=[{"step": "labels", "names": ["a", "b"]}]),
        document(outputs=[{"step": "tokenize", "asset": "t"}]),
        document(inputs={}),
        '{"format": 1, "format": 1, "inputs": [], "outputs": []}',
    ],
)
def test_json_that_is_no_pipeline_is_refused(text):
    with pytest.raises(errors.UsageError):
        Pipeline.from_json(text)


def test_a_later_format_says_what_to_install():
    with pytest.raises(errors.FormatTooNew, match="pip install --upgrade modelkeep"):
        Pipeline.from_json(document(format=2, news=[]))


def test_too_large_a_pipeline_is_refused_on_both_ways():
    with pytest.raises(errors.LimitExceeded):
        Pipeline.from_json(" " * (MAX_JSON + 1))
    with pytest.raises(errors.LimitExceeded, match="keep long lists of names as an asset"):
        Pipeline([], [steps.labels(["x" * MAX_JSON, "y"])]).to_json()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pipeline([steps.labels(["a", "b"])]), r"inputs cannot have that at position 0: found labels"),
        (lambda: Pipeline([], [steps.tokenize("t")]), r"outputs cannot have that at position 0: found tokenize"),
        (lambda: Pipeline([len]), "a function of your own: @modelkeep.steps.register"),
        (lambda: Pipeline(steps.pad(3)), "inputs are not a list of steps"),
        (lambda: Pipeline({}), "inputs need names"),
    ],
)
def test_a_step_in_the_wrong_place_is_refused_when_the_pipeline_is_made(make, message):
    with pytest.raises(errors.UsageError, match=message):
        make()


# --- what it needs


def test_an_asset_that_is_not_there_is_named_with_those_that_are(sentiment):
    with pytest.raises(errors.UsageError, match=r"'tokenizer' that is not there: found scaler, vocab"):
        sentiment.check_assets({"vocab": [], "scaler": None})
    sentiment.check_assets(["tokenizer"])


def test_steps_that_are_not_registered_are_all_named_at_once_with_the_lines_to_paste():
    inputs = [
        {"step": "custom", "name": "theirs>clean", "config": {}, "defined": "theirs.text:clean"},
        {"step": "custom", "name": "mine>split", "config": {}, "defined": "__main__:split"},
    ]
    pipeline = Pipeline.from_json(document(inputs=inputs))
    for use in (pipeline.check_steps, lambda: pipeline.prepare([], {}), lambda: pipeline.finish(np.zeros(1), {})):
        with pytest.raises(errors.MissingCustomObjects) as caught:
            use()
        for words in (
            "theirs>clean",
            "theirs.text:clean",
            "import theirs.text",
            '@modelkeep.steps.register("mine>split")',
        ):
            assert words in str(caught.value)


def test_a_trusted_package_is_imported_for_its_steps_and_no_other_is(tmp_path, monkeypatch):
    for package in ("trusted_pkg", "trusted_pkg_evil"):
        double = f"steps.register('{package}>double')(lambda batch: [2 * x for x in batch])\n"
        (tmp_path / f"{package}.py").write_text("from modelkeep.pipeline import steps\n" + double)
    monkeypatch.syspath_prepend(str(tmp_path))

    def pipeline(package):
        step = {"step": "custom", "name": f"{package}>double", "config": {}, "defined": f"{package}:<lambda>"}
        return Pipeline.from_json(document(inputs=[step]))

    with pytest.raises(errors.MissingCustomObjects):
        pipeline("trusted_pkg_evil").check_steps(trust=["trusted_pkg"])
    assert "trusted_pkg_evil" not in sys.modules
    pipeline("trusted_pkg").check_steps(trust=["trusted_pkg"])
    assert pipeline("trusted_pkg").prepare([1, 2], {}).tolist() == [2, 4]


def test_no_numpy_keras_or_scikit_learn_is_imported_until_a_batch_runs():
    code = (
        "import sys, modelkeep.assets as a; from modelkeep.pipeline import Pipeline, steps;"
        "p = Pipeline([steps.pad(3)], outputs=[steps.labels(['a', 'b'])]); Pipeline.from_json(p.to_json());"
        "a.pack('words', ['x']);"
        "assert not {'numpy', 'keras', 'sklearn', 'tokenizers', 'skops'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
