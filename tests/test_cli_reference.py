"""The page about the command line says what the command line says."""

from __future__ import annotations

from pathlib import Path

from modelkeep.cli import shapes
from modelkeep.cli.command import Command
from modelkeep.cli.main import COMMANDS, load
from modelkeep.cli.reference import reference

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"


def test_the_page_is_what_the_help_texts_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "python -m modelkeep.cli.reference > docs/cli.md"


def test_every_command_is_on_the_page() -> None:
    assert [name for name in COMMANDS if f"\n## modelkeep {name}\n" not in reference()] == []


def test_the_json_of_every_command_is_described() -> None:
    commands = [command for command in map(load, COMMANDS) if isinstance(command, Command)]
    assert {command.shape.removesuffix("[]") for command in commands} <= set(vars(shapes))
