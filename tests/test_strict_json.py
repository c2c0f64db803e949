from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError, UnsafeContent, UsageError
from modelkeep.formats import strict_json
from modelkeep.formats.limits import DEFAULT, Limits


def read(data, limits=DEFAULT):
    return strict_json.read(data, what="config.json", limits=limits)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_plain_json_values_come_back_as_they_were(value):
    strict_json.check_plain(value)
    assert strict_json.parse(json.dumps(value), what="it", limit=10**6) == value


@pytest.mark.parametrize("value", [{1: "a"}, [b"x"], {"a": {"b": float("nan")}}, (object(),), [float("inf")]])
def test_values_that_json_would_change_are_refused_with_the_place(value):
    with pytest.raises(UsageError, match=r" at \$"):
        strict_json.check_plain(value)


def test_a_value_that_holds_itself_is_refused():
    value: list[Any] = []
    value.append(value)
    with pytest.raises(LimitExceeded, match="nested too deeply"):
        strict_json.check_plain(value)


@pytest.mark.parametrize("text", ["1e999", "NaN", "-Infinity", '{"a": 1, "a": 1}', "[1,]", '"\n"'])
def test_json_outside_the_standard_is_refused(text):
    with pytest.raises(UsageError, match="is not valid JSON"):
        strict_json.parse(text, what="it", limit=100)


# --- documents that others wrote

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES, st.booleans())
def test_what_python_writes_is_read_as_it_was(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    found, problems = read(text.encode())
    assert found == value
    assert {problem.rule for problem in problems} <= ({"json-not-finite"} if "Infinity" in text else set())


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"a": {"b": 1, "b": 2}}', "json-duplicate-key"),
        ("[1e999]", "json-number"),
        ("[36893488147419103232]", "json-number"),
        ("[" + "9" * 5000 + "]", "json-number"),
        ("[NaN]", "json-not-finite"),
        ("[-Infinity]", "json-not-finite"),
    ],
)
def test_what_readers_take_differently_is_read_and_reported(text, rule):
    _, problems = read(text.encode())
    assert [problem.rule for problem in problems] == [rule]


@pytest.mark.parametrize("data", [b"", b"[1,]", b"{", b"\xff\xfe", b'"\n"', b"\xef\xbb\xbf{}", b"]" * 500, b'["\\'])
def test_what_is_no_json_is_said_to_be_none(data):
    with pytest.raises(IntegrityError, match="not valid JSON"):
        read(data)


def test_text_with_half_a_character_is_refused_and_a_whole_one_is_not():
    assert read(b'"\\ud83d\\ude00"') == ("😀", ())
    with pytest.raises(UnsafeContent, match="half a character"):
        read(b'{"name": "\\ud83d"}')


@pytest.mark.parametrize(
    ("data", "limit"),
    [
        (b"[" * 101 + b"]" * 101, "json_depth"),
        (b"[" * 10**6, "json_depth"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "json_depth"),
        (b"[" + b"1," * 2_000_000 + b"1]", "json_nodes"),
        (b'"' + b"a" * 2**25 + b'"', "config"),
    ],
)
def test_a_document_beyond_a_limit_is_refused_by_the_limits_name(data, limit):
    with pytest.raises(LimitExceeded, match=limit):
        read(data)


def test_depth_is_counted_outside_texts_only():
    value = "[" * 500 + '"\\'
    assert read(json.dumps([value]).encode(), Limits(json_depth=1)) == ([value], ())


@pytest.mark.parametrize("unit", [b'\\"', b'"', b"[", b"[]", b"\\"])
def test_the_time_a_document_takes_grows_with_its_length_only(unit):
    started = time.process_time()
    with pytest.raises(ModelkeepError):
        read(b'["' + unit * (8 * 2**20 // len(unit)))
    assert time.process_time() - started < 10


@given(st.binary(max_size=60) | st.text('[]{}",:\\u019eEdD-.', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_in_our_own_words(data):
    with contextlib.suppress(ModelkeepError):
        read(data)
