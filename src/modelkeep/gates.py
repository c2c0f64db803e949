"""Gates: the conditions a version must meet to be saved or promoted.

A gate is a text in the language of :mod:`modelkeep.expressions`, or a function that takes the
loaded model and answers True or False. Every gate is judged, so that a refusal names all of them.

A gate that compares with an alias that is not there (``@production`` before the first promotion)
has nothing to compare with: it passes, with a note. A version that is not there, and a value that
is missing, not finite or of the wrong kind, refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelkeep.errors import GateRefused, UsageError
from modelkeep.expressions import Name, Resolve, Unknown, evaluate, parse, resolver
from modelkeep.manifest import GateResult
from modelkeep.report import Finding, Report, Severity, plain
from modelkeep.sizes import human_bytes

Values = Mapping[str, Any]
"""What is known of one version; see :func:`modelkeep.expressions.find`."""

Gate = str | Callable[[Any], Any]


def check(gates: Sequence[Gate]) -> None:
    """Raise UsageError where a gate is neither a function nor a text that parses."""
    if isinstance(gates, str):
        raise UsageError("gates are a list", found=repr(gates[:80]), hint=f"write gates=[{gates[:80]!r}]")
    for gate in gates:
        if isinstance(gate, str):
            parse(gate)
        elif not callable(gate):
            raise UsageError(
                "not a gate", found=repr(gate), expected="an expression, or a function of the loaded model"
            )


def judge(
    title: str,
    gates: Sequence[Gate],
    candidate: Values,
    *,
    versions: Callable[[str], Values | None],
    load: Callable[[], Any],
) -> Report:
    """Judge every gate; ``raise_for_failures`` of the report raises GateRefused.

    ``versions`` gives the values of another version by what a gate calls it: ``@alias``, ``:1.0.0``
    or a whole ref, and ``@parent`` for the version it came from; None where there is none. ``load``
    gives the loaded model; it is called once, and only when a gate is a function.

    Each finding's subject is the gate; its ``details`` hold ``values``, the numbers it saw, by name.
    Raises UsageError as :func:`check` does, and what ``load`` raises.
    """
    check(gates)
    resolve = resolver(candidate, versions)
    loaded: list[Any] = []
    findings = []
    for gate in gates:
        if isinstance(gate, str):
            findings.append(_judge_text(gate, resolve))
        else:
            loaded = loaded or [load()]
            findings.append(_judge_function(gate, loaded[0]))
    return Report(title, tuple(findings), GateRefused)


def results(report: Report) -> tuple[GateResult, ...]:
    """The judged gates as a manifest keeps them."""
    return tuple(
        GateResult(
            gate=finding.subject, passed=finding.severity is not Severity.FAILURE, values=finding.details["values"]
        )
        for finding in report
    )


def _judge_text(gate: str, resolve: Resolve) -> Finding:
    seen: dict[str, Any] = {}

    def watched(name: Name) -> Any:
        seen[str(name)] = value = resolve(name)
        return value

    outcome = evaluate(parse(gate), watched)
    return _finding(gate, *_verdict(outcome, seen), seen)


def _verdict(outcome: bool | Unknown, seen: Values) -> tuple[Severity, str]:
    if not isinstance(outcome, Unknown):
        numbers = ", ".join(f"{name} is {_readable(name, value)}" for name, value in seen.items())
        return Severity.OK if outcome else Severity.FAILURE, numbers or "compares constants"
    if {reason.why for reason in outcome.reasons} == {"no-alias"}:
        return Severity.NOTE, f"{outcome}: nothing to compare with yet"
    return Severity.FAILURE, str(outcome)


def _judge_function(gate: Callable[[Any], Any], loaded: Any) -> Finding:
    name = getattr(gate, "__qualname__", type(gate).__qualname__)
    try:
        answer = gate(loaded)
    except Exception as error:  # noqa: BLE001 - whatever a gate raises is its refusal
        return _finding(name, Severity.FAILURE, f"raised {type(error).__name__}: {error}")
    if type(answer).__name__ not in ("bool", "bool_"):  # numpy's own truth values among them
        return _finding(name, Severity.FAILURE, f"returned {answer!r:.200}, expected True or False")
    return _finding(name, Severity.OK if answer else Severity.FAILURE, f"returned {bool(answer)}")


def _finding(gate: str, severity: Severity, message: str, seen: Mapping[str, Any] = {}) -> Finding:
    return Finding("gate", severity, message, gate, {"values": plain(seen)})


def _readable(name: str, value: Any) -> str:
    if name.rpartition(".")[2] == "size" and isinstance(value, int):
        return human_bytes(value)
    return f"{value:.6g}" if isinstance(value, float) else f"{plain(value)}"
