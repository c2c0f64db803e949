"""JSON that may come from anywhere: read with limits, and checked before it is written.

Python's own reader lets duplicate keys, NaN and overflowing numbers pass, and msgspec's writer turns
integer keys, bytes and dates into text without a word. Neither may happen to what is kept.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from modelkeep.errors import IntegrityError, LimitExceeded, UnsafeContent, UsageError
from modelkeep.formats.contents import Problem
from modelkeep.formats.limits import Limits

MAX_DEPTH = 100
_LARGEST = 2**64  # seeds have up to 64 bits
_LONGEST = 100  # digits of a number; Python writes a float with at most 24 characters

# A text to its end, or to that of the document: a pattern that could fail would start anew at each quote.
_TEXTS = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse(text: str | bytes, *, what: str, limit: int) -> Any:
    """The value of a JSON document of at most ``limit`` bytes (characters, for ``str``).

    Raises LimitExceeded where it is longer, or nested deeper than ``MAX_DEPTH``; UsageError where it is
    not JSON (RFC 8259), not UTF-8, or has a key twice, NaN, an infinity or a number that overflows.
    """
    if len(text) > limit:
        raise LimitExceeded(f"{what} is too large", found=f"{len(text)} bytes", expected=f"at most {limit}")
    try:
        value = json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise _too_deep(what) from error
    except ValueError as error:
        raise UsageError(f"{what} is not valid JSON: {error}") from error
    _check_depth(value, what)
    return value


def read(data: bytes, *, what: str, limits: Limits, most: str = "config") -> tuple[Any, tuple[Problem, ...]]:
    """The value of a foreign JSON document, and what is odd about it; ``most`` names the limit of its size.

    What can be read in one way only, though the standard lacks it, is read: NaN and infinities, which Python
    writes. Of a key that stands there twice the last one holds, as in Python. Depth and the number of values
    are told from the bytes before anything is parsed. Raises LimitExceeded; IntegrityError where it is not
    JSON or not UTF-8; UnsafeContent for text with half a character (a lone surrogate).
    """
    limits.check(most, len(data), f"{what} is too large")
    _check_shape(data, what, limits)
    oddities = _Oddities(what)
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=oddities.mapping,
            parse_constant=oddities.constant,
            parse_float=oddities.fraction,
            parse_int=oddities.whole,
        )
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{what} is not valid JSON", found=str(error)[:200]) from error
    if _HALF_CHARACTER.search(data):
        _check_characters(value, what)
    return value, tuple(oddities.problems.values())


def check_plain(value: Any, path: str = "$", depth: int = 0) -> None:
    """Raise UsageError, naming where, unless ``value`` comes back from JSON as it went in.

    That is: None, booleans, finite numbers, text, lists (tuples come back as lists), and mappings
    with text keys. Raises LimitExceeded where :func:`parse` would.
    """
    if depth > MAX_DEPTH:
        raise _too_deep("the value")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise UsageError(
                    f"not a JSON value: the key {key!r} at {path}",
                    found=type(key).__name__,
                    expected="text",
                    hint="write {str(key): value for key, value in mapping.items()}",
                )
            check_plain(inner, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            check_plain(inner, f"{path}[{index}]", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"not a JSON value: {value} at {path}", hint="write None or text for a missing number")
    elif not isinstance(value, str | int | float | None):
        raise UsageError(
            f"not a JSON value: {type(value).__module__}.{type(value).__qualname__} at {path}",
            hint="give text, numbers, booleans, None, lists or mappings; .item() or .tolist() of a NumPy value",
        )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError(f"the key {_twice(pairs)!r} stands there twice")
    return value


def _twice(pairs: list[tuple[str, Any]]) -> str:
    """The first key that was there before."""
    seen: set[str] = set()
    return next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:40]} overflows")
    return number


def _check_depth(value: Any, what: str) -> None:
    # Level by level, not by recursion: the depth of what is being measured is not known yet.
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner = [iter(v.values()) if isinstance(v, dict) else iter(v) for v in level if isinstance(v, dict | list)]
        level = [v for values in inner for v in values if isinstance(v, dict | list)]
        if not level:
            return
    raise _too_deep(what)


def _too_deep(what: str) -> LimitExceeded:
    return LimitExceeded(f"{what} is nested too deeply", expected=f"at most {MAX_DEPTH} levels")


def _check_shape(data: bytes, what: str, limits: Limits) -> None:
    structure = _TEXTS.sub(b"", data)
    nodes = 1 + sum(map(structure.count, (b",", b"[", b"{")))
    limits.check("json_nodes", nodes, f"{what} has too many values")
    brackets = structure.translate(_TO_BRACKETS, _NO_BRACKETS)
    for _ in range(limits.json_depth):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")  # the innermost of all
    if b"[]" in brackets or brackets.count(b"[") > limits.json_depth:
        limits.check("json_depth", limits.json_depth + 1, f"{what} is nested too deeply")


def _check_characters(value: Any, what: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UnsafeContent(f"{what} has text with half a character", found=ascii(error.object[error.start])) from error


@dataclass(slots=True)
class _Oddities:
    """What the parser comes across: one problem of each kind, the first."""

    what: str
    problems: dict[str, Problem] = field(default_factory=dict)

    def mapping(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            self._add(
                "json-duplicate-key",
                f"the key {_twice(pairs)[:80]!r} stands there twice; readers differ in which they take",
            )
        return value

    def constant(self, word: str) -> float:
        self._add("json-not-finite", f"{word} is no number of the JSON standard, though Python writes it")
        return float(word)

    def fraction(self, digits: str) -> float:
        number = float(digits)
        if math.isinf(number) or len(digits) > _LONGEST:
            self._add("json-number", f"the number {digits[:40]} is beyond what a float can hold")
        return number

    def whole(self, digits: str) -> int | float:
        if len(digits) > _LONGEST:
            self._add("json-number", f"a whole number of {len(digits):,} digits")
            return math.copysign(math.inf, -1 if digits.startswith("-") else 1)
        number = int(digits)
        if abs(number) > _LARGEST:
            self._add("json-number", f"the whole number {digits[:40]} is beyond 64 bits")
        return number

    def _add(self, rule: str, message: str) -> None:
        self.problems.setdefault(rule, Problem(rule, message, self.what))
