"""Keep every trained Keras model: saved whole, checked, versioned, and ready to run anywhere.

``import modelkeep as mk``; every public name is loaded on first use, so importing costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelkeep import errors
    from modelkeep.files import convert, load, save
    from modelkeep.inspecting.inspection import Inspection, inspect
    from modelkeep.keep import Keep, open
    from modelkeep.live.loading import Loaded
    from modelkeep.live.opening import Opened
    from modelkeep.pipeline import Pipeline, Tokenizer, steps
    from modelkeep.report import Diff, Finding, Report, Severity
    from modelkeep.safety.scanning import Scan, scan
    from modelkeep.version import Version

__version__ = "0.1.0"

_HOMES = {
    "Diff": "modelkeep.report",
    "Finding": "modelkeep.report",
    "Inspection": "modelkeep.inspecting.inspection",
    "Keep": "modelkeep.keep",
    "Loaded": "modelkeep.live.loading",
    "Opened": "modelkeep.live.opening",
    "Pipeline": "modelkeep.pipeline",
    "Report": "modelkeep.report",
    "Scan": "modelkeep.safety.scanning",
    "Severity": "modelkeep.report",
    "Tokenizer": "modelkeep.pipeline",
    "Version": "modelkeep.version",
    "convert": "modelkeep.files",
    "inspect": "modelkeep.inspecting.inspection",
    "load": "modelkeep.files",
    "open": "modelkeep.keep",
    "save": "modelkeep.files",
    "scan": "modelkeep.safety.scanning",
}
_MODULES = {"errors": "modelkeep.errors", "steps": "modelkeep.pipeline.steps"}

__all__ = [
    "Diff",
    "Finding",
    "Inspection",
    "Keep",
    "Loaded",
    "Opened",
    "Pipeline",
    "Report",
    "Scan",
    "Severity",
    "Tokenizer",
    "Version",
    "convert",
    "errors",
    "inspect",
    "load",
    "open",
    "save",
    "scan",
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
