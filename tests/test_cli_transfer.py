"""``modelkeep transfer`` on files and versions: told, written, published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelkeep.cli.main import main

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``old.keras`` and ``new.keras``: one backbone, two heads; ``wide.keras``: the old head, wider."""
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("files")
    for name, head, units in (("old", "head", 2), ("new", "top", 3), ("wide", "head", 3)):
        keras.Sequential([keras.Input((4,)), layers.Dense(5, name="body"), layers.Dense(units, name=head)]).save(
            folder / f"{name}.keras"
        )
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out or "null")


def test_a_dry_run_prints_the_table_and_writes_nothing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", str(files / "old.keras"), str(files / "new.keras"), "--dry-run", "--to", "x.keras"]) == 0
    printed = capsys.readouterr().out
    assert "2 would be copied (25 numbers), 2 missing (18 numbers), 2 unused (12 numbers)" in printed
    assert list(Path().iterdir()) == []


def test_the_result_becomes_a_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(capsys, "transfer", files / "old.keras", files / "new.keras", "--freeze", "--to", "made.keras")
    assert (told["path"], told["version"], told["frozen"]) == ("made.keras", None, ["body"])
    again = answer(capsys, "transfer", "made.keras", files / "old.keras", "--dry-run", "--include", "body")
    assert [outcome["target"] for outcome in again["copied"]] == ["body/kernel", "body/bias"]


def test_the_result_becomes_a_version_with_what_went_with_the_target(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("labels.json").write_text('["no", "yes", "maybe"]')
    answer(capsys, "add", files / "new.keras", "topics", "--asset", "labels=labels.json")
    arguments = ("--rename", "body=body", "--exclude", "top", "--name", "topics", "--bump", "minor")
    told = answer(capsys, "transfer", files / "old.keras", "topics", *arguments)
    assert told["version"]["ref"] == "topics:1.1.0"
    manifest = answer(capsys, "show", "topics")["manifest"]
    assert [asset["name"] for asset in manifest["assets"]] == ["labels"]
    assert manifest["lineage"]["parent"].startswith("topics:1.0.0@")
    (transfer,) = manifest["lineage"]["transfers"]
    assert transfer["source"].startswith("old.keras: a .keras file of Keras 3")
    assert transfer["options"] == {"rename": {"body": "body"}, "exclude": ["top"]}


def test_what_does_not_fit_refuses_with_the_code_of_its_error(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(capsys, "transfer", files / "old.keras", files / "wide.keras", "--dry-run", code=20)
    assert [outcome["target"] for outcome in told["mismatched"]] == ["head/kernel", "head/bias"]
    assert main(["transfer", str(files / "old.keras"), str(files / "wide.keras"), "--to", "x.keras"]) == 20
    assert "the shapes differ" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_it_asks_where_the_result_goes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", str(files / "old.keras"), str(files / "new.keras")]) == 2
    assert "give --to FILE, --name MODEL, or --dry-run" in capsys.readouterr().err
