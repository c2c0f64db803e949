from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.catalog import VersionRecord
from modelkeep.entry import Publish
from modelkeep.errors import UsageError
from modelkeep.expressions import (
    MAX_LENGTH,
    MAX_NESTING,
    MAX_NODES,
    UNITS,
    Binary,
    Constant,
    Name,
    Unary,
    Undecided,
    Unknown,
    evaluate,
    find,
    match,
    names,
    parse,
    resolver,
    select,
    show,
    values_of,
)
from modelkeep.manifest import Manifest
from modelkeep.version import Version

RECORD = {
    "model": "sentiment",
    "version": "1.10.0",
    "created": "2026-05-01T12:00:00Z",
    "size": 5_400_000,
    "parameters": 320_000,
    "tags": ["nightly", "lstm"],
    "metrics": {"accuracy": 0.92, "val_loss": 0.21, "per_class.f1": 0.9, "top": {"five": 0.99}, "top-1 error": 0.08},
    "metadata": {"dataset": "IMDB Reviews", "layers": 3, "approved": True, "note": None, "size": "small"},
}

# --- trees as hypothesis makes them

words = st.from_regex(r"[^\W\d]\w{0,8}", fullmatch=True).filter(
    lambda word: word not in {"and", "or", "not", "in", "true", "false", "True", "False"}
)
numbers = st.integers(0, 2**63) | st.floats(0, allow_nan=False, allow_infinity=False)
times = st.datetimes(min_value=datetime(1000, 1, 2), timezones=st.just(UTC))
versions = st.none() | st.sampled_from(["@production", ":1.0.0", ":2", "@rel.1", "team/other:1.2.3", "other@prod"])
values = st.one_of(
    st.builds(Constant, numbers | st.text(max_size=8) | times),
    st.builds(Constant, st.integers(0, 10**6) | st.floats(0, 1e3), st.sampled_from(sorted(UNITS))),
    st.builds(
        lambda first, rest, version: Name((first, *rest), version), words, st.lists(st.text(), max_size=2), versions
    ),
)
sums = st.recursive(
    values,
    lambda inner: st.builds(Unary, st.just("-"), inner) | st.builds(Binary, st.sampled_from("+-*/"), inner, inner),
    max_leaves=6,
)
comparisons = st.builds(Binary, st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "in"]), sums, sums)
conditions = st.recursive(
    comparisons | st.builds(Constant, st.booleans()),
    lambda inner: (
        st.builds(Unary, st.just("not"), inner) | st.builds(Binary, st.sampled_from(["and", "or", "=="]), inner, inner)
    ),
    max_leaves=6,
)


@given(conditions)
def test_a_tree_prints_to_a_text_that_parses_to_the_same_tree(tree):
    assert parse(show(tree)) == tree


@given(
    st.text() | st.text("abc.@[]()'\"\\ 0123456789-:<>=!+*/TZ ", max_size=60) | conditions.map(lambda t: show(t)[1:])
)
def test_any_text_parses_and_is_judged_or_is_a_usage_error(text):
    try:
        assert isinstance(match(text, RECORD), bool)
    except UsageError as error:
        str(error).encode()  # a lone surrogate in the text must not break printing the error


arithmetic = st.recursive(
    (st.integers(0, 10**20) | st.floats(0, 1e300)).map(repr),
    lambda inner: st.one_of(
        inner.map("({})".format),
        inner.map("-{}".format),
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*/"), inner),
    ),
    max_leaves=10,
)


@given(arithmetic)
def test_arithmetic_is_pythons_own_precedence_included(text):
    try:
        expected = eval(text)  # noqa: S307 - digits, operators and parentheses only
    except (ZeroDivisionError, OverflowError):
        expected = math.nan
    outcome = evaluate(parse(f"{text} == answer"), lambda name: expected)
    assert outcome is True if math.isfinite(expected) else isinstance(outcome, Unknown)


@pytest.mark.parametrize(
    "text",
    [
        "accuracy >= 0.85",
        "accuracy > 0.9 and size <= 50 MB",
        "size < 5.2 MiB and size > 5 MB and size == 5400 kB",
        "params < 1e7 and parameters == 320_000".replace("_", ""),
        "val_loss * 2 < 1 - accuracy + 0.5",
        "metrics.accuracy == accuracy",
        "per_class.f1 > 0.8 and top.five > 0.9",
        'metrics["top-1 error"] < 0.1',
        "metadata.dataset == 'IMDB Reviews'",
        '"IMDB" in metadata.dataset and "dataset" in metadata',
        '"nightly" in tags and "gru" not in tags and not "x" in tags',
        "created >= 2026-05-01 and created < 2026-05-01T12:00:01Z",
        "time == 2026-05-01T14:00:00+02:00",
        "now - created > 1 day or created > now - 7 days",
        "(now - created) / 2 > 0 seconds or true",
        "version > '1.9.0' and version < '2.0.0-rc.1'",
        "model == 'sentiment'",
        "metadata.approved",
        "metadata.approved == true and (accuracy > 0.9) == True",
        "metadata.layers != '3'",
        "metadata.size == 'small' and size > 1",
        "missing > 1 or accuracy > 0.9",
        "-val_loss < 0 and --val_loss > 0",
    ],
)
def test_it_is_true_of_the_record(text):
    assert match(text, RECORD)


