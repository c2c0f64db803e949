"""What is known of a version, and the versions of which a condition is true."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from modelkeep.errors import UsageError
from modelkeep.expressions.evaluation import Resolve, Undecided, Unknown, evaluate, kind
from modelkeep.expressions.syntax import Name, parse, quoted, utc
from modelkeep.refs import parse_version

if TYPE_CHECKING:
    from modelkeep.manifest import Manifest
    from modelkeep.version import Version

OTHER_NAMES = {"params": "parameters", "time": "created"}
_READ: dict[str, Callable[[str], Any]] = {"version": parse_version, "created": utc}

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
        raise Undecided("mismatch", f"{first} cannot be read: {quoted(str(value))}") from error


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
    found = ", ".join(map(str, known)) if isinstance(known, Mapping) else kind(known)
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
