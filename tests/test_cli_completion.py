"""What the shell offers, as a shell asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelkeep.cli.main import main
from modelkeep.registry import Registry
from modelkeep.storage import marker
from modelkeep.storage.local import LocalStore
from small_versions import publish

SCRIPTS = str(Path(sys.executable).parent)


def bash(line: str, store: Path | None = None, *, breaks: str = " \t\n\"'><=;|&(:@") -> list[str]:
    """What bash would offer at the end of ``line``: the words as they would stand on the line."""
    script = f"""
        eval "$(modelkeep completion bash)"
        compopt() {{ :; }}
        COMP_WORDBREAKS={_quoted(breaks)}
        COMP_LINE={_quoted(line)} COMP_POINT={len(line)}
        _modelkeep_completion modelkeep
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
    if store:
        environment["MODELKEEP_STORE"] = str(store)
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def _quoted(text: str) -> str:
    return "$'" + "".join(f"\\x{ord(c):02x}" for c in text) + "'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with ``sentiment`` 1.0.0, in production, and 1.1.0; ``team/ranker`` 2.0.0."""
    folder = tmp_path_factory.mktemp("models")
    store = LocalStore(folder)
    marker.ensure(store)
    registry = Registry(store)
    publish(registry, "sentiment", "1.0.0")
    publish(registry, "sentiment", "1.1.0")
    publish(registry, "team/ranker", "2.0.0")
    registry.promote("sentiment:1.0.0", "production")
    return folder


def test_commands_and_options_complete() -> None:
    assert bash("modelkeep ver") == ["versions", "verify"]
    assert bash("modelkeep gc --dr") == ["--dry-run"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("modelkeep show sentiment:1.0", ["1.0.0"]),
        ("modelkeep rollback sentiment@p", ["production"]),
        ("modelkeep diff sentiment:1.0.0 sentiment:1.1", ["1.1.0"]),
    ],
)
def test_refs_complete_though_bash_breaks_words_within_them(line: str, offered: list[str], folder: Path) -> None:
    assert bash(line, folder) == offered


def test_a_shell_that_breaks_no_refs_gets_them_whole(folder: Path) -> None:
    assert bash("modelkeep show sentiment:1.0", folder, breaks=" \t\n") == ["sentiment:1.0.0"]


def test_completing_in_a_store_that_is_not_there_is_silent(tmp_path: Path) -> None:
    assert bash("modelkeep show sen", tmp_path / "none") == []


@pytest.fixture
def zsh(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], list[str]]:
    def offers(line: str) -> list[str]:
        """What modelkeep answers to the script of zsh, which asks for the words behind every blank."""
        monkeypatch.setenv("MODELKEEP_STORE", str(folder))
        monkeypatch.setenv("_MODELKEEP_COMPLETE", "zsh_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        assert main([]) == 0
        return list(filter(None, capsys.readouterr().out.split("\n")[1::3]))

    return offers


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("modelkeep show ", ["sentiment", "team/ranker"]),
        ("modelkeep show sen", ["sentiment"]),
        ("modelkeep show sentiment", ["sentiment", "sentiment:1.1.0", "sentiment:1.0.0", "sentiment@production"]),
        ("modelkeep show sentiment:", ["sentiment:1.1.0", "sentiment:1.0.0"]),
        ("modelkeep show sentiment@", ["sentiment@production"]),
        ("modelkeep show nothing@", []),
        ("modelkeep unalias ", ["sentiment@production"]),
        ("modelkeep promote sentiment:1.1.0 ", ["production", "staging"]),
        ("modelkeep split sentiment@production 1.1", ["1.1.0="]),
        ("modelkeep versions team/", ["team/ranker"]),
        ("modelkeep search x>1 s", ["sentiment"]),
        ("modelkeep add m.keras net --parent sentiment:1.0", ["sentiment:1.0.0"]),
    ],
)
def test_what_is_offered_fits_what_is_asked_for(line: str, offered: list[str], zsh: Callable[[str], list[str]]) -> None:
    assert zsh(line) == offered


def test_the_store_named_on_the_line_is_asked(zsh: Callable[[str], list[str]], tmp_path: Path) -> None:
    assert zsh(f"modelkeep show --store {tmp_path} ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_MODELKEEP_COMPLETE" in capsys.readouterr().out
