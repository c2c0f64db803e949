"""Each command over a real store: what people read, what programs read, and what happened to the store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import pytest

from modelkeep.cli.main import main
from modelkeep.registry import Registry
from modelkeep.storage import marker
from modelkeep.storage.local import LocalStore
from small_versions import publish

Run = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with ``sentiment`` 1.0.0, in production, and 1.1.0; ``team/ranker`` 2.0.0."""
    store = LocalStore(tmp_path / "models")
    marker.ensure(store)
    registry = Registry(store)
    publish(registry, "sentiment", "1.0.0", metrics={"accuracy": 0.85}, parameters=1200)
    publish(registry, "sentiment", "1.1.0", metrics={"accuracy": 0.92}, tags=("nightly",), metadata={"data": "IMDB"})
    publish(registry, "team/ranker", "2.0.0", part=b"[]")
    registry.promote("sentiment:1.0.0", "production", reason="first")
    return store.root


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line on the store, and return its stdout."""

    def run(*arguments: str, code: int = 0) -> str:
        assert main([*arguments, "--store", str(folder)]) == code, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def answer(run: Run, *arguments: str, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code))


def test_list_names_every_model_with_its_newest_version_and_aliases(run: Run) -> None:
    header, sentiment, ranker = run("list").splitlines()
    assert header.split()[:4] == ["MODEL", "NEWEST", "VERSIONS", "ALIASES"]
    assert sentiment.split()[:4] == ["sentiment", "1.1.0", "2", "production=1.0.0"]
    assert ranker.split()[:3] == ["team/ranker", "2.0.0", "1"]


def test_list_for_programs(run: Run) -> None:
    sentiment, ranker = answer(run, "list")
    assert sentiment["aliases"] == {"production": {"1.0.0": 100}}
    assert (ranker["name"], ranker["newest"], ranker["versions"]) == ("team/ranker", "2.0.0", 1)


def test_list_of_an_empty_folder_says_that_it_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--store", str(tmp_path)]) == 10
    assert str(tmp_path) in capsys.readouterr().err


def test_the_store_is_the_one_that_the_environment_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELKEEP_STORE", str(folder))
    assert main(["list"]) == 0
    assert "team/ranker" in capsys.readouterr().out


def test_versions_come_in_the_order_of_their_numbers(run: Run) -> None:
    _, first, second = run("versions", "sentiment").splitlines()
    assert first.split()[:3] == ["1.0.0", "accuracy=0.85", "1,200"]
    assert re.search(r"^1\.1\.0 .* nightly .* blake3:[0-9a-f]{8}$", second)
    assert [version["version"] for version in answer(run, "versions", "sentiment")] == ["1.0.0", "1.1.0"]


def test_show_prints_what_a_version_says_of_itself(run: Run) -> None:
    text = run("show", "sentiment:1.1")
    assert text.startswith("REF ")
    for words in ("sentiment:1.1.0", "nightly", "METRICS\naccuracy  0.92", "METADATA\ndata      IMDB"):
        assert words in text


def test_the_manifest_that_show_prints_has_the_digest_of_the_version(run: Run) -> None:
    version = answer(run, "show", "sentiment@production")["version"]
    printed = run("show", "sentiment@production", "--manifest")
    assert "blake3:" + blake3.blake3(printed.encode()).hexdigest() == version["digest"]


def test_show_goes_back_in_time(run: Run, folder: Path) -> None:
    moved = answer(run, "history", "sentiment@production")[-1]["time"]
    run("promote", "sentiment:1.1.0", "production")
    assert answer(run, "show", "sentiment@production")["version"]["version"] == "1.1.0"
    assert answer(run, "show", "sentiment@production", "--at", moved)["version"]["version"] == "1.0.0"


def test_show_goes_back_to_a_version_that_is_deleted_by_now(run: Run) -> None:
    last = answer(run, "history", "sentiment")[-1]["time"]
    run("delete", "sentiment:1.1.0")
    assert answer(run, "show", "sentiment:1.1.0", "--at", last)["version"]["version"] == "1.1.0"


def test_history_tells_when_who_what_and_why(run: Run) -> None:
    lines = run("history", "sentiment").splitlines()
    assert [line.split()[0] for line in lines] == ["#", "1", "2", "3"]
    assert re.search(r"promote production → 1\.0\.0 +first$", lines[-1])
    assert [entry["action"]["do"] for entry in answer(run, "history", "sentiment@production")] == ["move"]


def test_search_finds_the_versions_for_which_a_condition_holds(run: Run) -> None:
    assert run("search", "accuracy > 0.9").splitlines()[1].startswith("sentiment:1.1.0 ")
    assert run("search", "accuracy > 0.99") == "none\n"
    assert answer(run, "search", "accuracy > 0.99") == []
    assert [version["ref"] for version in answer(run, "search", "accuracy > 0", "sentiment")] == [
        "sentiment:1.0.0",
        "sentiment:1.1.0",
    ]


def test_diff_names_what_differs(run: Run) -> None:
    assert "accuracy" in run("diff", "sentiment:1.0.0", "sentiment:1.1.0")
    diff = answer(run, "diff", "sentiment:1.0.0", "sentiment:1.1.0")
    assert diff["different"]
    assert [change["subject"] for change in diff["sections"]["metrics"]["changes"]] == ["accuracy"]


def test_verify_of_a_sound_version_exits_with_0(run: Run) -> None:
    report = answer(run, "verify", "sentiment:1.0.0")
    assert report["ok"]
    assert run("verify", "sentiment:1.0.0").startswith(report["title"])


def test_verify_and_fsck_of_a_damaged_store_print_their_reports_and_exit_with_20(run: Run, folder: Path) -> None:
    digest = answer(run, "show", "sentiment:1.0.0")["version"]["digest"].removeprefix("blake3:")
    blob = folder / "blobs" / digest[:2] / digest
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes().replace(b"0.85", b"0.95"))
    assert not answer(run, "fsck", code=20)["ok"]
    assert "sentiment:1.0.0" in run("fsck", code=20)


def test_fsck_of_a_sound_store_exits_with_0(run: Run) -> None:
    assert answer(run, "fsck")["ok"]


def test_promote_points_an_alias_and_rollback_points_it_back(run: Run) -> None:
    assert run("promote", "sentiment:1.1.0", "production") == "sentiment@production → sentiment:1.1.0\n"
    assert run("rollback", "sentiment@production", "--reason", "slow") == "sentiment@production → sentiment:1.0.0\n"
    assert answer(run, "history", "sentiment")[-1]["reason"] == "slow"


def test_a_gate_that_refuses_shows_its_numbers_and_exits_with_23(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["promote", "sentiment:1.0.0", "staging", "--gate", "accuracy >= 0.9", "--store", str(folder)]
    assert main(arguments) == 23
    assert "0.85" in capsys.readouterr().err
    assert main([*arguments, "--json"]) == 23
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["report"]["findings"][0]["subject"] == "accuracy >= 0.9"
    assert "refuse 1.0.0" in run("history", "sentiment") or "refuse staging" in run("history", "sentiment")


def test_split_shares_the_traffic_of_an_alias(run: Run) -> None:
    assert run("split", "sentiment@production", "1.0.0=90", "1.1.0=10") == (
        "sentiment@production → 1.0.0 90 %, 1.1.0 10 %\n"
    )
    assert answer(run, "show", "sentiment@production")["version"]["weights"] == {"1.0.0": 90, "1.1.0": 10}
    assert "production=1.0.0 90 %, 1.1.0 10 %" in run("list")


def test_unalias_removes_an_alias(run: Run) -> None:
    assert answer(run, "unalias", "sentiment@production") == {"alias": "sentiment@production", "versions": {}}
    run("show", "sentiment@production", code=10)


def test_annotate_changes_tags_and_note(run: Run) -> None:
    run("annotate", "sentiment:1.1.0", "--tag", "reviewed", "--untag", "nightly", "--note", "best")
    assert answer(run, "versions", "sentiment")[1]["tags"] == ["reviewed"]
    assert "annotate 1.1.0 +reviewed -nightly note 'best'" in run("history", "sentiment")


def test_a_yanked_version_is_not_the_newest_until_that_is_undone(run: Run) -> None:
    assert run("yank", "sentiment:1.1.0") == "sentiment:1.1.0 yanked\n"
    assert answer(run, "show", "sentiment")["version"]["version"] == "1.0.0"
    assert "1.1.0 (yanked)" in run("versions", "sentiment")
    assert answer(run, "yank", "sentiment:1.1.0", "--undo") == {"ref": "sentiment:1.1.0", "state": "listed"}
    assert answer(run, "show", "sentiment")["version"]["version"] == "1.1.0"


def test_a_deleted_version_is_gone_and_gc_takes_its_bytes(run: Run) -> None:
    assert run("delete", "sentiment:1.1.0") == "sentiment:1.1.0 deleted\n"
    run("show", "sentiment:1.1.0", code=10)
    assert answer(run, "gc", "--dry-run", "--grace", "0s")["removed"] == 1
    assert answer(run, "gc")["young"] == 1
    swept = answer(run, "gc", "--grace", "0s")
    assert (swept["removed"], swept["kept"], swept["dry_run"]) == (1, 4, False)
    assert run("gc").splitlines()[3].split()[:2] == ["needed", "4"]


def test_deleting_by_a_moving_name_is_refused(run: Run) -> None:
    run("delete", "sentiment", code=2)


def test_a_damaged_ledger_does_not_hide_the_other_models(run: Run, folder: Path) -> None:
    entry = next((folder / "models" / "sentiment" / "ledger").iterdir())
    entry.chmod(0o600)
    entry.write_bytes(b"{}")
    assert re.search(r"^sentiment +damaged", run("list"), re.MULTILINE)
    assert "team/ranker" in run("list")
