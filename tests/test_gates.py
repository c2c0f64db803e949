from __future__ import annotations

import functools
import math

import pytest

from modelkeep.errors import GateRefused, UsageError
from modelkeep.gates import check, judge, results
from modelkeep.manifest import GateResult, Manifest, canonical_json
from modelkeep.report import Severity

CANDIDATE = {
    "model": "sentiment",
    "version": "1.1.0",
    "size": 61_000_000,
    "parameters": 320_000,
    "tags": ("lstm",),
    "metrics": {"accuracy": 0.78, "loss": 0.4, "auc": math.nan},
    "metadata": {},
}
PRODUCTION = {**CANDIDATE, "version": "1.0.0", "size": 50_000_000, "metrics": {"accuracy": 0.82}}


VERSIONS = {"@production": PRODUCTION}


def judged(*gates, versions=VERSIONS, load=lambda: "the model"):
    return judge("sentiment:1.1.0", gates, CANDIDATE, versions=versions.get, load=load)


def test_a_gate_that_holds_says_what_it_compared():
    [finding] = judged("accuracy >= @production.accuracy - 0.05")
    assert finding.severity is Severity.OK
    assert finding.subject == "accuracy >= @production.accuracy - 0.05"
    assert finding.message == "accuracy is 0.78, @production.accuracy is 0.82"
    assert finding.details == {"values": {"accuracy": 0.78, "@production.accuracy": 0.82}}


def test_a_refusal_names_every_gate_that_was_missed_with_its_numbers():
    report = judged("accuracy >= 0.85", "loss < 0.5", "size <= 50 MB")
    with pytest.raises(GateRefused) as caught:
        report.raise_for_failures()
    assert caught.value.report is report
    assert str(caught.value).splitlines() == [
        "sentiment:1.1.0: 2 failed",
        "  - accuracy >= 0.85: accuracy is 0.78",
        "  - size <= 50 MB: size is 61.0 MB",
    ]


def test_the_first_version_passes_a_gate_against_an_alias_that_is_not_there_yet():
    report = judged("accuracy >= @production.accuracy", "accuracy > @parent.accuracy and loss < 1", versions={})
    report.raise_for_failures()
    assert [finding.severity for finding in report] == [Severity.NOTE, Severity.NOTE]
    assert report.findings[0].message == "there is no @production: nothing to compare with yet"


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ("acuracy >= 0.5", "no metric acuracy; found: accuracy, loss, auc"),
        ("auc > 0.5", "auc is nan"),
        ("not auc > 0.5", "auc is nan"),
        ("accuracy / 0 > 1", "accuracy / 0 divides by zero"),
        ("accuracy > 'high'", 'accuracy is a number and "high" is text'),
        ("accuracy", "accuracy is a number, not a condition"),
        ("accuracy > @production.auc", "@production has no metric auc; found: accuracy"),
        ("accuracy > [0.9.0].accuracy", "there is no :0.9.0"),
        ("@staging.accuracy < acuracy", "no metric acuracy; found: accuracy, loss, auc"),
        ("accuracy > 0.9 and accuracy > @staging.accuracy", "accuracy is 0.78"),
    ],
)
def test_what_cannot_be_judged_refuses_and_says_why(gate, says):
    [finding] = judged(gate)
    assert finding.severity is Severity.FAILURE
    assert finding.message == says


def test_a_text_that_is_no_gate_is_an_error_before_anything_is_judged():
    def load():
        raise AssertionError("loaded")

    for gates in (["accuracy >"], [len, "accuracy >"], [3]):
        with pytest.raises(UsageError):
            judge("sentiment", gates, CANDIDATE, versions={}.get, load=load)
    with pytest.raises(UsageError, match=r"write gates=\['accuracy > 1'\]"):
        check("accuracy > 1")


def test_functions_get_the_loaded_model_which_is_loaded_once():
    loads, seen = [], []

    def remembers(model):
        seen.append(model)
        return True

    report = judged(remembers, remembers, load=lambda: loads.append(1) or "the model")
    assert report.ok
    assert (loads, seen) == ([1], ["the model", "the model"])
    assert report.findings[0].subject.endswith("<locals>.remembers")


def test_without_a_function_nothing_is_loaded():
    assert judged("loss < 1", load=None).ok


def test_a_function_refuses_by_false_by_raising_and_by_answering_neither():
    class Strict:
        def __call__(self, model):
            raise ValueError("outputs drift")

    report = judged(Strict(), functools.partial(divmod, 1), lambda model: None, lambda model: 0.83, lambda model: False)
    assert [finding.message for finding in report.failures] == [
        "raised ValueError: outputs drift",
        "raised TypeError: unsupported operand type(s) for divmod(): 'int' and 'str'",
        "returned None, expected True or False",
        "returned 0.83, expected True or False",
        "returned False",
    ]


def test_a_numpy_truth_value_is_an_answer():
    numpy = pytest.importorskip("numpy")
    assert judged(lambda model: numpy.float32(0.9) > 0.8).ok


def test_results_are_what_a_manifest_keeps_even_of_values_without_a_json_form():
    report = judged("accuracy >= 0.5", "auc > 0.5", "version > '1.0.0'")
    assert results(report) == (
        GateResult(gate="accuracy >= 0.5", passed=True, values={"accuracy": 0.78}),
        GateResult(gate="auc > 0.5", passed=False, values={"auc": "nan"}),
        GateResult(gate="version > '1.0.0'", passed=True, values={"version": "1.1.0"}),
    )
    assert canonical_json(Manifest(model="m", version="1.0.0", created="", writer="", gates=results(report)))
