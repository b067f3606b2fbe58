"""SIGINT and SIGTERM as a request to stop after the current step."""

import signal
import threading
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal stopped a run; all of it is saved, and the same call continues it.

    It is a `KeyboardInterrupt`, so that code around a training that goes on after errors stops too.

    Args:
        exit_code: The exit code that a shell expects.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"stopped by signal {self.exit_code - 128}, all of it saved; the same call continues"


class Interruption:
    """A context in which the first SIGINT or SIGTERM is noted and a second acts as usual.

    The handlers of before are put back at the end. Outside the main thread, where Python allows
    no handlers, it does nothing.

    signal_number: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, signal_number: int, _frame: FrameType | None) -> None:
        self.signal_number = signal_number
        self._restore()  # whoever asks twice does not want to wait

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None stands for a handler that was not set from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
