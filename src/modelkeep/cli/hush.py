"""Native libraries log to file descriptor 2 whatever one asks of them; here that does not reach the screen."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Descriptor 2 leads nowhere for a while, and ``sys.stderr`` still to where it led.

    A native crash is told by faulthandler. With ``$MODELKEEP_TRACEBACK`` everything is let through.
    """
    if os.environ.get("MODELKEEP_TRACEBACK") or not _stderr_is_descriptor_2():
        yield
        return
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        screen = stack.enter_context(os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace"))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        stack.callback(os.dup2, screen.fileno(), 2)
        if not faulthandler.is_enabled():
            faulthandler.enable(screen)
            stack.callback(faulthandler.disable)
        stack.enter_context(contextlib.redirect_stderr(screen))
        # A logger made in here keeps the screen, and may speak once more when an interrupted library tidies up.
        logging.raiseExceptions = False
        yield


def _stderr_is_descriptor_2() -> bool:
    try:
        return sys.stderr.fileno() == 2
    except OSError:  # a stream of somebody's own, without a descriptor
        return False
