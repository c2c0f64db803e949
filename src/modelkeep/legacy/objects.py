"""What changed in initializers, regularizers, constraints and dtype policies."""

from __future__ import annotations

from modelkeep.legacy.rules import Rules

RULES = Rules()
