"""Bars for work that takes longer than a second, on a terminal's stderr; silent everywhere else."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from modelkeep.sizes import human_bytes

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

PATIENCE = 1.0  # seconds of work before a bar appears


class Bars:
    """A ``progress(what, done, total)`` for Keep. Called from any thread; leaves no trace when it ends."""

    def __init__(self) -> None:
        self._visible = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        self._progress: Progress | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """``what`` is being done; ``done`` of ``total`` bytes (or steps) are behind."""
        if not self._visible:
            return
        with self._lock:
            began = self._began.setdefault(what, time.monotonic())
            if what in self._tasks or (time.monotonic() - began >= PATIENCE and done < total):
                self._draw(what, done, total)

    def _draw(self, what: str, done: int, total: int) -> None:
        progress = self._progress = self._progress or _started()
        amount = _amount(done, total, seconds=time.monotonic() - self._began[what])
        if what not in self._tasks:
            self._tasks[what] = progress.add_task(what, total=total, amount=amount)
        progress.update(self._tasks[what], completed=done, total=total, amount=amount)


def _amount(done: int, total: int, *, seconds: float) -> str:
    """How much of how much, and how much a second."""
    rate = done / seconds if seconds else 0.0
    # What takes a second moves megabytes, or else counts models, layers, versions.
    if total < 10**6:
        return f"{done} of {total}  {rate:.1f}/s"
    return f"{human_bytes(done)} of {human_bytes(total)}  {human_bytes(round(rate))}/s"


def _started() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    progress.start()
    return progress
