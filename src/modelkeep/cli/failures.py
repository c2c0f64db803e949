"""The one place where errors become words on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from modelkeep.cli.screen import printable
from modelkeep.errors import ModelkeepError

INTERRUPTED = 130  # 128 + SIGINT, as a shell would say it
READER_GONE = 141  # 128 + SIGPIPE
UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h

EXIT_CODES = """\
Exit codes:
  0   done
  2   the command line or a ref is wrong
  10  not found
  11  exists already
  12  conflict: somebody else was first
  20  integrity: bytes or answers are not what was recorded
  21  unsafe content
  22  cannot load: custom objects or environment missing
  23  a gate refused
  30  an extra is not installed
  31  the storage refused
  70  unexpected error (MODELKEEP_TRACEBACK=1 shows where)
  130 interrupted
  141 the reader of the pipe went away"""


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether ``--json`` is among the options: known before parsing, for the parser's own errors."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def report(error: BaseException, *, in_json: bool) -> int:
    """Say what went wrong on stderr, and return the exit code for it."""
    if os.environ.get("MODELKEEP_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    match error:
        case ModelkeepError():
            return _say(str(error), error.code, error.exit_code, in_json=in_json, **_parts(error))
        case click.exceptions.Exit():
            return error.exit_code
        case KeyboardInterrupt():
            return _say("interrupted", "interrupted", INTERRUPTED, in_json=in_json)
        case click.ClickException():
            return _say(_usage(error), "usage", error.exit_code, in_json=in_json)
        case SystemExit():
            return error.code if isinstance(error.code, int) else 1
        case BrokenPipeError():
            return _leave_quietly()
        case _:
            text = f"unexpected {type(error).__name__}: {error}\n  → to see where, run again with MODELKEEP_TRACEBACK=1"
            return _say(text, "unexpected", UNEXPECTED, in_json=in_json)


def warn(message: str, *, in_json: bool) -> None:
    """One warning on stderr, without the place in the code that raised it."""
    if in_json:
        click.echo(msgspec.json.encode({"warning": {"message": message}}), err=True)
    else:
        click.secho(f"warning: {printable(message)}", fg="yellow", err=True)


def _say(message: str, code: str, exit_code: int, *, in_json: bool, **parts: Any) -> int:
    if in_json:
        error = {"code": code, "exit_code": exit_code, "message": message, **parts}
        click.echo(msgspec.json.encode({"error": error}), err=True)
    else:
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(printable(message), err=True)
    return exit_code


def _parts(error: ModelkeepError) -> dict[str, Any]:
    from modelkeep.report import Report

    parts = {"what": error.what, "found": error.found, "expected": error.expected, "hint": error.hint}
    report = {"report": error.report.to_json()} if isinstance(error.report, Report) else {}
    return {name: str(value) for name, value in parts.items() if value is not None} | report


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f"\n  → {context.command_path} --help" if context else ""
    return f"{error.format_message()}{hint}"


def _leave_quietly() -> int:
    # The interpreter flushes stdout once more at exit; into nothing, then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return READER_GONE
