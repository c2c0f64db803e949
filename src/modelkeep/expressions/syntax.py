"""The tree of a condition, and the way from text to tree and back."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from modelkeep.errors import InvalidRef, UsageError
from modelkeep.refs import parse_ref

MAX_LENGTH = 2_000  # characters
MAX_NODES = 200  # names, literals and operators together
MAX_NESTING = 40  # parentheses, "not" and "-" within each other

UNITS: dict[str, int | timedelta] = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    **{
        span + plural: timedelta(**{span + "s": 1})
        for span in ("second", "minute", "hour", "day", "week")
        for plural in ("s", "")
    },
}
"""What may follow a number: bytes in decimal and binary multiples, and spans of time."""


# --- the tree


class Constant(msgspec.Struct, frozen=True):
    """A number (perhaps with a unit), text, truth value or time, as written."""

    value: float | str | bool | datetime
    unit: str | None = None

    def worth(self) -> Any:
        """The value in the unit's base: bytes, or a span of time. Raises OverflowError where it is too large."""
        return self.value if self.unit is None else self.value * UNITS[self.unit]  # type: ignore[operator]


class Name(msgspec.Struct, frozen=True):
    """A value to look up: ``path`` within the candidate, or within what ``version`` selects.

    ``version`` is the rest of a ref of the same model (``@production``, ``:1.0.0``) or a whole ref.
    """

    path: tuple[str, ...]
    version: str | None = None

    def __str__(self) -> str:
        return show(self)


class Unary(msgspec.Struct, frozen=True):
    """``-`` or ``not`` before its operand."""

    operator: str
    operand: Tree


class Binary(msgspec.Struct, frozen=True):
    """An operator of arithmetic, comparison or logic between its operands."""

    operator: str
    left: Tree
    right: Tree


Tree = Constant | Name | Unary | Binary

COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!=", "in"})
_COMPARISON, _NEGATION = 4, 7
_POWER = {"or": 1, "and": 2, "not": 3, **dict.fromkeys(COMPARISONS, _COMPARISON), "+": 5, "-": 5, "*": 6, "/": 6}
_TRUTH = {"true": True, "True": True, "false": False, "False": False}
_KEYWORDS = frozenset({"and", "or", "not", "in", *_TRUTH})


def names(tree: Tree) -> Iterator[Name]:
    """Every name in the tree, from left to right, as often as it occurs."""
    match tree:
        case Name():
            yield tree
        case Unary(_, operand):
            yield from names(operand)
        case Binary(_, left, right):
            yield from names(left)
            yield from names(right)


# --- from text to tree

_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ALIAS = r"@[A-Za-z][A-Za-z0-9_-]*"
_IDENTIFIER = r"[^\W\d]\w*"
_TOKEN = rf"""(?xs)
      (?P<time>   [0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} (?:T[0-9:.]+(?:Z|[+-][0-9]{{2}}:[0-9]{{2}})?)? (?!\w) )
    | (?P<number> (?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+) (?:[eE][+-]?[0-9]+)? )
    | (?P<text>   {_TEXT} )
    | (?P<name>   (?:{_ALIAS}\.|\[[^][\s'"]+]\.)? {_IDENTIFIER} (?:\.\w+|\[{_TEXT}])* )
    | (?P<symbol> <=|>=|==|!=|[-+*/()<>] )
    """
_NAME = rf"(?s)(?:({_ALIAS}|\[[^][\s'\"]+])\.)?({_IDENTIFIER}.*)"
_PATH_PART = rf"(?s)\[({_TEXT})]|\.?(\w+)"


