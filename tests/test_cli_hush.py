"""What native libraries write to descriptor 2 stays off the screen; what Python says does not."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import os, sys, click
from modelkeep.cli.hush import hushed
with hushed():
    os.write(2, b"I0000 oneDNN custom operations are on\\n")
    print("python says so", file=sys.stderr)
    click.echo("click says so", err=True)
    {more}
os.write(2, b"afterwards\\n")
"""


def said(more: str = "", **environment: str) -> list[str]:
    script = SCRIPT.format(more=more)
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, capture_output=True, text=True
    )
    return done.stderr.splitlines()


def test_native_chatter_goes_nowhere_and_python_is_heard() -> None:
    assert said() == ["python says so", "click says so", "afterwards"]


def test_a_logger_that_outlives_it_is_no_error() -> None:
    made = "import logging; logging.basicConfig(); import atexit; atexit.register(logging.error, 'too late')"
    assert said(more=made) == ["python says so", "click says so", "afterwards"]


def test_a_native_crash_is_not_silent() -> None:
    assert "Fatal Python error: Aborted" in said(more="os.abort()")


def test_whoever_wants_to_see_where_it_fails_hears_all() -> None:
    assert said(MODELKEEP_TRACEBACK="1")[0] == "I0000 oneDNN custom operations are on"
