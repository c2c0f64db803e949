from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError, NotFaithful
from modelkeep.report import Change, Diff, Finding, Report, Section, Severity

FINE = Finding("ledger-chain", Severity.OK, "42 entries")
DIFFERENT = Finding("environment", Severity.WARNING, "saved with 3.15.1, here 3.12.0", "keras")
DAMAGED = Finding("tensor-digest", Severity.FAILURE, "found blake3:aa\nexpected blake3:bb", "weights/dense/kernel")
REPORT = Report("sentiment:1.0.0", (FINE, DIFFERENT, DAMAGED))
DIFF = Diff(
    "sentiment:1.0.0",
    "sentiment:1.1.0",
    (
        Section("metrics", (Change("changed", "accuracy", 0.78, 0.8200001, "+0.04"), Change("added", "f1", new=0.8))),
        Section("assets"),
        Section("weights", (Change("changed", "dense/kernel", remark="relative L2 0.03"),), same=14),
    ),
)
hostile = st.text() | st.sampled_from(["<script>alert(1)</script>", "\x1b[2J", "a\nb", "\udc80", '"><img onerror=x>'])


def test_a_report_prints_aligned_with_the_worst_first():
    assert str(REPORT).splitlines() == [
        "sentiment:1.0.0: 1 failure, 1 warning, 1 ok",
        "✗ tensor-digest  weights/dense/kernel  found blake3:aa",
        "                                       expected blake3:bb",
        "! environment    keras                 saved with 3.15.1, here 3.12.0",
        "✓ ledger-chain                         42 entries",
    ]


def test_a_report_without_subjects_has_no_empty_column_and_an_empty_one_says_so():
    assert str(Report("s", (FINE,))).splitlines() == ["s: 1 ok", "✓ ledger-chain  42 entries"]
    assert str(Report("s")) == "s: nothing to say"


def test_one_failure_makes_a_report_fail_and_warnings_do_not():
    assert Report("s", (FINE, DIFFERENT)).ok
    Report("s", (FINE, DIFFERENT)).raise_for_failures()
    assert not REPORT.ok
    assert REPORT.failures == (DAMAGED,)
    assert REPORT.warnings == (DIFFERENT,)


def test_raising_names_every_failure_and_carries_the_report():
    with pytest.raises(NotFaithful) as caught:
        Report("s", REPORT.findings, NotFaithful).raise_for_failures()
    assert str(caught.value).splitlines() == [
        "s: 1 failed",
        "  - weights/dense/kernel: found blake3:aa",
        "    expected blake3:bb",
    ]
    assert caught.value.report.title == "s"
    assert IntegrityError("x").report is None


def test_findings_are_added_without_changing_the_report():
    assert Report("s", (FINE,)).extended([DAMAGED]).findings == (FINE, DAMAGED)


def test_a_report_is_json_whatever_its_details_are():
    odd = Finding("x", Severity.NOTE, "m", details={"nan": math.nan, "type": int, "nested": {"t": (1, {2})}, 3: None})
    value = json.loads(json.dumps(Report("s", (odd,)).to_json(), allow_nan=False))
    assert value["ok"] is True
    assert value["findings"][0]["details"] == {
        "nan": "nan",
        "type": "<class 'int'>",
        "nested": {"t": [1, [2]]},
        "3": None,
    }


def test_a_diff_prints_the_sections_that_changed():
    assert str(DIFF).splitlines() == [
        "sentiment:1.0.0 → sentiment:1.1.0",
        "",
        "metrics",
        "  ~ accuracy  0.78 → 0.82  +0.04",
        "  + f1        0.8",
        "",
        "weights",
        "  ~ dense/kernel  relative L2 0.03",
        "    14 the same",
    ]


def test_a_diff_is_true_when_something_differs_and_finds_sections_by_name():
    assert DIFF
    assert [change.subject for change in DIFF["metrics"]] == ["accuracy", "f1"]
    assert not DIFF["assets"]
    assert not DIFF["never compared"]
    assert not Diff("a", "b", (Section("weights", same=3),))
    assert str(Diff("a", "b")) == "a → b: no difference"


def test_a_diff_is_json():
    value = json.loads(json.dumps(DIFF.to_json()))
    assert value["sections"]["metrics"]["changes"][1] == {
        "kind": "added", "subject": "f1", "old": None, "new": 0.8, "remark": "",
    }  # fmt: skip
    assert value["sections"]["weights"]["same"] == 14


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (None, True, "none → true"),
        ([1, 0.1234567], {"a": "b"}, "[1, 0.123457] → {a: b}"),
        ("x" * 300, "y", f"{'x' * 199}… → y"),
    ],
)
def test_values_are_shown_short(old, new, text):
    assert str(Change("changed", "s", old, new)) == text


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add((tag, *attrs))


@given(hostile, hostile, hostile)
def test_no_name_brings_markup_or_terminal_commands_along(title, subject, message):
    report = Report(title, (Finding(message, Severity.FAILURE, message, subject),))
    diff = Diff(title, title, (Section(title, (Change("changed", subject, message, {message: [message]}, message),)),))
    for shown in (report, diff):
        tags = Tags()
        tags.feed(shown._repr_html_())
        allowed = {"div", "strong", "table", "tr", "h4", ("td", ("style", "text-align:left;white-space:pre-wrap"))}
        assert {tag[0] if len(tag) == 1 else tag for tag in tags.seen} <= allowed
        assert all(char.isprintable() or char == "\n" for char in str(shown))
        str(shown).encode()
    with pytest.raises(IntegrityError) as caught:
        report.raise_for_failures()
    assert all(char.isprintable() or char == "\n" for char in str(caught.value))
