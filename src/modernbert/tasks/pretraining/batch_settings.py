"""How many bins a step has, and how that number grows at a run's beginning."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from modernbert.errors import SettingsError
from modernbert.settings import Doc, Settings


@dataclass(frozen=True, kw_only=True)
class RampSettings(Settings):
    """Smaller steps first (P section 2.2.2, "Batch Size Schedule").

    The size rises in equal increments to `bins_per_step`, with the same number of steps at each.

    Raises:
        SettingsError: A value is out of its range.
    """

    first_bins: Annotated[int, Ge(1), Doc("The number of bins of the first steps.")]
    increment_bins: Annotated[int, Ge(1), Doc("The number of bins by which the size rises.")]
    tokens: Annotated[int, Ge(1), Doc("The tokens of the phase before the full size is reached.")]


@dataclass(frozen=True, kw_only=True)
class BatchSettings(Settings):
    """How many bins a step has; a bin is `packing.bin_tokens` tokens, nearly all of them real.

    Raises:
        SettingsError: A value is out of its range, or a ramp does not end at `bins_per_step`.
    """

    bins_per_step: Annotated[int, Ge(1), Doc("The number of bins of a step, of all processes.")]
    bins_per_micro_batch: Annotated[
        int,
        Ge(1),
        Doc("The number of bins that go through the model at once; it affects memory and speed."),
    ] = 1
    ramp: RampSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ramp is None:
            return
        rise = self.bins_per_step - self.ramp.first_bins
        if rise <= 0 or rise % self.ramp.increment_bins:
            raise SettingsError(
                f"ramp: from {self.ramp.first_bins} bins in increments of "
                f"{self.ramp.increment_bins} it does not reach bins_per_step, {self.bins_per_step}"
            )

    def bins_at(self, tokens: int) -> int:
        """Bins of the step that begins when so many tokens of the phase were seen.

        With the same number of steps at each size, the tokens at a size are as the size is.

        >>> ramp = RampSettings(first_bins=1, increment_bins=1, tokens=600)
        >>> settings = BatchSettings(bins_per_step=4, ramp=ramp)
        >>> [settings.bins_at(tokens) for tokens in (0, 99, 100, 299, 300, 599, 600)]
        [1, 1, 2, 2, 3, 3, 4]
        """
        if self.ramp is None or tokens >= self.ramp.tokens:
            return self.bins_per_step
        sizes = range(self.ramp.first_bins, self.bins_per_step, self.ramp.increment_bins)
        total, reached = sum(sizes), 0
        for size in sizes:
            reached += size
            if tokens * total < self.ramp.tokens * reached:
                return size
        return self.bins_per_step

    def num_steps(self, tokens: int, bin_tokens: int) -> int:
        """Steps that see so many tokens if every bin is full."""
        steps = 0
        if self.ramp is not None:
            sizes = range(self.ramp.first_bins, self.bins_per_step, self.ramp.increment_bins)
            at_each = self.ramp.tokens / (sum(sizes) * bin_tokens)
            steps, tokens = round(at_each * len(sizes)), max(0, tokens - self.ramp.tokens)
        return steps + -(-tokens // (self.bins_per_step * bin_tokens))
