"""Answers on a terminal, in a pipe, and as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import re

import pytest

from modelkeep.cli import screen
from modelkeep.cli.answer import Answer, Block, Lines, Raw, Table

LONG = "team/" + "sentiment" * 12 + ":1.2.0"
TABLE = Table(("REF", "SIZE"), [(LONG, "5 B"), ("a:1.0.0", "12.5 MB")], right=frozenset({"SIZE"}))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(*blocks: Block) -> str:
    with contextlib.redirect_stdout(Terminal()) as stream:
        screen.show(Answer(None, blocks), in_json=False)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def _narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")


def test_a_table_in_a_pipe_is_aligned_text_with_nothing_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show(Answer(None, [TABLE]), in_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{LONG}      5 B"
    assert lines[2] == "a:1.0.0".ljust(len(LONG)) + "  12.5 MB"
    assert lines[0] == "REF".ljust(len(LONG)) + "     SIZE"


def test_a_table_on_a_narrow_terminal_folds_a_ref_and_keeps_all_of_it() -> None:
    lines = [re.sub(r"\x1b\[\d+m", "", line) for line in on_terminal(TABLE).splitlines()]
    assert max(map(len, lines)) <= 60
    assert "".join(line.split()[0] for line in lines[1:-1]) == LONG


def test_the_marks_of_a_report_are_coloured_on_a_terminal() -> None:
    assert "\x1b[31m✗ tensor-digest" in on_terminal(Lines("sentiment:1.0.0: 1 failure\n✗ tensor-digest  kernel"))


def test_nothing_is_coloured_for_whoever_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert on_terminal(Lines("✗ tensor-digest")) == "✗ tensor-digest\n"


def test_in_a_pipe_nothing_is_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show(Answer(None, [Lines("✗ tensor-digest  dense/kernel")]), in_json=False)
    assert capsys.readouterr().out == "✗ tensor-digest  dense/kernel\n"


@pytest.mark.parametrize("block", [Lines("a\x1b[2Jb"), Table(("A",), [("a\x1b[2Jb",)]), Table(("a\x1b[2Jb",), [])])
def test_a_name_cannot_steer_the_terminal(block: Block) -> None:
    shown = on_terminal(block)
    assert "a\\x1b[2Jb" in shown
    assert "\x1b[2J" not in shown


def test_markup_in_a_name_is_text() -> None:
    shown = on_terminal(Table(("A",), [("[red]x[/red] :smile:",)]), Lines("[bold]y"))
    assert "[red]x[/red] :smile:" in shown
    assert "[bold]y" in shown


def test_a_cell_of_two_lines_stays_in_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show(Answer(None, [Table(("A", "B"), [("one\ntwo", "x")])]), in_json=False)
    assert capsys.readouterr().out.splitlines()[1] == "one two  x"


def test_blocks_are_apart_by_an_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show(Answer(None, [Lines("one"), Lines("two")]), in_json=False)
    assert capsys.readouterr().out == "one\n\ntwo\n"


def test_raw_bytes_stay_as_they_are(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    screen.show(Answer(None, [Raw(b'{"a":1}')]), in_json=False)
    assert capsysbinary.readouterr().out == b'{"a":1}'


def test_json_is_the_value_alone(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show(Answer({"a": [1, "\x1b"]}, [TABLE]), in_json=True)
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": [1, "\x1b"]}
    assert "\x1b" not in text
