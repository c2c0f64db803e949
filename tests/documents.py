"""Read the examples out of a Markdown page, and run them as its reader would: from the top, in one folder.

Fenced ``python`` blocks share one namespace and ``console`` blocks one folder. A ``text`` block right after
either is what it printed, where ``...`` stands for anything. Code that the reader need not see lies in an
``<!-- invisible-code-block: python`` comment, as Sybil has it.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<fenced>.*?)^(?P=indent)```$"
    r"|^<!-- invisible-code-block: python\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Example:
    """One block: what it is written in, its text, the page's line where that begins, and what it has to print."""

    language: str
    text: str
    line: int
    printed: str | None = None


def examples(page: str) -> Iterator[Example]:
    """The python and console blocks of a page, in order."""
    matches = list(_BLOCK.finditer(page))
    for match, following in zip(matches, [*matches[1:], None], strict=True):
        language = match["language"] or "python"
        if language not in ("python", "console"):
            continue
        answered = (
            following is not None
            and following["language"] == "text"
            and not page[match.end() : following.start()].strip()
        )
        text = match["fenced"] if match["hidden"] is None else match["hidden"]
        yield Example(
            language,
            re.sub(rf"^{match['indent'] or ''}", "", text, flags=re.MULTILINE),
            page.count("\n", 0, match.start()) + 2,
            following["fenced"] if answered and following is not None else None,
        )


def run(path: Path, folder: Path, environment: Mapping[str, str]) -> int:
    """Run every example of the page at ``path`` with ``folder`` as the working folder; return how many there were.

    Raises AssertionError, naming page and line, where an example prints something else or a command
    fails, and whatever a python block raises.
    """
    found = list(examples(path.read_text(encoding="utf-8")))
    with _module(found, path, folder) as module:
        for example in found:
            where = f"{path.name}, line {example.line}"
            if example.language == "python":
                printed = _python(example, module)
            else:
                printed = _console(example, folder, environment, where)
            if example.printed is not None:
                _expect(example.printed, printed, where)
    return len(found)


@contextlib.contextmanager
def _module(found: list[Example], path: Path, folder: Path) -> Iterator[ModuleType]:
    """A module whose file has every python block at the lines of the page.

    So a traceback names the page's line, and a class of an example has a source text like any other.
    """
    lines: list[str] = []
    for example in found:
        if example.language == "python":
            lines += [""] * (example.line - 1 - len(lines)) + example.text.splitlines()
    name = re.sub(r"\W", "_", path.stem).lower() + "_examples"
    file = folder / f"{name}.py"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module
    try:
        yield module
    finally:
        del sys.modules[name]


def _python(example: Example, module: ModuleType) -> str:
    code = compile("\n" * (example.line - 1) + example.text, str(module.__file__), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, module.__dict__)
    return out.getvalue()


def _console(example: Example, folder: Path, environment: Mapping[str, str], where: str) -> str:
    """Run each ``$`` line; what stands below it, if anything, is what it has to print."""
    everything = ""
    for command, expected in re.findall(r"^\$ (.*(?:\\\n.*)*)\n((?:(?!\$ ).*\n)*)", example.text, re.MULTILINE):
        scripts = str(Path(sys.executable).parent)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env={**environment, "PATH": f"{scripts}:{environment['PATH']}", "COLUMNS": "120"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        everything += done.stdout
        wanted = re.search(r"# exit code (\d+)$", command)
        code = int(wanted[1]) if wanted else 0
        assert done.returncode == code, f"{where}: `{command}` exits with {done.returncode}, not {code}\n{done.stdout}"
        if expected.strip():
            _expect(expected, done.stdout, f"{where}: `{command}`")
    return everything


def _expect(wanted: str, printed: str, where: str) -> None:
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if not checker.check_output(wanted, printed, flags):
        difference = checker.output_difference(doctest.Example("", wanted), printed, flags)
        raise AssertionError(f"{where} prints something else\n{difference}")
