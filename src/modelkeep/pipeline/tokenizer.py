"""Keras' legacy text ``Tokenizer``, as plain data that runs without Keras.

The rules are those of ``keras.src.legacy.preprocessing.text`` (``tensorflow.keras.preprocessing.text``),
and the tests hold the two together: the same integers for the same text, the same vocabulary for the same
corpus, the same JSON.
"""

from __future__ import annotations

import json
import operator
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from modelkeep.errors import MissingExtra, UsageError
from modelkeep.formats import strict_json

if TYPE_CHECKING:
    import numpy as np

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
MAX_JSON = 512 * 2**20  # characters; a million words take about 100 MB
MAX_INDEX = 2**31 - 1  # what int32, the usual dtype of a network's input, holds

Mode = Literal["binary", "count", "freq", "tfidf"]
Text = str | Sequence[str]
"""A text, or a text already split into words."""

_OPTIONS = ("num_words", "filters", "lower", "split", "char_level", "oov_token", "document_count")
_COUNTS = ("word_counts", "word_docs", "index_docs", "index_word", "word_index")


class Tokenizer:
    """Turns texts into lists of word numbers, the most frequent word being 1; 0 is left for padding.

    ``num_words`` keeps the numbers below it; ``filters`` are the characters dropped between words,
    ``split`` the text that separates them; with ``char_level`` every character is a word; unknown words
    are left out, or become ``oov_token``. Attributes have Keras' names and meanings.

    Raises UsageError for an option that Keras could not run with.
    """

    def __init__(
        self,
        num_words: int | None = None,
        filters: Sequence[str] | None = FILTERS,
        lower: bool = True,
        split: str | None = " ",
        char_level: bool = False,
        oov_token: str | None = None,
        document_count: int = 0,
    ) -> None:
        self.num_words = num_words
        self.filters = _joined(filters)
        self.lower = lower
        self.split = split
        self.char_level = char_level
        self.oov_token = oov_token
        self.document_count = document_count
        self.word_counts: dict[str, int] = {}
        self.word_docs: dict[str, int] = {}
        self.index_docs: dict[int, int] = {}
        self.word_index: dict[str, int] = {}
        self.index_word: dict[int, str] = {}
        self._check_options()

    def __repr__(self) -> str:
        return f"<Tokenizer of {len(self.word_index)} words, num_words={self.num_words}, oov_token={self.oov_token!r}>"

    # --- learning a vocabulary

    def fit_on_texts(self, texts: Iterable[Text]) -> None:
        """Count the words of ``texts`` on top of those counted before, and number them anew by frequency."""
        counts, docs = Counter(self.word_counts), Counter(self.word_docs)
        documents = self.document_count
        for words in self._split_all(texts):
            documents += 1
            words = list(words)
            counts.update(words)
            docs.update(dict.fromkeys(words, 1))
        self.document_count, self.word_counts, self.word_docs = documents, dict(counts), dict(docs)
        # Sorting is stable: of equally frequent words the one met first comes first.
        ranked = sorted(counts, key=counts.__getitem__, reverse=True)
        vocabulary = ranked if self.oov_token is None else [self.oov_token, *ranked]
        self.word_index = {word: number for number, word in enumerate(vocabulary, start=1)}
        self.index_word = {number: word for word, number in self.word_index.items()}
        index_docs = {self.word_index[word]: count for word, count in docs.items() if word in counts}
        self.index_docs = dict(sorted({**self.index_docs, **index_docs}.items()))

    def fit_on_sequences(self, sequences: Sequence[Sequence[int]]) -> None:
        """Count in how many sequences each number occurs, for ``tfidf`` without ever having seen text."""
        self.document_count += len(sequences)
        docs = Counter(self.index_docs)
        for sequence in sequences:
            docs.update(set(sequence))
        self.index_docs = dict(docs)

    # --- using it

    def texts_to_sequences(self, texts: Iterable[Text]) -> list[list[int]]:
        """The numbers of each text's words. Raises UsageError, naming the row, for anything that is not text."""
        limit = self.num_words or sys.maxsize
        find = self.word_index.get
        if self.oov_token is None:
            return [[i for word in words if (i := find(word, limit)) < limit] for words in self._split_all(texts)]
        oov = self._oov_index()
        return [[i if (i := find(word, oov)) < limit else oov for word in words] for words in self._split_all(texts)]

    def sequences_to_texts(self, sequences: Iterable[Iterable[int]]) -> list[str]:
        """The words of each sequence, joined by spaces; numbers of no word are left out, or the OOV token."""
        limit = self.num_words or sys.maxsize
        oov = self.oov_token
        if oov is not None:
            self._oov_index()
        texts = []
        for sequence in sequences:
            words = (oov if i >= limit else self.index_word.get(i, oov) for i in sequence)
            texts.append(" ".join(word for word in words if word is not None))
        return texts

    def texts_to_matrix(self, texts: Iterable[Text], mode: Mode = "binary") -> np.ndarray[Any, Any]:
        """One row a text, one column a word number: float64 of shape ``(texts, num_words)``."""
        return self.sequences_to_matrix(self.texts_to_sequences(texts), mode)

    def sequences_to_matrix(self, sequences: Sequence[Sequence[int]], mode: Mode = "binary") -> np.ndarray[Any, Any]:
        """One row a sequence, one column a number: 1, its count, its share, or its tf-idf weight.

        tf-idf is ``(1 + log(count)) * log(1 + documents / (1 + documents with the word))``, Keras' own.
        Raises UsageError before any fit, or for another mode.
        """
        import numpy as np

        width = self.num_words or (len(self.word_index) + 1 if self.word_index else 0)
        if not width:
            raise UsageError("the tokenizer does not know how many words there are", hint="fit it, or give num_words")
        if mode == "tfidf" and not self.document_count:
            raise UsageError("tf-idf needs a fitted tokenizer", hint="call fit_on_texts first")
        if mode not in ("binary", "count", "freq", "tfidf"):
            raise UsageError("not a mode", found=repr(mode), expected="binary, count, freq or tfidf")
        matrix = np.zeros((len(sequences), width))
        for row, sequence in zip(matrix, sequences, strict=True):
            for number, count in Counter(i for i in sequence if i < width).items():
                if mode == "binary":
                    row[number] = 1
                elif mode == "count":
                    row[number] = count
                elif mode == "freq":
                    row[number] = count / len(sequence)
                else:
                    documents = self.document_count / (1 + self.index_docs.get(number, 0))
                    row[number] = (1 + np.log(count)) * np.log(1 + documents)
        return matrix

    def _split_all(self, texts: Iterable[Text]) -> Iterable[Iterable[str]]:
        if isinstance(texts, str):
            raise UsageError("one text where a list of texts is expected", found=repr(texts)[:80], hint="write [text]")
        separators = str.maketrans(dict.fromkeys(self.filters or "", self.split))
        return (self._words(text, row, separators) for row, text in enumerate(texts))

    def _words(self, text: Text, row: int, separators: dict[int, Any]) -> Iterable[str]:
        if isinstance(text, str):
            text = text.lower() if self.lower else text
            # Two separators in a row leave an empty text between them, which is no word.
            return text if self.char_level else filter(None, text.translate(separators).split(self.split))
        if isinstance(text, list | tuple) and all(isinstance(word, str) for word in text):
            return [word.lower() for word in text] if self.lower else text
        raise UsageError(
            f"row {row} is not text",
            found=f"{repr(text)[:80]} ({type(text).__name__})",
            expected="text, or a list of words",
            hint="bytes: .decode() them; missing texts: put '' there or leave the row out",
        )

    def _oov_index(self) -> int:
        if self.oov_token not in self.word_index:
            raise UsageError(
                f"the tokenizer's vocabulary lacks its oov_token {self.oov_token!r}", hint="call fit_on_texts first"
            )
        return self.word_index[self.oov_token]

    # --- as data

    def get_config(self) -> dict[str, Any]:
        """Keras' form: the options, and the five vocabularies each as JSON text."""
        return {
            **{name: getattr(self, name) for name in _OPTIONS},
            **{name: json.dumps(getattr(self, name)) for name in _COUNTS},
        }

    def to_json(self) -> str:
        """Keras' form, which ``tokenizer_from_json`` reads too. The same tokenizer gives the same text."""
        return json.dumps({"class_name": "Tokenizer", "config": self.get_config()})

    @classmethod
    def from_json(cls, text: str | bytes) -> Tokenizer:
        """Read what :meth:`to_json`, here or in Keras, wrote.

        Raises LimitExceeded over ``MAX_JSON``; UsageError where anything in it is not as Keras writes it:
        words are text, their numbers unique and positive, and ``index_word`` says the same as ``word_index``.
        """
        document = strict_json.parse(text, what="the tokenizer", limit=MAX_JSON)
        config = document.get("config") if isinstance(document, dict) else None
        if not isinstance(config, dict) or document.keys() != {"class_name", "config"}:
            raise UsageError("not a Keras tokenizer", expected='{"class_name": "Tokenizer", "config": {…}}')
        _expect(document["class_name"] == "Tokenizer", "class_name", document["class_name"], '"Tokenizer"')
        _expect(config.keys() == {*_OPTIONS, *_COUNTS}, "config", sorted(config), f"{_OPTIONS + _COUNTS}")
        vocabulary: dict[str, dict[Any, Any]] = {name: _inner(config[name], name) for name in _COUNTS}
        for name in ("index_docs", "index_word"):
            vocabulary[name] = {_number(key, name): value for key, value in vocabulary[name].items()}
        return cls._of({name: config[name] for name in _OPTIONS}, vocabulary)

    @classmethod
    def from_keras(cls, tokenizer: Any) -> Tokenizer:
        """The same vocabulary and options as a Keras ``Tokenizer``, of whichever Keras.

        Raises UsageError where it has an ``analyzer`` (code, which Keras' own JSON drops without a word), or
        was changed by hand so that its parts contradict each other.
        """
        if getattr(tokenizer, "analyzer", None) is not None:
            raise UsageError(
                "a tokenizer with an analyzer function cannot be kept: code is not data",
                hint="set tokenizer.analyzer = None, and split the text before it by a step of your own: "
                "@modelkeep.steps.register('mypackage>split')",
            )
        options = {name: getattr(tokenizer, name) for name in _OPTIONS}
        try:
            options["num_words"] = None if options["num_words"] is None else operator.index(options["num_words"])
        except TypeError as error:
            raise _not_so("num_words", options["num_words"], "a whole number or None") from error
        options["lower"], options["char_level"] = bool(options["lower"]), bool(options["char_level"])
        return cls._of(options, {name: dict(getattr(tokenizer, name)) for name in _COUNTS})

    def to_keras(self) -> Any:
        """A ``keras.src.legacy.preprocessing.text.Tokenizer``. Raises MissingExtra without Keras."""
        try:
            text = import_module("keras.src.legacy.preprocessing.text")
        except ImportError as error:
            raise MissingExtra("to_keras() needs Keras", hint="pip install 'modelkeep[tensorflow]'") from error
        tokenizer = text.tokenizer_from_json(self.to_json())
        # Keras' own reader leaves plain dicts here, which fail at the next fit.
        tokenizer.word_docs = defaultdict(int, tokenizer.word_docs)
        tokenizer.index_docs = defaultdict(int, tokenizer.index_docs)
        return tokenizer

    @classmethod
    def _of(cls, options: Mapping[str, Any], vocabulary: Mapping[str, Any]) -> Tokenizer:
        tokenizer = cls(**options)
        for name in _COUNTS:
            setattr(tokenizer, name, vocabulary[name])
        tokenizer._check_vocabulary()
        # Keras fills these in the order of a set, which differs between two runs; the bytes kept must not.
        order = {word: position for position, word in enumerate(tokenizer.word_counts)}
        docs = sorted(tokenizer.word_docs.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))
        tokenizer.word_docs = dict(docs)
        tokenizer.index_docs = dict(sorted(tokenizer.index_docs.items()))
        return tokenizer

    def _check_options(self) -> None:
        _expect(self.num_words is None or _whole(self.num_words), "num_words", self.num_words, "a whole number or None")
        _expect(isinstance(self.lower, bool), "lower", self.lower, "True or False")
        _expect(isinstance(self.char_level, bool), "char_level", self.char_level, "True or False")
        _expect(self.filters is not None or self.char_level, "filters", self.filters, "the characters to drop, or ''")
        _expect(self.split is None or _is_text(self.split), "split", self.split, "text of at least one character")
        _expect(isinstance(self.oov_token, str | None), "oov_token", self.oov_token, "text or None")
        _expect(_count(self.document_count), "document_count", self.document_count, "0 or more")

    def _check_vocabulary(self) -> None:
        for name in ("word_counts", "word_docs"):
            odd = [f"{w!r}: {n!r}" for w, n in getattr(self, name).items() if not (isinstance(w, str) and _count(n))]
            _expect(not odd, name, odd[:1], "words as text, each with a count")
        odd = [f"{i!r}: {n!r}" for i, n in self.index_docs.items() if not (_count(i) and _count(n))]
        _expect(not odd, "index_docs", odd[:1], "word numbers, each with a count")
        odd = [
            f"{w!r}: {i!r}"
            for w, i in self.word_index.items()
            if not (isinstance(w, str) and _count(i) and 1 <= i <= MAX_INDEX)
        ]
        _expect(not odd, "word_index", odd[:1], f"words as text, each with a number from 1 to {MAX_INDEX}")
        inverse = {number: word for word, number in self.word_index.items()}
        _expect(len(inverse) == len(self.word_index), "word_index", "a number twice", "each word its own number")
        _expect(
            inverse == self.index_word,
            "index_word",
            _first_difference(inverse, self.index_word),
            "the same as word_index",
            hint="tokenizer.index_word = {number: word for word, number in tokenizer.word_index.items()}",
        )
        if self.oov_token is not None and self.word_index:
            _expect(self.oov_token in self.word_index, "word_index", f"no {self.oov_token!r}", "the oov_token in it")


