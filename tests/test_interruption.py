"""The first signal asks a training to stop at its next step; the second does not wait."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from modelkeep.live.training.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_remembered_and_nothing_else_happens(number: int) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert interruption.received is None
        os.kill(os.getpid(), number)
        assert interruption.received == number
    assert signal.getsignal(number) is before


def test_the_second_signal_does_what_it_did_before() -> None:
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_where_nobody_asks_any_more_the_first_one_does_what_it_did_before() -> None:
    interruption = Interruption(lambda: False).__enter__()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert interruption.received is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_leaving_ends_as_the_signal_asks() -> None:
    interruption = Interruption()
    interruption.received = signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        interruption.leave()
    interruption.received = signal.SIGTERM
    with pytest.raises(SystemExit) as ended:
        interruption.leave()
    assert ended.value.code == 143


def test_a_process_that_ignores_a_signal_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.received is None
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_of_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with Interruption():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
