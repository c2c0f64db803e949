"""What holds for the project as a whole: its layout, its public names, and what importing it costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import modelkeep

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "modelkeep"
HEAVY = {"h5py", "jax", "keras", "ml_dtypes", "numpy", "scipy", "sklearn", "skops", "tensorflow", "tokenizers", "torch"}
# A room that reaches a model does so when a verb needs one, never when it is imported.
LIVE = "modelkeep.live"


def modules() -> list[str]:
    files = sorted(PACKAGE.rglob("*.py"))
    names = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def imported_by(statement: str) -> set[str]:
    """The top-level packages that are loaded after a statement has run in a new interpreter."""
    script = f"import sys, json\n{statement}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_imports_nothing_of_it() -> None:
    statement = "import modelkeep; print([n for n in sys.modules if n.startswith('modelkeep.')])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_every_cold_room_imports_no_backend_and_no_numpy() -> None:
    cold = [name for name in modules() if not name.startswith((LIVE, "modelkeep.testing"))]
    assert imported_by("import " + ", ".join(cold)) & HEAVY == set()


@pytest.mark.keras
def test_the_public_names_are_these() -> None:
    assert modelkeep.__all__ == sorted(modelkeep.__all__)
    assert {name: getattr(modelkeep, name).__name__.removeprefix("modelkeep.") for name in modelkeep.__all__} == {
        "Diff": "Diff",
        "Finding": "Finding",
        "Inspection": "Inspection",
        "Keep": "Keep",
        "Loaded": "Loaded",
        "Opened": "Opened",
        "Pipeline": "Pipeline",
        "Report": "Report",
        "Scan": "Scan",
        "Severity": "Severity",
        "Tokenizer": "Tokenizer",
        "Version": "Version",
        "convert": "convert",
        "errors": "errors",
        "inspect": "inspect",
        "load": "load",
        "open": "open",
        "save": "save",
        "scan": "scan",
        "steps": "pipeline.steps",
    }
    assert dir(modelkeep) == modelkeep.__all__


def test_a_name_that_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'sava'"):
        _ = modelkeep.sava


@pytest.mark.parametrize("name", modules())
def test_a_module_says_what_it_is_for(name: str) -> None:
    path = PACKAGE.parent / Path(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


def test_no_module_is_a_place_for_leftovers() -> None:
    leftovers = {"util", "utils", "helper", "helpers", "common", "misc", "tools", "base", "core"}
    assert [name for name in modules() if leftovers & set(name.split("."))] == []


def test_the_design_names_every_room() -> None:
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rooms = {name.split(".")[1] for name in modules() if "." in name}
    assert [room for room in sorted(rooms) if f"`{room}.py`" not in design and f"`{room}/`" not in design] == []


def test_the_changelog_speaks_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog.split("\n## ")[1].startswith(modelkeep.__version__)
