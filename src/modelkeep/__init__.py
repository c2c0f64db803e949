"""Keep every trained Keras model: saved whole, checked, versioned, and ready to run anywhere.

``import modelkeep as mk``; every public name is loaded on first use, so importing costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelkeep import errors
    from modelkeep.keep import Keep, open
    from modelkeep.live.loading import Loaded
    from modelkeep.pipeline import Pipeline, Tokenizer, steps
    from modelkeep.report import Diff, Finding, Report, Severity
    from modelkeep.version import Version

__version__ = "0.1.0"

_HOMES = {
    "Diff": "modelkeep.report",
    "Finding": "modelkeep.report",
    "Keep": "modelkeep.keep",
    "Loaded": "modelkeep.live.loading",
    "Pipeline": "modelkeep.pipeline",
    "Report": "modelkeep.report",
    "Severity": "modelkeep.report",
    "Tokenizer": "modelkeep.pipeline",
    "Version": "modelkeep.version",
    "open": "modelkeep.keep",
}
_MODULES = {"errors": "modelkeep.errors", "steps": "modelkeep.pipeline.steps"}

__all__ = [
    "Diff",
    "Finding",
    "Keep",
    "Loaded",
    "Pipeline",
    "Report",
    "Severity",
    "Tokenizer",
    "Version",
    "errors",
    "open",
    "steps",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value: Any = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'modelkeep' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
