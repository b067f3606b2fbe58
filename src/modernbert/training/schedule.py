"""The learning rate as a pure function of tokens (P section 2.2.2 and table 3).

Nothing is remembered between steps: a run that resumes at some count of tokens has the rate that
an unbroken one has there.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from modernbert.errors import SettingsError
from modernbert.settings import Doc, Settings


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings(Settings):
    """Linear warm-up from 0, then the peak rate, then perhaps a decay at the end of the phase.

    Raises:
        SettingsError: A value is out of its range, or a decay has no length or the reverse.
    """

    peak_learning_rate: Annotated[float, Gt(0), Doc("The learning rate between warm-up and decay.")]
    warmup_tokens: Annotated[
        int, Ge(0), Doc("The number of tokens over which the rate rises from 0.")
    ] = 0
    decay: Annotated[
        Literal["constant", "1-sqrt", "linear"],
        Doc(
            "`constant` keeps the peak to the end; the others lower the rate over the last tokens."
        ),
    ] = "constant"
    decay_tokens: Annotated[
        int, Ge(0), Doc("The length of the decay in tokens; 0 for `constant`.")
    ] = 0
    final_fraction: Annotated[
        float,
        Interval(ge=0, le=1),
        Doc("The rate after the last token, relative to the peak."),
    ] = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.decay != "constant") != (self.decay_tokens > 0):
            raise SettingsError(
                f'decay_tokens: got {self.decay_tokens} with decay = "{self.decay}"; "1-sqrt" and '
                '"linear" need their length in tokens, "constant" has none'
            )

    def check_fits(self, total_tokens: int) -> None:
        """Refuse a phase that is shorter than its warm-up and its decay together.

        Raises:
            SettingsError: Naming the three lengths.
        """
        if self.warmup_tokens + self.decay_tokens > total_tokens:
            raise SettingsError(
                f"warmup_tokens ({self.warmup_tokens}) and decay_tokens ({self.decay_tokens}) "
                f"together are more than the run's {total_tokens} tokens"
            )


def learning_rate(settings: ScheduleSettings, tokens: int, total_tokens: int) -> float:
    """Return the rate of the step that ENDS at `tokens`, of a phase of `total_tokens`.

    Counting a step's own tokens gives the first step of a warm-up a rate above 0 and the last of
    a decay exactly `final_fraction` of the peak. With n tokens, N in total, N_c of decay and the
    final fraction a, the decay is a + (1 - a) * (1 - sqrt((n - (N - N_c)) / N_c)), or without
    the root when it is linear.

    >>> settings = ScheduleSettings(
    ...     peak_learning_rate=8.0, warmup_tokens=100, decay="1-sqrt", decay_tokens=400,
    ...     final_fraction=0.0)
    >>> [learning_rate(settings, tokens, 1000) for tokens in (25, 100, 600, 700, 1000)]
    [2.0, 8.0, 8.0, 4.0, 0.0]
    """
    tokens = min(tokens, total_tokens)
    if tokens < settings.warmup_tokens:
        return settings.peak_learning_rate * tokens / settings.warmup_tokens
    decayed = tokens - (total_tokens - settings.decay_tokens)
    if decayed <= 0:
        return settings.peak_learning_rate
    share = decayed / settings.decay_tokens
    remaining = 1 - (share if settings.decay == "linear" else math.sqrt(share))
    fraction = settings.final_fraction + (1 - settings.final_fraction) * remaining
    return settings.peak_learning_rate * fraction
