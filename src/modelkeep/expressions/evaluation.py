"""A tree judged over a resolver, which gives each name its value."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from modelkeep.errors import InvalidRef
from modelkeep.expressions.syntax import COMPARISONS, Binary, Constant, Name, Tree, Unary, quoted, show
from modelkeep.refs import SemVer, parse_version

Why = Literal["missing", "no-alias", "undefined", "mismatch"]
"""Why there is no answer: no such value · no such alias · not a finite number · kinds that do not go together."""


class Undecided(Exception):
    """Raised by a resolver for a name that has no value."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why
        self.message = message


class Unknown(msgspec.Struct, frozen=True):
    """The outcome of a condition that is neither true nor false, with every reason."""

    reasons: tuple[Undecided, ...]

    def __str__(self) -> str:
        return "; ".join(dict.fromkeys(reason.message for reason in self.reasons))

    def any(self, why: Why) -> bool:
        """Whether this is one of the reasons."""
        return why in {reason.why for reason in self.reasons}


Resolve = Callable[[Name], Any]
"""Gives a name its value: a JSON value, an aware datetime, or a SemVer. Raises Undecided."""


def evaluate(tree: Tree, resolve: Resolve) -> bool | Unknown:
    """Judge a condition. Raises nothing but what ``resolve`` raises beside Undecided."""
    match tree:
        case Binary("and" | "or" as sign, left, right):
            return _join(sign == "or", evaluate(left, resolve), evaluate(right, resolve))
        case Unary("not", operand):
            outcome = evaluate(operand, resolve)
            return outcome if isinstance(outcome, Unknown) else not outcome
    try:
        value = _value(tree, resolve)
        if not isinstance(value, bool):
            raise Undecided("mismatch", f"{show(tree)} is {kind(value)}, not a condition")
    except Undecided as reason:
        return Unknown((reason,))
    return value


def _join(decisive: bool, left: bool | Unknown, right: bool | Unknown) -> bool | Unknown:
    if decisive in (left, right):
        return decisive
    reasons = [reason for side in (left, right) if isinstance(side, Unknown) for reason in side.reasons]
    return Unknown(tuple(reasons)) if reasons else not decisive


def _value(tree: Tree, resolve: Resolve) -> Any:
    match tree:
        case Constant():
            return tree.worth()
        case Name():
            return _finite(tree, resolve(tree))
        case Unary("-", operand):
            return _negated(operand, _value(operand, resolve))
        case Binary(sign, left, right) if sign in COMPARISONS:
            return _compare(tree, *_values((left, right), resolve))
        case Binary(sign, left, right) if sign in _ARITHMETIC:
            return _calculate(tree, *_values((left, right), resolve))
    outcome = evaluate(tree, resolve)  # a condition in parentheses, compared with another
    if isinstance(outcome, Unknown):
        raise _gravest(outcome.reasons)
    return outcome


def _values(trees: tuple[Tree, Tree], resolve: Resolve) -> list[Any]:
    values, reasons = [], []
    for tree in trees:
        try:
            values.append(_value(tree, resolve))
        except Undecided as reason:
            reasons.append(reason)
    if reasons:
        raise _gravest(reasons)
    return values


def _gravest(reasons: Sequence[Undecided]) -> Undecided:
    # A gate forgives an alias that is not there, so that reason must not hide another.
    return min(reasons, key=lambda reason: reason.why == "no-alias")


def _finite(tree: Tree, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise Undecided("undefined", f"{show(tree)} is {value}")
    return value


def kind(value: Any) -> str:
    """What a value is, for people; what goes together depends on it."""
    for kinds, name in _KINDS:
        if isinstance(value, kinds):
            return name
    return f"of type {type(value).__qualname__}"


_KINDS: tuple[tuple[Any, str], ...] = (
    (bool, "a truth value"),
    ((int, float), "a number"),
    (str, "text"),
    (datetime, "a time"),
    (timedelta, "a span of time"),
    (SemVer, "a version"),
    ((list, tuple), "a list"),
    (Mapping, "a mapping"),
    (type(None), "null"),
)
_JSON = frozenset({"a truth value", "a number", "text", "a list", "a mapping", "null"})
_ORDERED = frozenset({"a number", "text", "a time", "a span of time", "a version"})
_ORDER = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_NUMBER, _TIME, _SPAN = "a number", "a time", "a span of time"
_CALCULABLE = frozenset(
    {(_NUMBER, sign, _NUMBER) for sign in "+-*/"}
    | {(_TIME, "-", _TIME), (_TIME, "+", _SPAN), (_TIME, "-", _SPAN), (_SPAN, "+", _TIME)}
    | {(_SPAN, "+", _SPAN), (_SPAN, "-", _SPAN), (_SPAN, "/", _SPAN)}
    | {(_SPAN, "*", _NUMBER), (_NUMBER, "*", _SPAN), (_SPAN, "/", _NUMBER)}
)


def _negated(operand: Tree, value: Any) -> Any:
    if kind(value) not in (_NUMBER, _SPAN):
        raise Undecided("mismatch", f"{show(operand)} is {kind(value)}, which has no negative")
    return _attempt(Unary("-", operand), operator.neg, value)


def _calculate(tree: Binary, left: Any, right: Any) -> Any:
    if (kind(left), tree.operator, kind(right)) not in _CALCULABLE:
        raise _mismatch(tree, left, right)
    return _attempt(tree, _ARITHMETIC[tree.operator], left, right)


def _attempt(tree: Tree, function: Callable[..., Any], *operands: Any) -> Any:
    try:
        return _finite(tree, function(*operands))
    except ZeroDivisionError:
        raise Undecided("undefined", f"{show(tree)} divides by zero") from None
    except OverflowError:
        raise Undecided("undefined", f"{show(tree)} is too large") from None


def _compare(tree: Binary, left: Any, right: Any) -> bool:
    if tree.operator == "in":
        return _contains(tree, left, right)
    left, right = _as_version(left, right), _as_version(right, left)
    kinds = {kind(left), kind(right)}
    # As in Python, JSON values of two kinds are unequal but have no order.
    if not (len(kinds) == 1 and kinds <= _ORDERED) and not (tree.operator in ("==", "!=") and kinds <= _JSON):
        raise _mismatch(tree, left, right)
    if len(kinds) > 1:
        return tree.operator == "!="
    return bool(_ORDER[tree.operator](left, right))


def _as_version(value: Any, other: Any) -> Any:
    if not (isinstance(value, str) and isinstance(other, SemVer)):
        return value
    try:
        return parse_version(value)
    except InvalidRef as error:
        raise Undecided("mismatch", f"{quoted(value)} is not a version such as 1.2.0") from error


def _contains(tree: Binary, item: Any, container: Any) -> bool:
    if isinstance(container, list | tuple):
        return any(kind(item) == kind(each) and item == each for each in container)
    if isinstance(container, str | Mapping) and isinstance(item, str):
        return item in container
    raise _mismatch(tree, item, container)


def _mismatch(tree: Binary, left: Any, right: Any) -> Undecided:
    return Undecided("mismatch", f"{show(tree.left)} is {kind(left)} and {show(tree.right)} is {kind(right)}")
