"""Every rule says what it is for, every rule that a reader names is there, and the guide has them all.

``python tests/test_rules.py`` writes the table in ``docs/guide/scanning.md`` anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from modelkeep.safety import scanning
from modelkeep.safety.rules import RULES, Level

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "guide" / "scanning.md"
BEGIN, END = "<!-- rules -->\n", "<!-- end of rules -->\n"
assert scanning  # its import enters every rule


def table() -> str:
    head = "| rule | level | what it finds | why | answers |\n|---|---|---|---|---|\n"
    order = list(Level)
    rows = sorted(RULES.values(), key=lambda rule: (order.index(rule.level), rule.id))
    return head + "".join(
        f"| `{rule.id}` | {rule.level} | {rule.title} | {rule.why} | {', '.join(rule.advisories)} |\n" for rule in rows
    )


def written(page: str) -> str:
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def test_the_guide_has_every_rule() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "python tests/test_rules.py writes the table anew"


def test_a_rule_has_a_plain_name_and_says_why() -> None:
    for rule in RULES.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.id)
        assert rule.title[0].isupper()
        assert not rule.title.endswith(".")
        assert rule.why.endswith(".")
        assert all(re.fullmatch(r"CVE-\d{4}-\d{4,}|GHSA(-\w{4}){3}", advisory) for advisory in rule.advisories)


def test_every_rule_that_a_reader_names_is_there() -> None:
    named = re.compile(r'(?:Problem|problem|_add|add)\(\s*"([a-z0-9]+(?:-[a-z0-9]+)+)"')
    rooms = [ROOT / "src" / "modelkeep" / room for room in ("formats", "safety")]
    texts = [file.read_text(encoding="utf-8") for room in rooms for file in room.glob("*.py")]
    assert {rule for text in texts for rule in named.findall(text)} <= RULES.keys()


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
