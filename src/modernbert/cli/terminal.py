"""What a person sees: numbers in words, and progress on stderr, so that stdout stays data."""

import io
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from modernbert.display import Bar, in_notebook, open_bar

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_FIRST_SECONDS = 5.0
_SHORTEST_MEMORY_SECONDS = 30.0
_MEMORY_SHARE = 0.25


class TimeLeft:
    """Estimates the time that is left from the recent rate, and from pauses that come again.

    The rate is an average in which older work counts less and less. Its memory grows with the work:
    half a minute at first, a quarter of the time later. So it follows a machine that has become
    busier within minutes, and a step that took ten times as long hardly moves it.

    Pauses, such as evaluations and checkpoints, are told with `pause`. They are not part of the
    rate; what is still to come of them is taken to be as much for each unit of work as so far.
    """

    def __init__(self) -> None:
        self._begun: tuple[float, float] | None = None
        self._last = (0.0, 0.0)
        self._recent_seconds = self._recent_done = 0.0
        self._pause_seconds = self._new_pause_seconds = 0.0

    def pause(self, seconds: float) -> None:
        """Tell of time that passed since the last update without any of the work being done."""
        self._new_pause_seconds += seconds

    def update(self, now: float, done: float, total: float | None) -> float | None:
        """Take in how far the work is.

        Args:
            now: The time in seconds.
            done: What is done of the work, in any unit.
            total: All of the work; None where it is not known.

        Returns:
            The seconds that are left; None as long as nothing can be said.
        """
        if self._begun is None or done < self._last[1]:
            self._begin(now, done)
            return None
        self._remember(now, done)
        began, first = self._begun
        if total is None or done >= total or done <= first or now - began < _FIRST_SECONDS:
            return None
        seconds_each = self._recent_seconds / self._recent_done
        seconds_each += self._pause_seconds / (done - first)
        return seconds_each * (total - done)

    def _begin(self, now: float, done: float) -> None:
        self._begun = self._last = now, done
        self._recent_seconds = self._recent_done = 0.0
        self._pause_seconds = self._new_pause_seconds = 0.0

    def _remember(self, now: float, done: float) -> None:
        """Let what was before fade, and add what is new."""
        assert self._begun is not None
        passed = now - self._last[0]
        paused = min(self._new_pause_seconds, passed)
        memory = max(_SHORTEST_MEMORY_SECONDS, _MEMORY_SHARE * (now - self._begun[0]))
        fading = math.exp(-(passed - paused) / memory)
        self._recent_seconds = fading * self._recent_seconds + passed - paused
        self._recent_done = fading * self._recent_done + done - self._last[1]
        self._pause_seconds += paused
        self._new_pause_seconds = 0.0
        self._last = now, done


_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_TO_FIRST_LINE = 1.0

# C0 and C1 without tab and line end, what turns the direction of writing, and halves of characters.
_CONTROLS = "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
_UNWANTED = re.compile(_CONTROLS)
_UNWANTED_BUT_COLORS = re.compile(rf"(?!\x1b\[[0-9;]*m){_CONTROLS}")


def is_first_process() -> bool:
    """Return whether this process is the one that speaks: alone, or number 0 under torchrun."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0"


def visible(text: str, *, colors: bool = False) -> str:
    r"""Show control characters of a stranger's text as escapes, so that a terminal obeys none.

    Args:
        text: Line ends and tabs in it stay.
        colors: Whether the sequences that set colors stay too.

    >>> visible("a label\x1b[2J")
    'a label\\x1b[2J'
    """
    unwanted = _UNWANTED_BUT_COLORS if colors else _UNWANTED
    return unwanted.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _VisibleOutput(io.TextIOWrapper):
    """Text for a terminal, in which a stranger's control characters are escapes."""

    def write(self, text: str) -> int:
        return super().write(visible(text, colors=True))