@lru_cache(maxsize=256)
def parse(text: str) -> Tree:
    """The tree of a condition.

    Raises UsageError, pointing at the place, for anything that is not one, and for more than
    ``MAX_LENGTH`` characters, ``MAX_NODES`` nodes or ``MAX_NESTING`` levels.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError("an expression is too long", found=f"{len(text)} characters", expected=f"at most {MAX_LENGTH}")
    return _Parser(text).parse()


class _Token(msgspec.Struct, frozen=True):
    kind: str  # time, number, text, name, keyword, symbol, end
    text: str
    at: int


def _tokens(text: str) -> Iterator[_Token]:
    pattern = re.compile(_TOKEN)  # here, and once: compiling takes longer than everything else in this module
    at = _space_end(text, 0)
    while at < len(text):
        found = pattern.match(text, at)
        if not found:
            raise _fault(text, at, f"unexpected {text[at]!r}", _HINTS.get(text[at]))
        kind = "keyword" if found.group() in _KEYWORDS else str(found.lastgroup)
        yield _Token(kind, found.group(), at)
        at = _space_end(text, found.end())
    yield _Token("end", "", len(text))


def _space_end(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip())


_HINTS = {
    "@": "name a value of that version, such as @production.accuracy",
    "[": "name a value of that version, such as [1.0.0].accuracy",
    ".": "a version stands in brackets, such as [1.0.0].accuracy",
    "'": "the text has no closing quote",
    '"': "the text has no closing quote",
    "=": "compare with ==",
    "&": "write: and",
    "|": "write: or",
    "!": "write: not",
    "%": "write 0.85, not 85 %",
}


def _fault(text: str, at: int, what: str, hint: str | None = None) -> UsageError:
    start = max(0, at - 60)
    line = "".join(char if char.isprintable() else " " for char in text[start : at + 40])
    return UsageError(f"{what}, at column {at + 1}\n    {line}\n    {' ' * (at - start)}^", hint=hint)


class _Parser:
    """Precedence climbing over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._nodes = 0
        self._nesting = 0

    def parse(self) -> Tree:
        tree = self._expression(0)
        if self._peek().kind != "end":
            raise self._unexpected(self._peek())
        return self._must_be_condition(tree, 0)

    def _peek(self, ahead: int = 0) -> _Token:
        return self._tokens[min(self._next + ahead, len(self._tokens) - 1)]

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token

    def _unexpected(self, token: _Token) -> UsageError:
        what = f"unexpected {token.text[:40]!r}" if token.text else "a value is missing"
        return _fault(self._text, token.at, what)

    def _node(self, tree: Tree, token: _Token) -> Tree:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _fault(self._text, token.at, f"more than {MAX_NODES} names, values and operators")
        return tree

    def _condition(self, power: int) -> Tree:
        at = self._peek().at
        return self._must_be_condition(self._expression(power), at)

    def _must_be_condition(self, tree: Tree, at: int) -> Tree:
        match tree:
            case Constant(bool()) | Name() | Unary("not"):
                return tree
            case Binary(sign) if _POWER[sign] <= _COMPARISON:
                return tree
        raise _fault(self._text, at, "a value where a condition is expected", "compare it, as in: accuracy >= 0.85")

    def _expression(self, power: int) -> Tree:
        """The longest expression from here whose operators all bind at least as tightly as ``power``."""
        at = self._peek().at
        tree = self._operand(power)
        compared = False
        while (sign := self._infix()) and _POWER[sign] >= power:
            if sign in COMPARISONS and compared:
                raise _fault(self._text, self._peek().at, "a second comparison", "join two comparisons with 'and'")
            compared |= sign in COMPARISONS
            tree = self._binary(tree, at, sign)
        return tree

    def _infix(self) -> str | None:
        token = self._peek()
        if token.text == "not":
            return "in" if self._peek(1).text == "in" else None
        return token.text if token.text in _POWER else None

    def _binary(self, left: Tree, left_at: int, sign: str) -> Tree:
        token = self._take()
        if sign in ("and", "or"):
            self._must_be_condition(left, left_at)
            return self._node(Binary(sign, left, self._condition(_POWER[sign] + 1)), token)
        if token.text != "not":
            return self._node(Binary(sign, left, self._expression(_POWER[sign] + 1)), token)
        self._take()
        inside = self._node(Binary(sign, left, self._expression(_POWER[sign] + 1)), token)
        return self._node(Unary("not", inside), token)

    def _operand(self, power: int) -> Tree:
        token = self._take()
        match token.kind:
            case "name":
                return self._node(self._name(token), token)
            case "number":
                return self._node(self._number(token), token)
            case "text":
                return self._node(Constant(_unquoted(token.text)), token)
            case "time":
                return self._node(Constant(self._time(token)), token)
            case "keyword" if token.text in _TRUTH:
                return self._node(Constant(_TRUTH[token.text]), token)
        with self._nested(token):
            match token.text:
                case "(":
                    return self._closed(self._expression(0))
                case "-":
                    return self._node(Unary("-", self._expression(_NEGATION)), token)
                case "not" if power <= _POWER["not"]:
                    return self._node(Unary("not", self._condition(_POWER["not"])), token)
        raise self._unexpected(token)

    @contextmanager
    def _nested(self, token: _Token) -> Iterator[None]:
        if self._nesting == MAX_NESTING:
            raise _fault(self._text, token.at, f"nested more than {MAX_NESTING} deep")
        self._nesting += 1
        yield
        self._nesting -= 1

    def _closed(self, tree: Tree) -> Tree:
        token = self._take()
        if token.text != ")":
            raise _fault(self._text, token.at, "a closing parenthesis is missing")
        return tree

    def _number(self, token: _Token) -> Constant:
        value = float(token.text) if set(token.text) & set(".eE") else int(token.text)
        unit = self._take().text if self._peek().kind == "name" else None
        if unit is not None and unit not in UNITS:
            raise _fault(self._text, token.at, f"{unit[:40]!r} is not a unit", f"the units are {', '.join(UNITS)}")
        constant = Constant(value, unit)
        try:
            if not math.isfinite(value):
                raise OverflowError
            constant.worth()
        except OverflowError:
            raise _fault(self._text, token.at, "a number too large") from None
        return constant

    def _time(self, token: _Token) -> datetime:
        try:
            return utc(token.text)
        except (ValueError, OverflowError):
            raise _fault(
                self._text, token.at, "not a date or time", "write 2026-05-01 or 2026-05-01T12:00:00Z"
            ) from None

    def _name(self, token: _Token) -> Name:
        [(version, path)] = re.findall(_NAME, token.text)
        parts = tuple(word or _unquoted(text) for text, word in re.findall(_PATH_PART, path))
        return Name(parts, self._selector(version, token) if version else None)

    def _selector(self, text: str, token: _Token) -> str:
        inner = text.strip("[]")
        selector = f":{inner}" if inner[0] in "0123456789" else inner
        try:
            parse_ref(f"model{selector}" if selector[0] in ":@" else selector)
        except InvalidRef as error:
            raise _fault(self._text, token.at, f"{text[:80]!r} does not select a version ({error.what})") from error
        return selector


