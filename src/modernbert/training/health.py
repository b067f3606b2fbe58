"""Which steps are taken: what to do about losses that are no numbers, or far too large."""

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any

from modernbert.training.training_settings import TrainingSettings

_WINDOW_STEPS = 64
_LEAST_STEPS = 16  # before these a median says little


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is said of a step before it is taken.

    spike: the median that its loss exceeds by far, or None.
    reason: why the step is not to be taken, or None.
    """

    spike: float | None = None
    reason: str | None = None


class Health:
    """A run's memory of its losses; it is part of every checkpoint, so that a resume decides alike.

    skipped_in_a_row: steps that were not taken since the last one that was.
    went_back_at: the step at which the run last went back to an earlier checkpoint, or -1.
    """

    def __init__(self) -> None:
        self.skipped_in_a_row = 0
        self.went_back_at = -1
        self._losses: deque[float] = deque(maxlen=_WINDOW_STEPS)

    def judge(self, loss: float, gradient_norm: float, settings: TrainingSettings) -> Verdict:
        """Whether a step is taken; what is skipped is counted and leaves no other trace."""
        verdict = self._verdict(loss, gradient_norm, settings)
        if verdict.reason is not None:
            self.skipped_in_a_row += 1
            return verdict
        self.skipped_in_a_row = 0
        if settings.spike_factor is not None:
            self._losses.append(loss)
        return verdict

    def _verdict(self, loss: float, gradient_norm: float, settings: TrainingSettings) -> Verdict:
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            return Verdict(reason=f"the loss is {loss}, the gradient norm {gradient_norm}")
        if settings.spike_factor is None or len(self._losses) < _LEAST_STEPS:
            return Verdict()
        usual = median(self._losses)
        if loss <= settings.spike_factor * usual:
            return Verdict()
        reason = f"the loss is {loss:.4g} where {usual:.4g} is usual"
        return Verdict(spike=usual, reason=reason if settings.skip_spikes else None)

    def state(self) -> dict[str, Any]:
        """The memory as JSON values."""
        return {
            "skipped_in_a_row": self.skipped_in_a_row,
            "went_back_at": self.went_back_at,
            "losses": list(self._losses),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Remember what `state` gave."""
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.went_back_at = state["went_back_at"]
        self._losses = deque(state["losses"], maxlen=_WINDOW_STEPS)
