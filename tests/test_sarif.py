"""A scan as SARIF has what code hosts ask of it: rules, results that point at them, files with their digests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostile import archive, dense, layer, network
from modelkeep.safety import sarif
from modelkeep.safety.rules import RULES
from modelkeep.safety.scanning import Scan, scan


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Scan]:
    monkeypatch.chdir(tmp_path)
    archive(Path("evil file.keras"), network(layer("keras.utils", "get_file"), layer("mine", "Mine", "Mine")))
    archive(Path("good.keras"), network(dense()))
    return [scan("good.keras"), scan("evil file.keras", allow=["gadget"])]


def test_the_log_is_of_version_2_1_0_and_json(scans: list[Scan]) -> None:
    log = json.loads(json.dumps(sarif.log(scans)))
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    assert log["runs"][0]["tool"]["driver"]["name"] == "modelkeep"


def test_each_result_points_at_its_rule_and_its_file(scans: list[Scan]) -> None:
    (run,) = sarif.log(scans)["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        (location,) = result["locations"]
        place = location["physicalLocation"]["artifactLocation"]
        assert run["artifacts"][place["index"]]["location"]["uri"] == place["uri"] == "evil%20file.keras"
        assert location["logicalLocations"][0]["fullyQualifiedName"].startswith("config.")
    assert [result["level"] for result in run["results"]] == ["error", "warning"]


def test_what_was_allowed_is_suppressed(scans: list[Scan]) -> None:
    (run,) = sarif.log(scans)["runs"]
    allowed, custom = run["results"]
    assert allowed["suppressions"] == [{"kind": "external", "justification": "allowed by name: gadget"}]
    assert "suppressions" not in custom


def test_a_rule_brings_its_text_its_severity_and_its_advisories(scans: list[Scan]) -> None:
    (run,) = sarif.log(scans)["runs"]
    gadget = next(rule for rule in run["tool"]["driver"]["rules"] if rule["id"] == "gadget")
    assert gadget["fullDescription"]["text"] == RULES["gadget"].why
    assert gadget["properties"]["security-severity"] == "9.5"
    assert "CVE-2025-8747" in gadget["properties"]["tags"]


def test_a_file_has_its_digest(scans: list[Scan]) -> None:
    (artifact,) = scans[0].to_sarif()["runs"][0]["artifacts"]
    assert artifact["hashes"] == {"blake3": scans[0].digest.removeprefix("blake3:")}
    assert scans[0].to_sarif()["runs"][0]["results"] == []
