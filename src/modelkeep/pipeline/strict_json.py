"""JSON that may come from anywhere: read with limits, and checked before it is written.

Python's own reader lets duplicate keys, NaN and overflowing numbers pass, and msgspec's writer turns
integer keys, bytes and dates into text without a word. Neither may happen to what is kept.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from modelkeep.errors import LimitExceeded, UsageError

MAX_DEPTH = 100


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
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} stands there twice")
    return value


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