def utc(text: str) -> datetime:
    """A date (its begin) or time in ISO 8601, in UTC unless it says otherwise. Raises ValueError, OverflowError."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


# --- from tree to text


def show(tree: Tree) -> str:
    """The text of a tree, with the fewest parentheses; parses to the same tree."""
    return _show(tree, 0)


def _show(tree: Tree, power: int) -> str:
    match tree:
        case Constant(value, unit):
            return _show_constant(value) + (f" {unit}" if unit else "")
        case Name((first, *rest), version):
            return _show_version(version) + first + "".join(map(_show_part, rest))
        case Unary("not", operand):
            own, text = _POWER["not"], f"not {_show(operand, _POWER['not'])}"
        case Unary(_, operand):
            own, text = _NEGATION, f"-{_show(operand, _NEGATION)}"
        case Binary(sign, left, right):
            own = _POWER[sign]
            # A comparison takes no other beside it, so both its sides bind tighter.
            text = f"{_show(left, own + (sign in COMPARISONS))} {sign} {_show(right, own + 1)}"
    return f"({text})" if own < power else text


def _show_constant(value: float | str | bool | datetime) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z").replace("T00:00:00Z", "")
    return repr(value)


def _show_version(selector: str | None) -> str:
    if selector is None:
        return ""
    return f"{selector}." if re.fullmatch(_ALIAS, selector) else f"[{selector.removeprefix(':')}]."


def _show_part(part: str) -> str:
    return f".{part}" if re.fullmatch(r"\w+", part) else f"[{quoted(part)}]"


def quoted(text: str) -> str:
    """A text as it stands in an expression."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
