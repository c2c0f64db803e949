from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import InvalidRef
from modelkeep.refs import (
    ByAlias,
    ByDigest,
    Exact,
    Newest,
    Ref,
    SemVer,
    Step,
    Within,
    alias_name,
    model_name,
    parse_digest,
    parse_ref,
    parse_version,
    run_name,
)

models = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,10}(/[a-z0-9]{1,8})?", fullmatch=True).filter(
    lambda name: not {"ledger", "snapshots", "entries", "progress"} & set(name.split("/"))
)
numbers = st.integers(0, 10**9)
selectors = st.one_of(
    st.just(Newest()),
    st.builds(Within, numbers),
    st.builds(Within, numbers, numbers),
    st.builds(Exact, st.builds(SemVer, numbers, numbers, numbers, st.sampled_from([None, "rc.1", "dev.20260501"]))),
    st.builds(ByAlias, st.from_regex(r"[a-z][a-z0-9._-]{0,10}", fullmatch=True)),
    st.builds(Step, numbers),
    st.builds(ByDigest, st.from_regex(r"blake3:[0-9a-f]{8,64}", fullmatch=True)),
)


@given(st.builds(Ref, models, selectors))
def test_a_printed_ref_parses_to_itself(ref):
    assert parse_ref(str(ref)) == ref


@given(st.text(max_size=40))
def test_any_other_text_is_refused_as_a_ref_and_nothing_else(text):
    with suppress(InvalidRef):
        parse_ref(text)


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("sentiment", Newest()),
        ("team/sentiment:1", Within(1)),
        ("sentiment:1.2", Within(1, 2)),
        ("sentiment:1.2.0-rc.1+b7", Exact(SemVer.parse("1.2.0-rc.1+b7"))),
        ("sentiment@production", ByAlias("production")),
        ("sentiment@blake3:9f2c41d0", ByDigest("blake3:9f2c41d0")),
        ("team/sentiment-run@1200", Step(1200)),
        ("sentiment-run@0", Step(0)),
    ],
)
def test_every_form_of_ref_selects_as_the_table_says(text, selector):
    assert parse_ref(text).selector == selector


@pytest.mark.parametrize(
    "text",
    ["", "a@01", "a@1_0", "a@-1", "a/entries@1", "a//b", "../a", "a/../b", "a/ledger", "a:v1", "a:1.2.3.4", "a:01",
     "a@", "a@1x", "a@blake3:9F2C", "a@blake3:9f", "a b", "a:", "-a", "a.", "x" * 201, "a@production:1", "é"],
)  # fmt: skip
def test_what_is_not_a_ref_is_refused(text):
    with pytest.raises(InvalidRef):
        parse_ref(text)


def test_a_version_with_a_leading_v_is_refused_with_the_way_out():
    with pytest.raises(InvalidRef, match="drop a leading 'v'"):
        parse_version("v1.0.0")


@pytest.mark.parametrize("ref", [None, 1, b"sentiment"])
def test_what_is_no_text_is_no_ref(ref):
    with pytest.raises(InvalidRef, match="expected text, such as"):
        parse_ref(ref)


def test_a_digest_must_be_whole():
    with pytest.raises(InvalidRef, match="64 hex digits"):
        parse_digest("blake3:9f2c")


@pytest.mark.parametrize("name", ["a/entries", "progress", "a/ledger", "a@b", "", 1])
def test_what_the_store_says_below_a_run_names_no_run(name):
    with pytest.raises(InvalidRef, match="not a run's name"):
        run_name(name)


def test_names_return_what_they_were_given():
    assert (model_name("team/sentiment"), alias_name("production")) == ("team/sentiment", "production")
    assert run_name("team/progress-run") == "team/progress-run"
