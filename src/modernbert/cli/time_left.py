"""How long a piece of work will still take."""

import math

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
