"""Jobs behind the training loop: one at a time, none lost, no failure unheard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from pathlib import Path

import pytest

from modelkeep.live.training.background import Background
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.local import LocalStore


class _DiskFullError(Exception):
    pass


def _fail() -> None:
    raise _DiskFullError


def test_a_job_runs_behind_whoever_submits_it() -> None:
    background, gate = Background(), threading.Event()
    background.submit(gate.wait)
    assert background.busy
    gate.set()
    background.wait()
    assert not background.busy


def test_a_job_begins_when_the_one_before_is_done() -> None:
    background, order = Background(), []
    for number in range(20):
        background.submit(lambda number=number: order.append(number))
    background.close()
    assert order == list(range(20))


@pytest.mark.parametrize("hear", [Background.wait, Background.close, lambda background: background.submit(print)])
def test_what_a_job_raised_is_raised_once_with_the_place_where_it_was(hear) -> None:
    background = Background()
    background.submit(_fail)
    with pytest.raises(_DiskFullError) as caught:
        hear(background)
    assert "_fail" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    background.raise_if_failed()
    background.wait()


def test_asking_for_a_failure_does_not_wait() -> None:
    background, gate = Background(), threading.Event()
    background.submit(gate.wait)
    background.raise_if_failed()
    assert background.busy
    gate.set()
    background.close()


def test_a_job_after_one_that_failed_is_not_begun() -> None:
    background, done = Background(), []
    background.submit(_fail)
    with pytest.raises(_DiskFullError):
        background.submit(lambda: done.append(1))
    background.submit(lambda: done.append(2))
    background.wait()
    assert done == [2]


def test_leaving_a_block_waits_for_the_job() -> None:
    done = []
    with Background() as background:
        background.submit(lambda: done.append(1))
    assert done == [1]


def test_ctrl_c_while_waiting_leaves_the_job_running() -> None:
    background, gate, done = Background(), threading.Event(), []

    def job() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        gate.wait()
        done.append(1)

    def submit_and_wait() -> None:
        background.submit(job)  # it may come here already, while the thread begins
        background.wait()

    with pytest.raises(KeyboardInterrupt):
        submit_and_wait()
    assert background.busy
    gate.set()
    background.wait()
    assert done == [1]


# --- at the interpreter's exit

_WRITES_LATE = """
    import sys, time
    from modelkeep.live.training.background import Background
    from modelkeep.storage.blobs import Blobs, TensorSource
    from modelkeep.storage.local import LocalStore

    def write():
        time.sleep(0.3)  # until the main thread is at its end
        size = 2**21
        sources = [TensorSource(f"{n}", "uint8", (size,), size, lambda n=n: bytes([n]) * size) for n in range(9)]
        Blobs(LocalStore(sys.argv[1])).write(sources)

    Background().submit(write)
"""


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise LookupError('training died')"])
def test_a_process_that_ends_without_closing_finishes_what_it_was_writing(tmp_path: Path, end: str) -> None:
    LocalStore(tmp_path)
    ran = _run(textwrap.dedent(_WRITES_LATE) + end, str(tmp_path))
    assert len(list(Blobs(LocalStore(tmp_path)).store.list("blobs/"))) == 9, ran.stderr
    assert "cannot schedule" not in ran.stderr


def test_what_nobody_heard_of_is_told_at_exit() -> None:
    ran = _run("""
        from modelkeep.live.training.background import Background

        def write():
            raise OSError("no space left")

        Background().submit(write)
    """)
    assert "in write" in ran.stderr
    assert ran.stderr.endswith("OSError: no space left\n")


def test_what_was_raised_is_not_told_again_at_exit() -> None:
    ran = _run("""
        from modelkeep.live.training.background import Background

        background = Background()
        background.submit(lambda: 1 / 0)
        try:
            background.close()
        except ZeroDivisionError:
            pass
    """)
    assert (ran.returncode, ran.stderr) == (0, "")
