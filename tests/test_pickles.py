"""A pickle is told by its opcodes: what it names, whether it is whole; a tokenizer comes out of it as data."""

from __future__ import annotations

import bz2
import collections
import datetime
import decimal
import gzip
import io
import json
import lzma
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import sparse
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import LabelEncoder, StandardScaler

from hostile import Touch, opcodes, short
from modelkeep.errors import LimitExceeded, UnsafeContent, UsageError
from modelkeep.formats import forms, pickles
from modelkeep.formats.limits import DEFAULT, MIB, Limits
from modelkeep.formats.pickle_machine import Source, begins, follow
from modelkeep.pipeline.tokenizer import Tokenizer
from modelkeep.safety.pickles import check, is_known, tokenizer_from_pickle

HERE = Path(__file__).parent / "pickles"
PLAIN = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text() | some.binary(),
    lambda inner: some.lists(inner) | some.tuples(inner, inner) | some.dictionaries(some.text(), inner),
    max_leaves=20,
)


def value_of(data: bytes) -> Any:
    found = follow(Source(io.BytesIO(data), len(data)), DEFAULT)
    assert found.broken is None, found.broken
    return found.value


def facts(data: bytes, limits: Limits = DEFAULT) -> dict[str, Any]:
    return pickles.facts(io.BytesIO(data), limits, size=len(data))


def rules(path: Path) -> list[str]:
    place = forms.look(path)
    assert pickles.FORM.recognise(place)
    with pickles.FORM.read(place, DEFAULT, True) as contents:
        return [problem.rule for problem in check(contents, DEFAULT)]


# --- following


@given(PLAIN, some.integers(3, 5))  # before 3, bytes are made by a call
def test_plain_values_come_out_as_they_went_in(value: Any, protocol: int) -> None:
    assert repr(value_of(pickle.dumps(value, protocol))) == repr(value)


@pytest.mark.parametrize("protocol", range(6))
def test_every_name_is_found_and_every_call_counted(protocol: int) -> None:
    value = [collections.OrderedDict(a=1), decimal.Decimal("1.5"), datetime.date(2026, 1, 1), decimal.Decimal(2)]
    found = facts(pickle.dumps(value, protocol))
    assert {"collections.OrderedDict": 1, "decimal.Decimal": 2, "datetime.date": 1}.items() <= found["globals"].items()


def test_large_values_are_passed_over() -> None:
    data = pickle.dumps({"weights": bytes(5_000_000), "text": "x" * 3_000_000, "next": 7})
    assert len(value_of(data)["weights"]) == 5_000_000
    assert value_of(data)["next"] == 7


def test_deep_values_are_followed_without_recursion() -> None:
    assert facts(opcodes(b"N", b"\x85" * 300_000))["broken"] is None
    assert facts(opcodes(b"}N", b"\x85" * 300_000, b"Ns"))["broken"] is None


@pytest.mark.parametrize(
    "parts", [b"0", b"R", b"h\x05", b"(", b"]Na(", b"]K\x01s", b"\x93", b"NNNNu", b"Nb" + b"0" * 5, b"c", b"X\xff"]
)
def test_opcodes_that_make_no_sense_break_it(parts: bytes) -> None:
    found = facts(opcodes(parts))
    assert found["broken"] or found["unresolved"]


def test_a_pickle_has_a_limit_of_opcodes() -> None:
    with pytest.raises(LimitExceeded, match="too many opcodes"):
        facts(pickle.dumps(list(range(1000))), Limits(opcodes=500))


def test_a_line_without_an_end_is_no_name() -> None:
    assert "no newline" in facts(b"\x80\x02c" + b"a" * 3_000_000)["broken"]


