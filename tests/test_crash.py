"""Saves that are killed, starved of disk, or interrupted by faults: nothing that was kept is ever lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import modelkeep as mk

pytestmark = [pytest.mark.keras, pytest.mark.slow]

KILLS = 200


class Saver:
    """A process that saves in children of its own, and whose child can be killed at any moment."""

    def __init__(self, store: Path) -> None:
        command = [sys.executable, str(Path(__file__).parent / "saver.py"), str(store)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.expect("ready")

    def expect(self, *words: str) -> tuple[str, int]:
        assert self.process.stdout is not None
        word, pid = self.process.stdout.readline().split()
        assert word in words
        return word, int(pid)

    def begin(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.expect("saving")[1]

    def finish(self) -> bool:
        """Wait for the child's end; whether it came to say that it had saved."""
        saved = self.expect("saved", "done")[0] == "saved"
        if saved:
            self.expect("done")
        return saved

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[Saver]:
    saver = Saver(tmp_path / "models")
    yield saver
    saver.close()


def seconds_of_a_save(saver: Saver) -> float:
    saver.begin()
    started = time.monotonic()
    assert saver.finish()
    return time.monotonic() - started


def test_a_save_killed_at_any_moment_leaves_every_version_whole(saver, tmp_path):
    moment = random.Random(20)
    usual = min(seconds_of_a_save(saver) for _ in range(3))
    keep = mk.open(tmp_path / "models")
    known = {version.ref: version.digest for version in keep.versions("m")}
    midway = 0
    for number in range(KILLS):
        child = saver.begin()
        time.sleep(moment.random() * usual)
        with suppress(ProcessLookupError):  # it was done before
            os.kill(child, signal.SIGKILL)
        midway += not saver.finish()
        now = {version.ref: version.digest for version in mk.open(tmp_path / "models").versions("m")}
        assert known.items() <= now.items(), f"kill {number} lost a version"
        assert len(now) - len(known) <= 1
        for ref in (*(now.keys() - known.keys()), random.choice(list(now))):
            keep.verify(ref).raise_for_failures()
        known = now
    assert midway > KILLS // 3, f"only {midway} of {KILLS} kills came in time"
    seconds_of_a_save(saver)
    report = keep.fsck()
    report.raise_for_failures()
    print(f"{midway} of {KILLS} kills came midway; {len(known)} versions, none lost")
