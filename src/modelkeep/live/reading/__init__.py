"""From the contents of a foreign file to a model in memory: one module for each form that holds one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelkeep.report import Finding

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Read:
    """A model read from a foreign file, and what there is to know of how it came to be.

    ``findings`` hold what became of every tensor (:mod:`modelkeep.live.matching`), what was upgraded in the config,
    and what the file could not give: weights that are fresh, an optimizer that starts anew.
    """

    model: keras.Model
    findings: tuple[Finding, ...] = ()
