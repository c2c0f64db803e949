"""The demo's data is what it should be, and the demo runs from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import modelkeep as mk
from data import MEMBER, parse, reviews

ROOT = Path(__file__).parent.parent


def test_a_snippet_rated_above_zero_is_positive_and_the_order_is_fixed() -> None:
    rows = b"1\t2.3\tGreat fun\r\n2\t-0.6\tTepid\r\n3\t0.0\tA film\twith a tab\r\n"
    texts, labels = parse(rows)
    assert dict(zip(texts, labels, strict=True)) == {"Great fun": 1, "Tepid": 0, "A film\twith a tab": 0}
    assert parse(rows) == (texts, labels)


def test_another_package_under_the_same_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vaderSentiment-3.3.2.tar.gz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"not what was expected: vaderSentiment==3\.3\.2 has SHA-256"):
        reviews(tmp_path)


def test_without_an_index_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SystemExit, match="could not be fetched"):
        reviews(tmp_path)


@pytest.mark.slow
def test_the_data_is_fetched_once_and_then_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = reviews(tmp_path)
    assert (len(texts), sum(labels)) == (10_605, 5_242)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert reviews(tmp_path) == (texts, labels)
    assert not (tmp_path / MEMBER).exists()


@pytest.mark.keras
@pytest.mark.slow
def test_the_demo_leaves_a_store_with_its_story(tmp_path: Path) -> None:
    environment = os.environ | {"MODELKEEP_STORE": str(tmp_path / "models"), "COLUMNS": "120"}
    demo = [sys.executable, str(ROOT / "demo" / "demo.py")]
    done = subprocess.run(demo, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    keep = mk.open(tmp_path / "models")
    assert [str(version.version) for version in keep.versions("sentiment")] == ["1.0.0", "1.1.0"]
    assert str(keep.resolve("sentiment@production").version) == "1.0.0"
    assert keep.search("accuracy >= 0.75", "sentiment")
