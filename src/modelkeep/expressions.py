"""The language of gates and search: one condition over what is known of a version.

::

    accuracy >= 0.85 and size <= 50 MB
    accuracy >= @production.accuracy - 0.01
    "nightly" in tags and created > now - 7 days

A text is parsed to a small tree and judged over a resolver, which gives each name its value.
Nothing is executed. The guide (``docs/guide/expressions.md``) shows every form; the grammar,
loosest binding first, is::

    condition  = condition "or" condition | condition "and" condition | "not" condition | comparison
    comparison = sum (("<" | "<=" | ">" | ">=" | "==" | "!=" | "in" | "not in") sum)?
    sum        = sum ("+" | "-") product | product
    product    = product ("*" | "/") operand | operand
    operand    = "-" operand | "(" condition ")" | name | number unit? | text | time | "true" | "false"
    name       = (version ".")? identifier ("." word | "[" text "]")*
    version    = "@" alias | "[" ref "]"

A condition has three outcomes (Kleene's strong logic): true, false, or undecided with its reasons,
where a value is missing or does not fit. ``false and x`` is false and ``true or x`` is true,
whatever ``x`` is.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from modelkeep.errors import InvalidRef, UsageError
from modelkeep.refs import SemVer, parse_ref, parse_version

if TYPE_CHECKING:
    from modelkeep.manifest import Manifest
    from modelkeep.version import Version

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

_COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!=", "in"})
_COMPARISON, _NEGATION = 4, 7
_POWER = {"or": 1, "and": 2, "not": 3, **dict.fromkeys(_COMPARISONS, _COMPARISON), "+": 5, "-": 5, "*": 6, "/": 6}
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
            if sign in _COMPARISONS and compared:
                raise _fault(self._text, self._peek().at, "a second comparison", "join two comparisons with 'and'")
            compared |= sign in _COMPARISONS
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
            _worth(constant)
        except OverflowError:
            raise _fault(self._text, token.at, "a number too large") from None
        return constant

    def _time(self, token: _Token) -> datetime:
        try:
            return _utc(token.text)
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


def _utc(text: str) -> datetime:
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
            text = f"{_show(left, own + (sign in _COMPARISONS))} {sign} {_show(right, own + 1)}"
    return f"({text})" if own < power else text


def _show_constant(value: float | str | bool | datetime) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z").replace("T00:00:00Z", "")
    return repr(value)


def _show_version(selector: str | None) -> str:
    if selector is None:
        return ""
    return f"{selector}." if re.fullmatch(_ALIAS, selector) else f"[{selector.removeprefix(':')}]."


def _show_part(part: str) -> str:
    return f".{part}" if re.fullmatch(r"\w+", part) else f"[{_quoted(part)}]"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- judging a tree

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
            raise Undecided("mismatch", f"{show(tree)} is {_kind(value)}, not a condition")
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
            return _worth(tree)
        case Name():
            return _finite(tree, resolve(tree))
        case Unary("-", operand):
            return _negated(operand, _value(operand, resolve))
        case Binary(sign, left, right) if sign in _COMPARISONS:
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


def _worth(constant: Constant) -> Any:
    return constant.value if constant.unit is None else constant.value * UNITS[constant.unit]  # type: ignore[operator]


def _finite(tree: Tree, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise Undecided("undefined", f"{show(tree)} is {value}")
    return value


def _kind(value: Any) -> str:
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
    if _kind(value) not in (_NUMBER, _SPAN):
        raise Undecided("mismatch", f"{show(operand)} is {_kind(value)}, which has no negative")
    return _attempt(Unary("-", operand), operator.neg, value)


def _calculate(tree: Binary, left: Any, right: Any) -> Any:
    if (_kind(left), tree.operator, _kind(right)) not in _CALCULABLE:
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
    kinds = {_kind(left), _kind(right)}
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
        raise Undecided("mismatch", f"{_quoted(value)} is not a version such as 1.2.0") from error


def _contains(tree: Binary, item: Any, container: Any) -> bool:
    if isinstance(container, list | tuple):
        return any(_kind(item) == _kind(each) and item == each for each in container)
    if isinstance(container, str | Mapping) and isinstance(item, str):
        return item in container
    raise _mismatch(tree, item, container)


def _mismatch(tree: Binary, left: Any, right: Any) -> Undecided:
    return Undecided("mismatch", f"{show(tree.left)} is {_kind(left)} and {show(tree.right)} is {_kind(right)}")


# --- what is known of a version

OTHER_NAMES = {"params": "parameters", "time": "created"}
_READ: dict[str, Callable[[str], Any]] = {"version": parse_version, "created": _utc}

FIELDS = ("model", "version", "created", "size", "parameters", "tags", "metrics", "metadata")
"""The names that are not metrics: text, version, time, bytes, a count, a list, and two mappings."""


def values_of(version: Manifest | Version) -> dict[str, Any]:
    """What an expression can ask of a version: its :data:`FIELDS`."""
    return {field: getattr(version, field) for field in FIELDS}


def find(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at ``path``: of a field of ``values``, else of a metric.

    ``values`` holds :data:`FIELDS` as JSON values (``created`` in RFC 3339), and whatever else the
    caller knows. ``now`` is the present time. Raises Undecided where there is no such value.
    """
    first, *rest = OTHER_NAMES.get(path[0], path[0]), *path[1:]
    if path == ("now",):
        return datetime.now(UTC)
    if first not in values:
        first, rest = "metrics", list(path)
    try:
        value = _descend(values.get(first, {}), tuple(rest))
    except KeyError:
        raise Undecided("missing", _missing(values, first, ".".join(rest))) from None
    try:
        return _READ[first](value) if first in _READ and isinstance(value, str) else value
    except (ValueError, OverflowError) as error:
        raise Undecided("mismatch", f"{first} cannot be read: {_quoted(str(value))}") from error


