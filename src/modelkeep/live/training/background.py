"""One job at a time behind the training loop: hashing and durable writing, whose failure the loop hears of.

A job runs on a thread that the interpreter waits for, so a script that ends, or dies of an exception, still
finishes the checkpoint it was writing.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - registers what it does at exit, before this module does
import sys
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

Job = Callable[[], object]


class Background:
    """Runs jobs one after the other, each on a thread of its own; at most one is behind.

    An exception that a job raised is raised once, by whichever of :meth:`submit`, :meth:`raise_if_failed`,
    :meth:`wait` and :meth:`close` comes next, with the traceback of the job; where none comes, it is printed as
    the interpreter exits. An interrupted wait, as by Ctrl-C, leaves the job running. For one thread to use.
    """

    def __init__(self) -> None:
        self._idle = threading.Event()
        self._idle.set()
        self._error: BaseException | None = None
        _all.add(self)

    def submit(self, job: Job) -> None:
        """Wait for the job before, raise what it raised (``job`` is not run then), else begin ``job``."""
        self.wait()
        self._idle.clear()
        try:
            threading.Thread(target=self._run, args=(job,), name="modelkeep-checkpoint", daemon=False).start()
        except BaseException:
            self._idle.set()
            raise

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return not self._idle.is_set()

    def raise_if_failed(self) -> None:
        """Raise what a job raised, unless that was done already; does not wait."""
        error, self._error = self._error, None
        if error is not None:
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

    def _run(self, job: Job) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - it is raised again where somebody hears it
            self._error = error
        finally:
            self._idle.set()

    def _finish(self) -> None:
        """At exit nobody is left to raise to: tell it as an uncaught exception is told."""
        try:
            self.wait()
        except BaseException as error:  # noqa: BLE001
            sys.excepthook(type(error), error, error.__traceback__)


_all: weakref.WeakSet[Background] = weakref.WeakSet()


def _finish_all() -> None:
    for background in list(_all):
        background._finish()


# Private, because nothing public runs early enough: concurrent.futures, which jobs write with, takes no more work from
# the moment the interpreter begins to exit, before it waits for threads and long before atexit. What is registered here
# runs in reverse order, so before that.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