@pytest.mark.parametrize(
    "text",
    [
        "accuracy > 0.95",
        "missing > 1",
        "not missing > 1",
        "missing > 1 and accuracy > 0.9",
        "metadata.note == 'x'",
        "false",
    ],
)
def test_it_is_not_true_of_the_record_and_a_missing_name_never_matches(text):
    assert not match(text, RECORD)


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("accuracy > > 3", 12, "unexpected '>'"),
        ("0 < accuracy < 1", 14, "join two comparisons with 'and'"),
        ("accuracy", None, "accuracy is a number, not a condition"),
        ("accuracy + 1", 1, "a value where a condition is expected"),
        ("accuracy > 1 and 3", 18, "a value where a condition is expected"),
        ("accuracy = 0.9", 10, "compare with =="),
        ("accuracy >= 85 %", 16, "write 0.85, not 85 %"),
        ("accuracy > 0.9 && size < 1", 16, "write: and"),
        ("size < 5 parsecs", 8, "the units are B, kB"),
        ("model == 'sentiment", 10, "no closing quote"),
        ("(accuracy > 1", 14, "closing parenthesis"),
        ("accuracy >", 11, "a value is missing"),
        ("", 1, "a value is missing"),
        ("1.0.0.accuracy > 1", 6, "such as [1.0.0].accuracy"),
        ("@production > 1", 1, "such as @production.accuracy"),
        ("accuracy > [1.0.0]", 12, "such as [1.0.0].accuracy"),
        ("accuracy > [1.0.0.0].accuracy", 12, "not a semantic version"),
        ("created > 2026-13-01", 11, "write 2026-05-01"),
        ("created > 9999-12-31T23:59:59-01:00", 11, "not a date or time"),
        ("size > 1e999", 8, "a number too large"),
        ("created > now - 9e9 weeks", 17, "a number too large"),
        ("a > not b", 5, "unexpected 'not'"),
    ],
)
def test_an_error_points_at_the_column(text, where, says):
    with pytest.raises(UsageError) as caught:
        match(text, RECORD)
    message = str(caught.value)
    assert says in message
    if where is not None:
        _, line, caret, *_ = message.splitlines()
        assert (line.strip() or "^", caret.index("^") - 3) == (text.strip() or "^", where)


