"""``modelkeep scan``: a table for people, JSON and SARIF for programs, an exit code for both; no store, no backend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hostile import CORPUS, archive, layer, network
from modelkeep.cli.main import main
from test_cold import HEAVY, SCRIPT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    archive(Path("good.keras"))
    archive(Path("custom.keras"), network(layer("mine", "Mine", "Mine")))
    archive(Path("evil.keras"), network(layer("keras.utils", "get_file")))
    return tmp_path


def test_a_clean_file_exits_with_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "good.keras", "custom.keras"]) == 0
    out = capsys.readouterr().out
    assert "good.keras: 1 ok" in out
    assert "! custom-object  config.config.layers[1]  medium: the class 'Mine' of 'mine'" in out
    assert [path.name for path in folder.iterdir() if path.suffix != ".keras"] == []


def test_a_refused_file_exits_with_21(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "good.keras", "evil.keras"]) == 21
    assert "✗ gadget" in capsys.readouterr().out


def test_a_rule_can_be_allowed_and_medium_refused(folder: Path) -> None:
    assert main(["scan", "evil.keras", "--allow", "gadget"]) == 0
    assert main(["scan", "custom.keras", "--strict"]) == 21
    assert main(["scan", "evil.keras", "--allow", "no-rule"]) == 2


def test_the_json_is_a_scan_for_each_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "good.keras", "evil.keras", "--json"]) == 21
    good, evil = json.loads(capsys.readouterr().out)
    assert (good["ok"], good["form"], good["findings"]) == (True, "keras", [])
    assert evil["findings"][0]["rule"] == "gadget"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_sarif_is_one_log_of_all_files(folder: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "good.keras", "evil.keras", "--sarif", *more]) == 21
    log = json.loads(capsys.readouterr().out)
    assert [result["ruleId"] for result in log["runs"][0]["results"]] == ["gadget"]
    assert len(log["runs"][0]["artifacts"]) == 2


def test_a_checkpoint_is_named_as_for_inspect_and_what_is_not_there_exits_with_10(folder: Path) -> None:
    checkpoint = Path(__file__).parent / "foreign" / "saved_models" / "weights" / "ckpt"
    assert main(["scan", str(checkpoint)]) == main(["inspect", str(checkpoint)]) == 0
    assert main(["scan", "absent.keras"]) == main(["inspect", "absent.keras"]) == 10


def test_a_limit_can_be_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "good.keras", "--limit", "members=2"]) == 21
    assert main(["scan", "good.keras", "--limit", "memory=512MiB", "--limit", "seconds=5"]) == 0
    for wrong in ("members", "members=many", "fingers=10"):
        assert main(["scan", "good.keras", "--limit", wrong]) == 2
    assert "there are file, members, name" in capsys.readouterr().err


def test_a_name_cannot_command_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive(Path("rude.keras"), network(layer("mine", "\x1b[2JMine", "Mine")))
    assert main(["scan", "rude.keras"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_pickle_is_judged_and_never_loaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = CORPUS["pickle_of_protocol_4"].write(folder)
    assert main(["scan", str(path)]) == 21
    assert "posix.system" in capsys.readouterr().out
    assert not (folder / "canary").exists()


@pytest.mark.parametrize("name", ["good.keras", "evil.keras"])
def test_the_command_itself_imports_nothing_heavy(name: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, "scan", name], capture_output=True, text=True, check=False)
    assert done.returncode == (21 if name == "evil.keras" else 0)
    assert set(done.stderr.split()) & HEAVY == set()