# --- recognising


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zlib.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_known_by_its_bytes(protocol: int, wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "anything"
    path.write_bytes(wrap(pickle.dumps({"words": ["a", "b"] * 3000, "numbers": [1.5, 2]}, protocol)))
    assert rules(path) == ["pickle"]


@pytest.mark.parametrize("wrap", [gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_a_packed_pickle_is_read_to_its_last_byte(wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    whole = wrap(pickle.dumps(list(range(1000))))
    for data in (whole[:-1], whole[:-9], whole + b"garbage"):
        (tmp_path / "values.pkl").write_bytes(data)
        assert "pickle-broken" in rules(tmp_path / "values.pkl")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"import os\nos.system('x')\n",
        b"class_name: Model\n",
        b"(hello)",
        b"I am text.\n",
        b"N",
        b"\x80\x09",
    ],
)
def test_text_is_no_pickle(text: bytes) -> None:
    assert not begins(text, DEFAULT)


# --- judging


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_writes_arrays_between_the_opcodes(compress: Any, tmp_path: Path) -> None:
    values = {"a": np.arange(1000), "b": np.array(["x", 1], object), "c": np.zeros((3, 4), "U7"), "d": [1, 2]}
    values["e"] = np.zeros(2, [("x", "i4"), ("y", "f8")])
    joblib.dump(values, tmp_path / "values.joblib", compress=compress)
    assert rules(tmp_path / "values.joblib") == ["pickle"]
    values["f"] = np.array([Touch(tmp_path)], object)
    joblib.dump(values, tmp_path / "values.joblib", compress=compress)
    assert "pickle-call" in rules(tmp_path / "values.joblib")
    assert not (tmp_path / "canary").exists()


def test_estimators_are_known(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((10, 2))
    values = [StandardScaler().fit(x), LabelEncoder().fit(["a", "b"]), LogisticRegression().fit(x, [0, 1] * 5)]
    values += [
        TfidfVectorizer().fit(["some text"]),
        sparse.csr_matrix(x),
        GradientBoostingClassifier().fit(x, [0, 1] * 5),
    ]
    joblib.dump(values, tmp_path / "scaler.joblib")
    (tmp_path / "scaler.pkl").write_bytes(pickle.dumps(values))
    assert rules(tmp_path / "scaler.joblib") == rules(tmp_path / "scaler.pkl") == ["pickle"]


@pytest.mark.keras
def test_what_pytorch_writes_is_known(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    torch.save(module.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(module, tmp_path / "module.pt", _use_new_zipfile_serialization=False)
    assert rules(tmp_path / "old.pt") == ["pickle"]
    assert rules(tmp_path / "module.pt") == ["pickle"]


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "posix.system",
        "builtins.eval",
        "builtins.getattr",
        "operator.attrgetter",
        "functools.partial",
        "numpy.load",
        "numpy.core.multiarray.scalar.__reduce__",
        "torch.storage._load_from_bytes",
        "torch.hub.load",
        "pip.main",
        "sklearn.datasets.load_files",
        "sklearn.externals.joblib.Memory",
        "joblib.numpy_pickle.NDArrayWrapper",
        "keras.preprocessing.text.Tokenizer.evil",
        "evil.keras.text.Tokenizer",
        "keras.src.saving.pickle_utils.deserialize_model_from_bytecode",
    ],
)
def test_what_is_not_known_to_be_harmless_is_not_known(name: str) -> None:
    assert not is_known(name)


def test_bytes_behind_the_last_pickle_are_told() -> None:
    found = facts(pickle.dumps(1) + pickle.dumps(2) + b"rest")
    assert found["trailing"]


# --- tokenizers


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_tokenizer_that_tensorflow_2_12_pickled_becomes_data(protocol: int) -> None:
    found = tokenizer_from_pickle(HERE / f"tokenizer_of_tensorflow_2_12.protocol_{protocol}.pkl")
    expected = Tokenizer.from_json((HERE / "tokenizer_of_tensorflow_2_12.json").read_bytes())
    tokenizer = Tokenizer.from_json(json.dumps(found))
    assert tokenizer.to_json() == expected.to_json()
    assert tokenizer.texts_to_sequences(["the cat was here"]) == [[2, 3, 1, 1]]


@pytest.mark.keras
@pytest.mark.parametrize("protocol", range(6))
def test_a_tokenizer_of_keras_3_becomes_data(protocol: int, tmp_path: Path) -> None:
    from keras.src.legacy.preprocessing.text import Tokenizer as Theirs

    theirs = Theirs(char_level=True, lower=False, num_words=9)
    theirs.fit_on_texts(["hello", "world"])
    (tmp_path / "tokenizer.pkl").write_bytes(gzip.compress(pickle.dumps(theirs, protocol)))
    assert rules(tmp_path / "tokenizer.pkl") == ["pickle"]
    found = tokenizer_from_pickle(tmp_path / "tokenizer.pkl")
    assert Tokenizer.from_json(json.dumps(found)).to_json() == Tokenizer.from_keras(theirs).to_json()


def test_a_pickle_of_something_else_is_no_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps({"word_index": {"a": 1}}))
    with pytest.raises(UsageError, match="holds no Keras Tokenizer"):
        tokenizer_from_pickle(path)


def test_a_tokenizer_that_calls_something_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"a": Touch(tmp_path)}))
    with pytest.raises(UnsafeContent, match=r"posix\.system"):
        tokenizer_from_pickle(path)
    assert not (tmp_path / "canary").exists()