def test_length_size_and_depth_are_limited():
    deepest = "(" * MAX_NESTING + "true" + ")" * MAX_NESTING
    assert match(deepest, {})
    longest = " or ".join(["true"] * (MAX_NODES // 2))
    assert match(longest, {})
    for text in (f"({deepest})", f"{longest} or true", "not " * 41 + "true", "a" * (MAX_LENGTH + 1)):
        with pytest.raises(UsageError):
            parse(text)


@pytest.mark.parametrize(
    "kind", ["accuracy > 'high'", "tags > 3", "created > 5", "model + 1 == 2", "version > 'one'", "3 in size"]
)
def test_kinds_that_do_not_go_together_are_an_error_that_names_both(kind):
    with pytest.raises(UsageError, match=r"cannot be judged: .* is "):
        match(kind, RECORD)


def test_search_passes_over_records_of_another_kind_unless_none_fits():
    records = [{"metadata": {"layers": 3}}, {"metadata": {"layers": "many"}}, {}]
    assert select("metadata.layers >= 3", records, lambda record: record) == records[:1]
    with pytest.raises(UsageError, match=r"metadata.layers is text and 3 is a number"):
        select("metadata.layers >= 3", records[1:], lambda record: record)


def test_search_cannot_name_another_version():
    with pytest.raises(UsageError, match="only a gate can"):
        match("accuracy > @production.accuracy", RECORD)


@given(st.lists(st.sampled_from([True, False, None]), min_size=2, max_size=2), st.sampled_from(["and", "or"]))
def test_logic_is_kleenes(operands, sign):
    known = {f"p{i}": value for i, value in enumerate(operands) if value is not None}
    outcome = evaluate(parse(f"p0 {sign} p1"), resolver(known))
    possible = {
        (all if sign == "and" else any)([a, b])
        for a in ([True, False] if operands[0] is None else operands[:1])
        for b in ([True, False] if operands[1] is None else operands[1:])
    }
    assert isinstance(outcome, Unknown) if len(possible) == 2 else {outcome} == possible


def test_a_missing_metric_says_what_there_is():
    with pytest.raises(
        Undecided, match=r"no metric acuracy; found: accuracy, val_loss, per_class.f1, top, top-1 error"
    ):
        find(RECORD, ("acuracy",))
    with pytest.raises(Undecided, match=r"no metric dataset; found: .*; metadata.dataset is there"):
        find(RECORD, ("dataset",))
    with pytest.raises(Undecided, match=r"no metadata epochs; found: dataset"):
        find(RECORD, ("metadata", "epochs"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x > 1", "missing"),
        ("nan > 1", "undefined"),
        ("inf > 1", "undefined"),
        ("accuracy / 0 > 1", "undefined"),
        ("1e308 * 10 > 1", "undefined"),
        ("created + 9e7 weeks > now", "undefined"),
        ("accuracy > 'x'", "mismatch"),
        ("@staging.accuracy < 1", "no-alias"),
        ("@staging.accuracy < x", "missing"),
        ("[9.0.0].accuracy < 1", "missing"),
        ("@production.x < 1", "missing"),
        ("(x > 1) == true", "missing"),
        ("(@staging.accuracy > 1 and x > 1) == true", "missing"),
        ("-model == 1", "mismatch"),
        ("odd > 1", "mismatch"),
    ],
)
def test_an_undecided_condition_says_why(text, why):
    candidate = {**RECORD, "metrics": {"accuracy": 0.9, "nan": math.nan, "inf": math.inf, "odd": {1}}}
    outcome = evaluate(parse(text), resolver(candidate, {"@production": RECORD}.get))
    assert isinstance(outcome, Unknown)
    assert [reason.why for reason in outcome.reasons] == [why]


def test_a_manifest_and_a_version_give_the_same_values():
    manifest = Manifest(
        model="m", version="1.2.0", created="2026-05-01T00:00:00Z", writer="", tags=("a",), parameters=7
    )
    published = Publish.of(manifest, "blake3:", new_bytes=0)
    record = VersionRecord(seq=1, created=manifest.created, actor="me", **msgspec.structs.asdict(published))
    version = Version.of("m", record, lambda: manifest)
    for described in (manifest, version):
        assert match(
            "version == '1.2.0' and created == 2026-05-01 and params == 7 and 'a' in tags", values_of(described)
        )


def test_names_are_listed_with_the_version_they_belong_to():
    found = list(names(parse("accuracy > @production.accuracy - [1.0.0].top.five and not [team/x@prod].y < 1")))
    assert [str(name) for name in found] == ["accuracy", "@production.accuracy", "[1.0.0].top.five", "[team/x@prod].y"]
    assert [name.version for name in found] == [None, "@production", ":1.0.0", "team/x@prod"]


def test_created_is_read_in_any_time_zone_and_garbage_is_no_match():
    assert match("created == 2026-05-01", {"created": "2026-05-01T02:00:00+02:00"})
    assert match("now - created < 1 minute", {"created": (datetime.now(UTC) - timedelta(seconds=1)).isoformat()})
    assert not select("created > 2026-05-01", [{"created": "yesterday"}, {"created": "2026-04-01"}], dict)


def test_importing_the_language_costs_nothing_heavy():
    script = "import sys, modelkeep.expressions as e; e.parse('a > 1'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"lark", "numpy", "keras", "rich", "hypothesis"} & set(loaded)


GUIDE = Path(__file__).parent.parent / "docs" / "guide" / "expressions.md"


GUIDE_RECORD = {
    **RECORD,
    "metrics": {"accuracy": 0.92, "val_loss": 0.2, "per_class.f1": 0.9, "top-5 accuracy": 0.99},
    "metadata": {"dataset": "IMDB Reviews", "learning rate": 1e-3, "epochs": 5, "draft": False},
}


def guide_examples() -> list[str]:
    blocks = GUIDE.read_text().split("```expressions\n")[1:]
    return [
        line.split("  #")[0].strip() for block in blocks for line in block.split("```")[0].splitlines() if line.strip()
    ]


@pytest.mark.parametrize("text", guide_examples())
def test_every_example_of_the_guide_is_decided(text):
    versions = dict.fromkeys(["@production", "@parent", ":1.0.0", ":1", "@release.1", "baseline:2.0.0"], RECORD)
    outcome = evaluate(parse(text), resolver(GUIDE_RECORD, versions.get))
    assert isinstance(outcome, bool), str(outcome)