def _descend(value: Any, path: tuple[str, ...]) -> Any:
    if not path:
        return value
    if isinstance(value, Mapping):
        for end in range(len(path), 0, -1):  # a key may hold dots itself: {"per_class.f1": 0.9}
            key = ".".join(path[:end])
            if key in value:
                return _descend(value[key], path[end:])
    raise KeyError(path[0])


def _missing(values: Mapping[str, Any], field: str, name: str) -> str:
    known = values.get(field, {})
    found = ", ".join(map(str, known)) if isinstance(known, Mapping) else _kind(known)
    message = f"no {'metric' if field == 'metrics' else field} {name}; found: {found or 'none'}"
    if field == "metrics" and name in values.get("metadata", {}):
        message += f"; metadata.{name} is there"
    return message


def resolver(values: Mapping[str, Any], versions: Callable[[str], Mapping[str, Any] | None] | None = None) -> Resolve:
    """Look names up in ``values``, and those of other versions in what ``versions(selector)`` gives.

    ``versions`` takes a :class:`Name`'s ``version`` and returns None where there is none. Without
    it, naming another version is a UsageError.
    """

    def resolve(name: Name) -> Any:
        if name.version is None:
            return find(values, name.path)
        if versions is None:
            raise UsageError(f"{name} compares with another version, which only a gate can do")
        other = versions(name.version)
        if other is None:
            is_alias = name.version.startswith("@") and ":" not in name.version
            raise Undecided("no-alias" if is_alias else "missing", f"there is no {name.version}")
        try:
            return find(other, name.path)
        except Undecided as reason:
            raise Undecided(reason.why, f"{name.version} has {reason.message}") from None

    return resolve


Record = TypeVar("Record")


def select(expression: str, records: Iterable[Record], values: Callable[[Record], Mapping[str, Any]]) -> list[Record]:
    """The records for which the expression is true, in their order; search.

    A record that lacks a value, or whose value is of another kind than the rest, is not selected.
    Raises UsageError for an expression that does not parse, or whose kinds fit no record at all.
    """
    tree = parse(expression)
    judged = [(record, evaluate(tree, resolver(values(record)))) for record in records]
    unknown = [outcome for _, outcome in judged if isinstance(outcome, Unknown)]
    mismatched = [outcome for outcome in unknown if outcome.any("mismatch")]
    if mismatched and len(unknown) == len(judged):
        raise UsageError(f"{expression[:200]!r} cannot be judged: {mismatched[0]}")
    return [record for record, outcome in judged if outcome is True]


def match(expression: str, values: Mapping[str, Any]) -> bool:
    """Whether the expression is true of one record; :func:`select` on it alone."""
    return bool(select(expression, [values], lambda record: record))
