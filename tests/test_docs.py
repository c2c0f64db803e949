"""Every example in the README and the docs works as it stands, and every link in them leads somewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import documents

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Its blocks are signatures and layouts, not examples.
CONTRACTS = ROOT / "docs" / "design.md"


def pages_with(language: str) -> list[Path]:
    return [p for p in PAGES if p != CONTRACTS and f"```{language}\n" in p.read_text(encoding="utf-8")]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({*pages_with("python"), *pages_with("console")}), ids=name)
def test_the_examples_of_a_page_run_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # As in a shell: a module that an example wrote can be imported by the next one.
    monkeypatch.syspath_prepend(str(tmp_path))
    assert documents.run(page, tmp_path, dict(os.environ)) > 0


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text) + re.findall(r'src="(?!https?://)([^"]+)"', text)
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_index_names_every_page_of_the_docs() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md") if p.name != "README.md"]
    assert [page for page in pages if f"({page})" not in index] == []


def test_an_example_that_prints_something_else_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"page.md, line 2 prints something else"):
        documents.run(page, tmp_path, {})


def test_a_command_that_fails_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ exit 3\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="exits with 3, not 0"):
        documents.run(page, tmp_path, dict(os.environ))