def _joined(filters: Sequence[str] | None) -> str | None:
    if filters is None or isinstance(filters, str):
        return filters
    _expect(
        isinstance(filters, list | tuple) and all(isinstance(c, str) and len(c) == 1 for c in filters),
        "filters",
        filters,
        "text, or a list of single characters",
    )
    return "".join(filters)


def _inner(text: Any, name: str) -> dict[str, Any]:
    _expect(isinstance(text, str), name, type(text).__name__, "JSON as text")
    value = strict_json.parse(text, what=f"the tokenizer's {name}", limit=MAX_JSON)
    _expect(isinstance(value, dict), name, type(value).__name__, "a mapping")
    return value  # type: ignore[no-any-return]


def _number(key: str, name: str) -> int:
    # Not int(key) alone: it also takes " 1", "01", "1_0" and other scripts' digits.
    _expect(key.isascii() and key.isdecimal() and len(key) <= 10 and str(int(key)) == key, name, repr(key), "numbers")
    return int(key)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return _whole(value) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _first_difference(inverse: Mapping[int, str], index_word: Mapping[Any, Any]) -> str:
    number = next((n for n in [*inverse, *index_word] if inverse.get(n) != index_word.get(n)), None)
    if number is None:
        return "the same"
    return f"{number} is {index_word.get(number)!r} there and {inverse.get(number)!r} in word_index"


def _expect(holds: bool, what: str, found: object, expected: str, hint: str | None = None) -> None:
    if not holds:
        raise _not_so(what, found, expected, hint)


def _not_so(what: str, found: object, expected: str, hint: str | None = None) -> UsageError:
    return UsageError(f"the tokenizer's {what} cannot be so", found=str(found)[:200], expected=expected, hint=hint)