def test_an_analyzer_is_code_and_is_refused(tmp_path: Path) -> None:
    whole = (HERE / "tokenizer_of_tensorflow_2_12.protocol_4.pkl").read_bytes()
    at = whole.index(short("analyzer"))
    end = whole.index(b"N", at)
    path = tmp_path / "analyzer.pkl"
    path.write_bytes(whole[:end] + b"ccollections\nOrderedDict\n" + whole[end + 1 :])
    with pytest.raises(UnsafeContent, match="analyzer, which is code"):
        tokenizer_from_pickle(path)


# --- what joblib and another program would read differently


def wrapper(size: int, alignment: int | None) -> bytes:
    """The opcodes of joblib's wrapper for an array of so many bytes."""
    state = {"subclass": None, "shape": (size,), "order": "C", "dtype": np.dtype("u1"), "allow_mmap": False}
    state |= {} if alignment is None else {"numpy_array_alignment_bytes": alignment}
    inner = pickle.dumps(state, 3)[2:-1]
    return b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81" + inner + b"b"


@pytest.mark.parametrize("before", [b"", b"N0" * 1000])
def test_an_array_whose_values_are_opcodes_is_seen_as_both(before: bytes) -> None:
    values = before + b"cposix\nsystem\n" + short("true") + b"\x85R."
    found = facts(opcodes(wrapper(len(values), None), values))
    assert "posix.system" in found["globals"]


def test_padding_that_is_opcodes_is_seen_as_both() -> None:
    values = b"(cposix\nsystem\n" + short("true") + b"\x85R.".ljust(60)
    assert "posix.system" in facts(opcodes(wrapper(8, 16), values))["globals"]


def test_values_that_stop_in_order_are_no_array() -> None:
    assert facts(opcodes(wrapper(3, None), b"0N."))["unresolved"] == ["an array whose values are opcodes, too"]
    assert facts(opcodes(wrapper(2 * MIB, None), b"N0" * MIB))["unresolved"]


@given(some.binary(min_size=1, max_size=200))
def test_honest_values_bring_no_names(values: bytes) -> None:
    found = facts(opcodes(wrapper(len(values), 16), b"\x03\xff\xff\xff" + values))
    assert list(found["globals"]) == ["joblib.numpy_pickle.NumpyArrayWrapper", "numpy.dtype"]
    assert found["broken"] is None


@pytest.mark.parametrize(
    ("parts", "called"),
    [
        (b"(ccollections\nOrderedDict\n]o", "collections.OrderedDict"),
        (b"ccollections\nOrderedDict\n)}\x92", "collections.OrderedDict"),
        (b"(NNicollections\nOrderedDict\n", "collections.OrderedDict"),
        (b"(K\x01K\x02\x91(1N200", None),
    ],
)
def test_the_rarer_opcodes_are_followed(parts: bytes, called: str | None) -> None:
    found = facts(opcodes(parts))
    assert found["globals"] == ({called: 1} if called else {})
    assert found["broken"] is None


@pytest.mark.parametrize("parts", [b"\x97", b"NP1\n", b"NQ", b"\x83\x01\x01", b"]Nb"])
def test_what_only_the_reading_program_knows_is_not_resolved(parts: bytes) -> None:
    found = facts(opcodes(parts))
    assert found["unresolved"] or found["persistent"]
