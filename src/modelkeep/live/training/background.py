"""One job at a time behind the training loop: hashing and durable writing, whose failure the loop hears of.

A job runs on a thread that the interpreter waits for, so a script that ends, or dies of an exception, still
finishes the checkpoint it was writing.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - registers what it does at exit, before this module does
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

Job = Callable[[], object]
_LET_GO = 0.001  # seconds in which the loop goes on to its next step: a job holds the interpreter's lock for up to 5 ms
_NICE = 5  # enough for steps to take as long as ever; more would keep a last checkpoint from a busy machine


class Background:
    """Runs jobs one after the other, each on a thread of its own; at most one is behind.

    An exception that a job raised is raised once, by whichever of :meth:`submit`, :meth:`raise_if_failed`,
    :meth:`wait` and :meth:`close` comes next, with the traceback of the job; where none comes, it is printed as
    the interpreter exits. An interrupted wait, as by Ctrl-C, leaves the job running. For one thread to use.
    """

    def __init__(self) -> None:
        self._idle = threading.Event()
        self._idle.set()
        self._jobs: deque[Job] = deque()  # none or one, until a thread has taken it
        self._error: BaseException | None = None

    def submit(self, job: Job) -> None:
        """Wait for the job before, raise what it raised (``job`` is not run then), else begin ``job``."""
        self.wait()
        self._jobs.append(job)
        self._idle.clear()
        _not_heard_of.add(self)
        try:
            self._start()
        except BaseException:
            # Mostly of a signal that came just now: whether the thread is there or not, after another one it is.
            self._start()
            raise

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return not self._idle.is_set()

    def raise_if_failed(self) -> None:
        """Raise what a job raised, unless that was done already; does not wait."""
        error, self._error = self._error, None
        if error is not None:
            _not_heard_of.discard(self)
            raise error

    def wait(self) -> None:
        """Wait until no job runs, then raise what it raised."""
        self._idle.wait()
        self.raise_if_failed()

    def close(self) -> None:
        """The same as :meth:`wait`, for the end of a training."""
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="modelkeep-checkpoint", daemon=False).start()
        except RuntimeError:  # the system has no more threads
            if self._jobs:
                self._jobs.clear()
                self._over()
            raise

    def _run(self) -> None:
        try:
            job = self._jobs.pop()
        except IndexError:
            return
        time.sleep(_LET_GO)
        _step_back()
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - it is raised again where somebody hears it
            self._error = error
        self._over()

    def _over(self) -> None:
        if self._error is None:
            _not_heard_of.discard(self)
        self._idle.set()

    def _finish(self) -> None:
        """At exit nobody is left to raise to: tell it as what nobody caught is told."""
        self._idle.wait()
        if self._error is not None:
            sys.excepthook(type(self._error), self._error, self._error.__traceback__)


def _step_back() -> None:
    """Let training have the processors first, on Linux, where each thread has a priority and hands it on."""
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)


_not_heard_of: set[Background] = set()  # what still runs, or failed and was not asked since


def _finish_all() -> None:
    for background in list(_not_heard_of):
        background._finish()


# Private, because nothing public runs early enough: concurrent.futures, which jobs write with, takes no more work once
# the interpreter begins to exit: before it waits for threads, and long before `atexit`. What is registered here runs in
# reverse order, so before that.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_not_heard_of.clear)  # there is no such thread there, and no end to wait for
