"""What Keras 1 wrote, as Keras 2 made it new when it read it."""

from __future__ import annotations

from modelkeep.legacy.rules import Rules

RULES = Rules()
