"""Our Tokenizer and Keras' own: the same integers, the same vocabulary, the same JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import LimitExceeded, MissingExtra, UsageError
from modelkeep.pipeline import Tokenizer, tokenizer

# Few letters, so that words repeat; and the ones that text handling trips over: dotted capital I, sharp s,
# final sigma, a ligature, combining marks, joiners, odd spaces, an emoji, a lone surrogate.
LETTERS = st.sampled_from([*"abAB ,.!-_\t\n'", *"İıßΣςﬁŉ\u0301\u0327\u200d\u00a0\u2028😀\ud800"])
texts = st.lists(st.text(LETTERS, max_size=12), max_size=6)
words = st.lists(st.text(LETTERS, max_size=3), max_size=5)
mixed = st.lists(st.one_of(st.text(LETTERS, max_size=12), words), max_size=6)
options = st.fixed_dictionaries(
    {},
    optional={
        "num_words": st.none() | st.integers(-1, 6),
        "filters": st.text(LETTERS, max_size=4) | st.lists(LETTERS, max_size=3),
        "lower": st.booleans(),
        "split": st.sampled_from([" ", "a", "ab", ",", "\t", None]),
        "char_level": st.booleans(),
        "oov_token": st.sampled_from([None, "<oov>", "a", ""]),
    },
)


def keras_tokenizer(**given_options: Any) -> Any:
    from keras.src.legacy.preprocessing.text import Tokenizer as Original

    return Original(**given_options)


@pytest.mark.keras
@given(options, mixed, mixed)
def test_fitting_and_numbering_texts_is_the_same_as_in_keras(chosen, corpus, unseen):
    ours, theirs = Tokenizer(**chosen), keras_tokenizer(**chosen)
    for part in (corpus, unseen[:2]):  # a second fit goes on from the first
        ours.fit_on_texts(part)
        theirs.fit_on_texts(part)
    assert list(ours.word_counts.items()) == list(theirs.word_counts.items())
    assert ours.word_index == theirs.word_index
    assert ours.index_word == theirs.index_word
    assert ours.word_docs == theirs.word_docs
    assert ours.index_docs == theirs.index_docs
    assert ours.document_count == theirs.document_count
    assert ours.texts_to_sequences(corpus + unseen) == theirs.texts_to_sequences(corpus + unseen)


@pytest.mark.keras
@given(options, texts, st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=4))
def test_turning_numbers_back_into_texts_is_the_same_as_in_keras(chosen, corpus, sequences):
    ours, theirs = Tokenizer(**chosen), keras_tokenizer(**chosen)
    ours.fit_on_texts(corpus)
    theirs.fit_on_texts(corpus)
    assert ours.sequences_to_texts(sequences) == theirs.sequences_to_texts(sequences)


@pytest.mark.keras
@given(texts.filter(any), texts, st.none() | st.integers(2, 6), st.sampled_from(["binary", "count", "freq", "tfidf"]))
def test_matrices_of_texts_are_the_same_as_in_keras(corpus, unseen, num_words, mode):
    ours, theirs = Tokenizer(num_words), keras_tokenizer(num_words=num_words)
    ours.fit_on_texts([*corpus, "one word"])
    theirs.fit_on_texts([*corpus, "one word"])
    assert ours.texts_to_matrix(unseen, mode).tobytes() == theirs.texts_to_matrix(unseen, mode).tobytes()


@pytest.mark.keras
@given(options, mixed)
def test_keras_and_we_read_each_others_json(chosen, corpus):
    from keras.src.legacy.preprocessing.text import tokenizer_from_json

    theirs = keras_tokenizer(**chosen)
    theirs.fit_on_texts(corpus)
    ours = Tokenizer.from_json(theirs.to_json())
    back = tokenizer_from_json(ours.to_json())
    assert ours.to_json() == Tokenizer.from_keras(theirs).to_json() == Tokenizer.from_keras(back).to_json()
    assert ours.texts_to_sequences(corpus) == theirs.texts_to_sequences(corpus) == back.texts_to_sequences(corpus)


@pytest.mark.keras
def test_a_tokenizer_goes_back_to_keras_and_can_be_fitted_further_there():
    ours = Tokenizer(oov_token="?")
    ours.fit_on_texts(["a b a"])
    theirs = ours.to_keras()
    theirs.fit_on_texts(["b c"])
    ours.fit_on_texts(["b c"])
    assert theirs.word_index == ours.word_index
    assert theirs.index_docs == ours.index_docs


@pytest.mark.keras
def test_counting_sequences_without_texts_is_the_same_as_in_keras():
    ours, theirs = Tokenizer(num_words=5), keras_tokenizer(num_words=5)
    for sequences in ([[1, 1, 2], [0]], [[2, 9]]):
        ours.fit_on_sequences(sequences)
        theirs.fit_on_sequences(sequences)
    assert ours.index_docs == theirs.index_docs
    assert np.array_equal(ours.sequences_to_matrix([[1, 2]], "tfidf"), theirs.sequences_to_matrix([[1, 2]], "tfidf"))


@pytest.mark.parametrize(
    ("tokenizer", "mode"), [(Tokenizer(), "count"), (Tokenizer(5), "tfidf"), (Tokenizer(5), "unheard of")]
)
def test_a_matrix_needs_a_width_a_known_mode_and_for_tfidf_documents(tokenizer, mode):
    with pytest.raises(UsageError):
        tokenizer.sequences_to_matrix([[1]], mode)


def test_going_back_to_keras_without_keras_names_the_line_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras.src.legacy.preprocessing.text", None)  # as if it were not installed
    with pytest.raises(MissingExtra, match="pip install 'modelkeep"):
        Tokenizer().to_keras()


@pytest.mark.keras
def test_a_number_of_words_that_is_not_whole_is_refused():
    with pytest.raises(UsageError, match="num_words cannot be so: found 1000"):
        Tokenizer.from_keras(keras_tokenizer(num_words=1000.5))


@pytest.mark.keras
def test_an_analyzer_is_refused_because_keras_would_drop_it_silently():
    theirs = keras_tokenizer(analyzer=str.split)
    with pytest.raises(UsageError, match="analyzer"):
        Tokenizer.from_keras(theirs)


@pytest.mark.keras
def test_a_vocabulary_changed_by_hand_is_refused_with_the_line_that_repairs_it():
    theirs = keras_tokenizer()
    theirs.fit_on_texts(["a b c"])
    del theirs.word_index["b"]
    with pytest.raises(UsageError, match=r"2 is 'b' there and None in word_index.*\n.*tokenizer.index_word = "):
        Tokenizer.from_keras(theirs)


def test_the_same_tokenizer_gives_the_same_json():
    one, other = Tokenizer(), Tokenizer()
    one.fit_on_texts(["b a", "c a"])
    other.fit_on_texts(["b a", "c a"])
    assert one.to_json() == other.to_json() == Tokenizer.from_json(one.to_json()).to_json()


@pytest.mark.parametrize("bad", [None, 7, b"bytes", float("nan"), ["word", 3]])
def test_what_is_not_text_is_named_by_row(bad):
    with pytest.raises(UsageError, match="row 1 is not text"):
        Tokenizer().texts_to_sequences(["fine", bad])


def test_a_failed_fit_leaves_the_vocabulary_as_it_was():
    ours = Tokenizer()
    ours.fit_on_texts(["a b"])
    before = ours.to_json()
    with pytest.raises(UsageError):
        ours.fit_on_texts(["c", None])
    assert ours.to_json() == before


def test_one_text_instead_of_a_list_is_refused_because_its_letters_would_pass_for_texts():
    with pytest.raises(UsageError, match=r"write \[text\]"):
        Tokenizer().texts_to_sequences("one text")


def test_an_oov_token_before_any_fit_is_refused_because_it_has_no_number():
    with pytest.raises(UsageError, match="call fit_on_texts first"):
        Tokenizer(oov_token="?").texts_to_sequences(["a"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_words": 1.5},
        {"filters": None},
        {"filters": ["ab"]},
        {"filters": 5},
        {"split": ""},
        {"lower": 1},
        {"oov_token": 3},
    ],
)
def test_options_that_keras_could_not_run_with_are_refused_when_given(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Tokenizer(**wrong)


def fitted_json(**changes: Any) -> str:
    ours = Tokenizer(oov_token="?")
    ours.fit_on_texts(["a b"])
    document = json.loads(ours.to_json())
    document["config"].update(changes)
    return json.dumps(document)


@pytest.mark.parametrize(
    "changes",
    [
        {"word_index": '{"?": 1, "a": 2, "b": 2}'},
        {"word_index": '{"?": 1, "a": 2, "b": 0}'},
        {"word_index": '{"?": 1, "a": 2, "b": -3}'},
        {"word_index": '{"?": 1, "a": 2, "b": 2147483648}'},
        {"word_index": '{"?": 1, "a": 2, "b": "3"}'},
        {"word_index": '{"?": 1, "a": 2, "b": true}'},
        {"word_index": '{"?": 1, "a": 2, "a": 3}'},
        {"word_index": '["?", "a", "b"]'},
        {"word_index": {"?": 1, "a": 2, "b": 3}},
        {"word_index": '{"a": 2, "b": 3}', "index_word": '{"2": "a", "3": "b"}'},
        {"index_word": '{"1": "?", "2": "b", "3": "a"}'},
        {"index_word": '{"1": "?", "2": "a", "03": "b"}'},
        {"index_word": '{"1": "?", "2": "a", "x": "b"}'},
        {"index_docs": '{"1": -1}'},
        {"word_counts": '{"a": NaN}'},
        {"word_docs": '{"a": 1.5}'},
        {"document_count": -1},
        {"lower": 1},
        {"num_words": "5"},
        {"analyzer": "os.system"},
    ],
)
def test_json_that_keras_would_not_have_written_is_refused(changes):
    with pytest.raises(UsageError):
        Tokenizer.from_json(fitted_json(**changes))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"class_name": "Tokenizer"}', '{"class_name":"T","config":{}}', b"\xff"]
)
def test_json_of_something_else_is_refused(text):
    with pytest.raises(UsageError):
        Tokenizer.from_json(text)


def test_json_that_is_too_deep_or_too_long_is_refused_unread(monkeypatch):
    with pytest.raises(LimitExceeded):
        Tokenizer.from_json("[" * 100_000)
    with pytest.raises(LimitExceeded):
        Tokenizer.from_json("[" * 150 + "]" * 150)
    monkeypatch.setattr(tokenizer, "MAX_JSON", 10)
    with pytest.raises(LimitExceeded):
        Tokenizer.from_json(fitted_json())
