"""Rows follow their tokens, whichever tokenizers tell of them."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import modelkeep as mk
from modelkeep.errors import NotFaithful, UsageError
from modelkeep.live.vocabulary import Vocabulary, remap, rows, vocabulary

pytestmark = pytest.mark.keras

words = st.lists(st.text(max_size=3), unique=True, max_size=8)


@given(words, words)
def test_every_token_is_kept_added_or_dropped_and_every_row_is_its_tokens(old, new):
    found = rows(old, new)
    assert {new[index] for index in found.kept[1]} == set(old) & set(new)
    assert (set(found.added), set(found.dropped)) == (set(new) - set(old), set(old) - set(new))
    assert found.details["kept"] + found.details["added"] == len(new)
    matrix = remap(np.arange(len(old), dtype="float32")[:, None], np.full((len(new), 1), -1, "float32"), found)
    assert matrix[:, 0].tolist() == [old.index(token) if token in old else -1 for token in new]


@given(words, words, words)
def test_moving_rows_twice_is_moving_them_through(one, two, three):
    """Wherever a token was in all of them."""
    start = np.arange(len(one), dtype="float32")
    between = remap(start, np.full(len(two), -1, "float32"), rows(one, two))
    end = remap(between, np.full(len(three), -1, "float32"), rows(two, three))
    assert end.tolist() == [one.index(t) if t in one and t in two else -1 for t in three]


def keras_tokenizer(*texts: str, **options: object) -> mk.Tokenizer:
    tokenizer = mk.Tokenizer(**options)
    tokenizer.fit_on_texts(texts)
    return tokenizer


def test_a_keras_tokenizer_pads_with_0_and_gives_nothing_from_num_words_on():
    plain = vocabulary(keras_tokenizer("a b c", "a b", "a"))
    assert plain == Vocabulary({"a": 1, "b": 2, "c": 3}, padding=0)
    assert vocabulary(keras_tokenizer("a b c", "a b", "a", num_words=3)) == Vocabulary({"a": 1, "b": 2}, padding=0)
    unknown = keras_tokenizer("a b", "a", oov_token="<unk>")
    assert vocabulary(unknown) == Vocabulary({"<unk>": 1, "a": 2, "b": 3}, padding=0, unknown=(1,))
    assert vocabulary(unknown.to_json()) == vocabulary(unknown.to_keras()) == vocabulary(unknown)


def test_lookup_layers_tell_of_mask_and_unknown_tokens_in_each_of_their_modes():
    vectors = keras.layers.TextVectorization(vocabulary=["a", "b"])
    assert vocabulary(vectors) == Vocabulary({"": 0, "[UNK]": 1, "a": 2, "b": 3}, padding=0, unknown=range(1, 2))
    counts = keras.layers.TextVectorization(vocabulary=["a", "b"], output_mode="count")
    assert vocabulary(counts) == Vocabulary({"[UNK]": 0, "a": 1, "b": 2}, unknown=range(1))
    buckets = vocabulary(keras.layers.StringLookup(vocabulary=["a"], num_oov_indices=2, mask_token="[MASK]"))
    assert (buckets.padding, list(buckets.unknown), buckets.tokens["a"]) == (0, [1, 2], 3)
    numbers = vocabulary(keras.layers.IntegerLookup(vocabulary=[10, 20], num_oov_indices=0))
    assert (numbers.padding, list(numbers.unknown), numbers.tokens[20]) == (None, [], 1)


def hugging_face(*tokens: str, padding: str | None = None, model: str = "WordLevel"):
    tokenizers = pytest.importorskip("tokenizers")
    if model == "Unigram":
        return tokenizers.Tokenizer(tokenizers.models.Unigram([(token, -1.0) for token in tokens], unk_id=0))
    vocab = {token: index for index, token in enumerate(tokens)}
    made = tokenizers.Tokenizer(getattr(tokenizers.models, model)(vocab, unk_token="[UNK]"))
    if padding is not None:
        made.enable_padding(pad_id=tokens.index(padding), pad_token=padding)
    return made


def test_a_hugging_face_tokenizer_tells_what_pads_and_what_is_unknown():
    assert vocabulary(hugging_face("[UNK]", "a", "[PAD]", padding="[PAD]")) == Vocabulary(
        {"[UNK]": 0, "a": 1, "[PAD]": 2}, padding=2, unknown=(0,)
    )
    assert vocabulary(hugging_face("a", "b", model="WordPiece")).unknown == ()
    assert vocabulary(hugging_face("<unk>", "a", model="Unigram")).unknown == (0,)


def test_reserved_rows_follow_their_role_from_one_kind_of_tokenizer_to_another():
    old = keras_tokenizer("fine film", "fine", oov_token="<unk>")  # 0 padding, 1 unknown, 2 fine, 3 film
    new = hugging_face("film", "dull", "[UNK]", "fine", "[PAD]", padding="[PAD]")
    found = rows(old, new)
    matrix = remap(np.arange(4.0), np.full(5, -1.0), found)
    assert matrix.tolist() == [3, -1, 1, 2, 0]
    assert str(found) == "4 rows follow their tokens, 4 to another index; 1 new (dull); none dropped"


def test_roles_that_only_one_side_has_are_said():
    found = rows(keras_tokenizer("a b"), ["a", "b", "c"])
    assert (found.added, found.dropped) == (("c",), ("(padding)",))
    found = rows(["a"], Vocabulary({"a": 2}, padding=0, unknown=(1,)))
    assert (found.added, found.details["moved"]) == (("(padding)", "(unknown)"), 1)


def test_columns_and_spare_rows():
    found = rows(["a", "b"], ["b", "c"])
    kernel, into = np.array([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]]), np.zeros((2, 4))
    assert remap(kernel, into, found, axis=-1).tolist() == [[2, 0, 0, 0], [4, 0, 0, 0]]
    assert not into.any()  # what was given is not changed
    assert remap(np.ones(2, "float16"), np.zeros(2, "float32"), found).dtype == np.float32


@pytest.mark.parametrize(
    ("old", "into", "error", "message"),
    [
        (np.ones((1, 2)), np.ones((2, 2)), UsageError, "the old vocabulary does not index this tensor.*at least 2"),
        (np.ones((2, 2)), np.ones((1, 2)), UsageError, "the new vocabulary does not index this tensor"),
        (np.ones((2, 2)), np.ones((2, 3)), NotFaithful, "rows of different shapes"),
        (np.ones(2, "float64"), np.ones(2, "float32"), NotFaithful, "float32 cannot hold every float64"),
    ],
)
def test_tensors_of_another_vocabulary_are_refused(old, into, error, message):
    with pytest.raises(error, match=message):
        remap(old, into, rows(["a", "b"], ["b", "c"]))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["a", "b", "a"], "twice in the list: found 'a'"),
        ({"a": 0, "b": 0}, "'a' and 'b' share an index"),
        ({"a": -1}, "has no index: found -1"),
        ({"a": True}, "has no index"),
        (7, "no vocabulary to read: found a int"),
    ],
)
def test_what_does_not_tell_a_place_for_each_token_is_refused(tokens, message):
    with pytest.raises(UsageError, match=message):
        vocabulary(tokens)


def test_vocabularies_are_read_from_files_too(tmp_path: Path):
    (tmp_path / "words.txt").write_text("a\nb\n")
    (tmp_path / "words.json").write_text(json.dumps({"a": 1, "b": 2}))
    (tmp_path / "tokenizer.json").write_text(keras_tokenizer("a b").to_json())
    assert vocabulary(tmp_path / "words.txt") == vocabulary("a\nb") == Vocabulary({"a": 0, "b": 1})
    assert vocabulary(tmp_path / "words.json").tokens == vocabulary(tmp_path / "tokenizer.json").tokens
