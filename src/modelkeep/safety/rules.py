"""Every rule that a foreign file can break: how bad that is, why, and the published weakness it answers.

Levels
------
``critical`` is refused always, unless the rule is allowed by name for one file; ``high`` likewise; ``medium``
is a warning, which a strict policy refuses; ``low`` is a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is when a rule is broken."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``id`` is stable and kebab-case; ``advisories`` are published weaknesses it answers."""

    id: str
    level: Level
    title: str
    why: str
    advisories: tuple[str, ...] = ()


RULES: dict[str, Rule] = {}


def rules(*added: Rule) -> None:
    """Enter rules into ``RULES``; an id is used once."""
    for rule in added:
        assert rule.id not in RULES, rule.id
        RULES[rule.id] = rule