@contextmanager
def visible_output() -> Iterator[None]:
    """Let nothing that is printed reach a terminal as a command to it; elsewhere it is data."""
    before = sys.stdout
    if isinstance(before, io.TextIOWrapper):
        before.reconfigure(errors="backslashreplace")  # names of files may have no UTF-8 form
    if not before.isatty():
        yield
        return
    before.flush()
    shown = _VisibleOutput(
        before.buffer, before.encoding, errors="backslashreplace", line_buffering=True
    )
    sys.stdout = shown
    try:
        yield
    finally:
        sys.stdout = before
        shown.detach()  # which flushes, and leaves the buffer open


def tell(message: str = "") -> None:
    """Tell the person at the terminal or notebook a line, from the first process alone."""
    if is_first_process():  # a notebook shows what is on stderr as if it were an error
        stream = sys.stdout if in_notebook() else sys.stderr
        print(visible(message), file=stream, flush=True)


class Meter:
    """How far a piece of work is: a bar on a terminal or notebook, elsewhere a line now and then.

    >>> with Meter("reading") as meter:
    ...     meter.update(30, 100, "3 documents")
    """

    def __init__(self, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.title = title
        self._clock = clock
        self._bar: Bar | None = None
        self._time_left = TimeLeft()
        self._last_line = -_SECONDS_BETWEEN_LINES

    def __enter__(self) -> Self:
        if (in_notebook() or sys.stderr.isatty()) and is_first_process():
            self._bar = open_bar(self.title)
        self._last_line = self._clock() - _SECONDS_BETWEEN_LINES + _SECONDS_TO_FIRST_LINE
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
            fraction = f"{done / total:.0%}" if total else ""
            tell("  ".join(filter(None, [self.title, fraction, text])))

    def restart(self, title: str) -> None:
        """Begin another piece of work on the same line."""
        self.title, self._time_left = title, TimeLeft()

    def pause(self, seconds: float) -> None:
        """Tell of time in which none of the work was done, such as that of an evaluation."""
        self._time_left.pause(seconds)


def short_count(number: float) -> str:
    """Write a large number in three digits.

    >>> short_count(949), short_count(3_412_000), short_count(149_655_232), short_count(1.719e12)
    ('949', '3.41M', '150M', '1.72T')
    """
    rounded = float(f"{number:.3g}")  # first, so that 999,999 is 1.00M and not 1000k
    for size, unit in _UNITS:
        if rounded >= size:
            scaled = rounded / size
            digits = max(0, 2 - int(math.log10(scaled)))
            return f"{scaled:.{digits}f}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Write minutes and seconds, with hours and days when there are any.

    >>> duration(65), duration(3725), duration(200_000)
    ('1:05', '1:02:05', '2d 7:33:20')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if not (days or hours):
        return f"{minutes}:{rest:02d}"
    return (f"{days}d " if days else "") + f"{hours}:{minutes:02d}:{rest:02d}"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun.

    >>> counted(1, "document"), counted(1200, "document"), counted(2, "query")
    ('1 document', '1,200 documents', '2 queries')
    """
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else several}"


def lines(description: Mapping[str, Any], *, indent: str = "") -> Iterator[str]:
    r"""Format a description as aligned lines, with nested values indented below their names.

    >>> print(*lines({"num_layers": 22, "window": {"layers": 14}}), sep="\n")
    num layers  22
    window
      layers  14
    """
    flat = [name for name, value in description.items() if not _is_nested(value)]
    width = max((len(name) for name in flat), default=0)
    for name, value in description.items():
        label = name.replace("_", " ")
        if not _is_nested(value):
            yield f"{indent}{label:<{width}}  {_value(value)}"
            continue
        yield f"{indent}{label}"
        if isinstance(value, Mapping):
            yield from lines(value, indent=indent + "  ")
        else:
            yield from (f"{indent}  {_record(record)}" for record in value)


def _is_nested(value: Any) -> bool:
    """Whether it takes lines of its own: a description, or a list of records."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, Mapping) and each for each in value)
    return isinstance(value, Mapping) and bool(value)


def _record(record: Mapping[str, Any]) -> str:
    """One line: the first value names the record."""
    first, *rest = record.items()
    return "  ".join([_value(first[1]), *(f"{name} {_value(value)}" for name, value in rest)])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, Mapping):
        return _record(value) if value else "none"
    return str(value)
