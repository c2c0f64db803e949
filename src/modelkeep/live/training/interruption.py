"""SIGTERM and SIGINT taken as a wish to stop at the next step, so that nothing trained is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Inside, the first signal is remembered in ``received``; a second one does at once what it did before.

    Where ``heeded`` says that nobody is there any more to ask, so does the first. Signals reach the main thread alone,
    so in any other this does nothing. A process that is forked inside, such as a worker that makes batches, is ended by
    SIGTERM as ever; Ctrl-C reaches it too, and is for the training to heed.
    """

    def __init__(self, heeded: Callable[[], bool] = lambda: True) -> None:
        self.received: int | None = None
        self._heeded = heeded
        self._before: Mapping[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            # A process started to ignore a signal (nohup) goes on ignoring it.
            ours = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
            self._before = {number: signal.signal(number, self._receive) for number in ours}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.__exit__()  # whoever asks twice does not want to wait
        if self._heeded() and (os.getpid() == self._process or number == signal.SIGINT):
            self.received = number
        else:
            os.kill(os.getpid(), number)

    def leave(self) -> NoReturn:
        """End as the signal asks: KeyboardInterrupt, or SystemExit with the code of a process that it ended."""
        number, self.received = self.received, None
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + int(number or signal.SIGTERM))
