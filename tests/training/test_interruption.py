"""Signals as requests: noted once, at once the second time, handlers put back."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from modernbert.training.interruption import Interruption


def noted(interruption: Interruption) -> int | None:
    """The signal once it is noted, soon: the system may interrupt another thread than this one."""
    for _ in range(10_000):
        if interruption.signal_number is not None:
            break
        time.sleep(0.001)
    return interruption.signal_number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_handlers_come_back(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with Interruption() as interruption:
        assert interruption.signal_number is None
        os.kill(os.getpid(), number)
        assert noted(interruption) == number
    assert {n: signal.getsignal(n) for n in before} == before


@pytest.fixture
def usual_ctrl_c() -> Iterator[None]:
    """Python's own handler: where the tests run in the background a shell has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_ctrl_c")
def test_a_second_ctrl_c_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted(interruption) == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


def test_handlers_come_back_without_a_signal() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_it_does_nothing() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with Interruption() as interruption:
            seen.append((interruption.signal_number, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
