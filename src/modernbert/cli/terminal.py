"""What a person sees while a verb works: on stderr, so that stdout stays data."""

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from modernbert.cli.formatting import duration
from modernbert.cli.time_left import TimeLeft

if TYPE_CHECKING:
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 15.0
# Of a line of progress, without its bar: the rest of the terminal's width is the bar's.
_TEXT_WIDTH = 72


def is_first_process() -> bool:
    """Whether this process is the one that speaks: alone, or number 0 under torchrun."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0"


def tell(message: str = "") -> None:
    """One line for the person at the terminal, from the first process alone."""
    if is_first_process():
        print(message, file=sys.stderr, flush=True)


class Meter:
    """How far a piece of work is: a bar on a terminal, elsewhere a line now and then.

    >>> with Meter("reading") as meter:
    ...     meter.update(30, 100, "3 documents")
    """

    def __init__(self, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.title = title
        self._clock = clock
        self._bar: _Bar | None = None
        self._time_left = TimeLeft()
        self._last_line = -_SECONDS_BETWEEN_LINES

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and is_first_process():
            self._bar = _Bar(self.title)
        self._last_line = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: float, total: float | None, details: str) -> None:
        """Show `details` and, where the total is known, the fraction done and the time left."""
        now = self._clock()
        seconds = self._time_left.update(now, done, total)
        left = "" if seconds is None else f"{duration(seconds)} left"
        text = "  ".join(filter(None, [details, left]))
        if self._bar is not None:
            self._bar.show(self.title, done, total, text)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            fraction = f"{done / total:.0%}  " if total else ""
            tell(f"{self.title}  {fraction}{text}")

    def restart(self, title: str) -> None:
        """Begin another piece of work on the same line."""
        self.title, self._time_left = title, TimeLeft()

    def pause(self, seconds: float) -> None:
        """Tell of time in which none of the work was done, such as that of an evaluation."""
        self._time_left.pause(seconds)


class _Bar:
    """The one line of a terminal that is drawn anew."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        console = Console(stderr=True, highlight=False)
        bar_width = max(8, min(40, console.width - _TEXT_WIDTH))
        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=bar_width, complete_style="cyan", finished_style="green"),
            TaskProgressColumn(),
            TextColumn("{task.fields[details]}", markup=False),
            console=console,
            refresh_per_second=4,
            transient=True,  # what remains to be said is said by the verb
        )
        self._task: TaskID = self._progress.add_task(title, total=None, details="")
        self._progress.start()

    def show(self, title: str, done: float, total: float | None, details: str) -> None:
        self._progress.update(
            self._task, description=title, completed=done, total=total, details=details
        )

    def close(self) -> None:
        self._progress.stop()
