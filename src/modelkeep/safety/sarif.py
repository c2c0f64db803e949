"""Scans as a SARIF 2.1.0 log, which code hosts and editors show.

The format is OASIS' "Static Analysis Results Interchange Format" 2.1.0
(https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelkeep import __version__
from modelkeep.safety.rules import RULES, Level, Rule

if TYPE_CHECKING:
    from modelkeep.safety.scanning import Scan, ScanFinding

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Level.CRITICAL: "error", Level.HIGH: "error", Level.MEDIUM: "warning", Level.LOW: "note"}
# What code hosts sort security results by, from 0 to 10.
_SEVERITIES = {Level.CRITICAL: "9.5", Level.HIGH: "8.0", Level.MEDIUM: "5.0", Level.LOW: "2.0"}


def log(scans: Sequence[Scan]) -> dict[str, Any]:
    """One run over all files: the rules that are broken, a result for each finding, each file with its digest."""
    broken = sorted({finding.rule for scan in scans for finding in scan.findings})
    places = {rule: index for index, rule in enumerate(broken)}
    driver = {"name": "modelkeep", "version": __version__, "rules": [_rule(rule) for rule in broken]}
    run = {
        "tool": {"driver": driver},
        "artifacts": [_artifact(scan) for scan in scans],
        "results": [
            _result(finding, scan.path, number, places)
            for number, scan in enumerate(scans)
            for finding in scan.findings
        ],
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule_id: str) -> dict[str, Any]:
    rule = RULES.get(rule_id) or Rule(rule_id, Level.HIGH, rule_id, "What no rule speaks of is not taken for harmless.")
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "defaultConfiguration": {"level": _LEVELS[rule.level]},
        "properties": {"security-severity": _SEVERITIES[rule.level], "tags": ["security", *rule.advisories]},
    }


def _artifact(scan: Scan) -> dict[str, Any]:
    algorithm, _, digest = scan.digest.partition(":")
    return {"location": {"uri": _uri(scan.path)}, "hashes": {algorithm: digest}}


def _result(finding: ScanFinding, path: Path, artifact: int, places: dict[str, int]) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(path), "index": artifact}},
    }
    if finding.place:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.place}]
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": places[finding.rule],
        "level": _LEVELS[finding.level],
        "message": {"text": finding.message},
        "locations": [location],
    }
    if finding.allowed:
        result["suppressions"] = [{"kind": "external", "justification": f"allowed by name: {finding.rule}"}]
    return result


def _uri(path: Path) -> str:
    """Relative where the path is, so that it fits the checkout it was scanned in."""
    return path.as_uri() if path.is_absolute() else quote(os.fsencode(path.as_posix()))
