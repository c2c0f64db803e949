"""The git commit a version was made at, asked of the ``git`` command; never a reason for a save to fail."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 5.0  # seconds; a cold, large working tree may take longer, and then the save goes on without


@dataclass(frozen=True, slots=True)
class GitState:
    """The commit checked out, and whether tracked files differ from it."""

    commit: str
    dirty: bool


def read(path: str | os.PathLike[str] | None = None, *, timeout: float = TIMEOUT) -> GitState | None:
    """The state of the repository around ``path`` (default: the working directory).

    None outside a repository, before its first commit, without git, and when git fails or is too slow.
    Untracked files do not make a state dirty: data and models often lie beside the code.
    """
    # One question for both answers; no lock is taken, and no program that the repository names is run.
    command = ["git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        answer = subprocess.run(
            command,
            cwd=path or Path.cwd(),
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = answer.stdout.decode(errors="replace").splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    if not commits or commits == ["(initial)"]:
        return None
    return GitState(commits[0], dirty=any(not line.startswith("#") for line in lines))
