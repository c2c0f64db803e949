"""The way in: help texts, exit codes, errors for people and for programs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from modelkeep import errors
from modelkeep.cli import failures
from modelkeep.cli.command import Command
from modelkeep.cli.main import COMMANDS, SECTIONS, load, main

ANSWERING = [name for name in COMMANDS if name != "completion"]


def tree(error: type[errors.ModelkeepError]) -> Iterator[type[errors.ModelkeepError]]:
    yield error
    for child in error.__subclasses__():
        yield from tree(child)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_text_ends_with_a_line_that_the_command_can_parse(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sentiment.keras").touch()
    assert main([name, "--help"]) == 0
    words = shlex.split(capsys.readouterr().out.rstrip().splitlines()[-1])
    words = words[: words.index(">>")] if ">>" in words else words
    assert words[:2] == ["modelkeep", name]
    load(name).make_context(name, words[2:])


@pytest.mark.parametrize("name", ANSWERING)
def test_every_command_can_answer_in_json_and_takes_a_store_unless_it_is_about_files(name: str) -> None:
    command = load(name)
    assert isinstance(command, Command)
    of_store = [] if name in SECTIONS["Any model file"] else [["--store"]]
    assert [parameter.opts for parameter in command.params if parameter.opts[0] in ("--store", "--json")] == [
        *of_store,
        ["--json"],
    ]


def test_the_help_of_the_group_names_every_command_in_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        assert len([line for line in lines if line.startswith(f"  {name} ") and line.endswith(".")]) == 1, name


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("Usage: modelkeep ")


def test_every_exit_code_of_an_error_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    codes = {error.exit_code for error in tree(errors.ModelkeepError)} - {errors.ModelkeepError.exit_code}
    codes |= {failures.INTERRUPTED, failures.READER_GONE, failures.UNEXPECTED}
    main(["--help"])
    shown = capsys.readouterr().out
    assert [code for code in codes if f"\n    {code:<3} " not in shown] == []


@pytest.mark.parametrize(
    "arguments",
    [["lisst"], ["show"], ["promote", "sentiment"], ["gc", "--grace", "soon"], ["split", "a@b", "half"], ["list", "x"]],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_with_2_and_names_the_help(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert "--help" in shown.err


def test_an_error_says_what_is_wrong_and_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--store", str(tmp_path / "none")]) == 10
    what, next_step = capsys.readouterr().err.splitlines()
    assert what == f"error: {tmp_path / 'none'} is not a modelkeep store"
    assert next_step.startswith("  → ")


def test_an_error_for_a_program_is_one_line_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "sentiment", "--store", str(tmp_path / "none"), "--json"]) == 10
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    error = json.loads(shown.err)["error"]
    assert (error["code"], error["exit_code"]) == ("store-not-found", 10)
    assert error["message"].startswith(error["what"])


def test_a_wrong_command_line_for_a_program_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.VersionExists("taken"), 11),
        (errors.GateRefused("accuracy >= 0.9"), 23),
        (errors.StorageError("disk full"), 31),
        (click.exceptions.Exit(3), 3),
        (KeyboardInterrupt(), 130),
        (SystemExit(5), 5),
        (ZeroDivisionError("x"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_becomes_its_exit_code(error: BaseException, code: int) -> None:
    assert failures.report(error, in_json=False) == code


def test_an_unexpected_error_is_short_and_says_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures.report(ZeroDivisionError("division by zero"), in_json=False)
    short = capsys.readouterr().err
    assert short.startswith("error: unexpected ZeroDivisionError: division by zero\n")
    assert "MODELKEEP_TRACEBACK=1" in short
    monkeypatch.setenv("MODELKEEP_TRACEBACK", "1")
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        failures.report(error, in_json=False)
    assert "Traceback" in capsys.readouterr().err


def test_a_message_from_a_file_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    failures.report(errors.IntegrityError("layer \x1b[2Jgone\r"), in_json=False)
    assert "layer \\x1b[2Jgone\\r" in capsys.readouterr().err


@pytest.mark.parametrize("in_json", [False, True])
def test_a_warning_is_one_line_without_the_place_in_the_code(in_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    failures.warn("the source of Scale changed since the save", in_json=in_json)
    shown = capsys.readouterr().err
    text = json.loads(shown)["warning"]["message"] if in_json else shown.removeprefix("warning: ").rstrip()
    assert text == "the source of Scale changed since the save"


@pytest.mark.parametrize("place", ["Scale", "no_such_module:Scale", "json:Scale", ":x"])
def test_a_custom_object_that_is_nowhere_is_a_wrong_command_line(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))  # so that what the command adds to it goes, too
    assert main(["verify", "m", "--store", str(tmp_path), "--custom-objects", place]) == 2
    assert repr(place) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--metric", "accuracy"), ("--asset", "labels=none.json"), ("--asset", "labels"), ("--golden", "none.npy")],
)
def test_an_option_that_does_not_fit_is_a_wrong_command_line(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.keras").touch()
    assert main(["add", str(tmp_path / "m.keras"), "m", "--store", str(tmp_path / "models"), option, value]) == 2
    assert value.partition("=")[2] in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([sys.executable, "-m", "modelkeep", "--help"], stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (failures.READER_GONE, b"")


def test_an_option_after_two_dashes_is_no_option() -> None:
    assert failures.wants_json(["show", "x", "--json"])
    assert not failures.wants_json(["show", "--", "--json"])


def test_an_interrupted_command_says_so_and_has_done_nothing(tmp_path: Path) -> None:
    steps, store = tmp_path / "steps.json", tmp_path / "models"
    (tmp_path / "m.keras").touch()
    os.mkfifo(steps)
    command = ["add", str(tmp_path / "m.keras"), "m", "--pipeline", str(steps), "--store", str(store)]
    process = subprocess.Popen([sys.executable, "-m", "modelkeep", *command], stderr=subprocess.PIPE, text=True)
    with steps.open("wb"):  # opens when the command has begun to read
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    assert (process.returncode, shown.strip()) == (failures.INTERRUPTED, "error: interrupted")
    assert not store.exists()
