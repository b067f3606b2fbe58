"""`python -m modernbert` and the command `modernbert`: the command line, which Ctrl-C always stops.

Before a verb begins and after it has ended there is nothing to keep, so the process ends at once.
In between the signal is a `KeyboardInterrupt`. Code of other libraries may swallow that, in a
destructor for instance, so it is raised again after a while unless it was seen.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

_STOPPED = 130
_SECONDS_UNTIL_AGAIN = 3.0


def run() -> None:
    """Run the verb of the command line and leave with its exit code."""
    takes_signals = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not with nohup
    if takes_signals and hasattr(signal, "SIGALRM"):  # which Windows has not
        signal.signal(signal.SIGINT, _leave)
        signal.signal(signal.SIGALRM, _interrupt)
        sys.unraisablehook = _tell_unraisable
    from modernbert.cli import main

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        main()
    except KeyboardInterrupt:  # between two lines of the command line itself
        _leave()
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, _leave)


def _leave(_number: int = 0, _frame: FrameType | None = None) -> NoReturn:
    os.write(2, b"stopped\n")
    os._exit(_STOPPED)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.setitimer(signal.ITIMER_REAL, _SECONDS_UNTIL_AGAIN)
    raise KeyboardInterrupt


def _tell_unraisable(unraisable: Any) -> None:
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    run()
