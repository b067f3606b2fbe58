"""What becomes of steps: which are taken, and those that a device may still be computing."""

import math
import time
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any

from torch import Tensor

from modernbert.devices import Underway
from modernbert.training.task import Step
from modernbert.training.training_settings import TrainingSettings

_WINDOW_STEPS = 64
_LEAST_STEPS = 16  # before these a median says little
_LATE = 2  # so many steps before a step end those that it is measured by
_SPEED_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on a step.

    Attributes:
        spike: The median that its loss exceeds by far, or None.
        reason: Why the step was not taken, or None.
    """

    spike: float | None = None
    reason: str | None = None


class Health:
    """A run's memory of its losses, saved in every checkpoint, so that a resumed run decides alike.

    The device that has the loss decides by `limit` whether a step is taken. The host learns of it
    later, perhaps only when the next step is in progress. Therefore `limit` does not look at the
    previous step.

    Attributes:
        skipped_in_a_row: The number of steps that were skipped since the last one that was taken.
        went_back_at: The step at which the run last went back to an earlier checkpoint, or -1.
    """

    def __init__(self) -> None:
        self.skipped_in_a_row = 0
        self.went_back_at = -1
        # The last steps that were taken, and their losses.
        self._losses: deque[tuple[int, float]] = deque(maxlen=_WINDOW_STEPS + _LATE - 1)

    def limit(self, step: int, settings: TrainingSettings) -> float:
        """Return the highest loss with which a step is taken; infinite for any loss."""
        usual = self._usual(step, settings)
        if usual is None or settings.spike_factor is None or not settings.skip_spikes:
            return math.inf
        return settings.spike_factor * usual

    def judge(
        self,
        step: int,
        loss: float,
        gradient_norm: float,
        settings: TrainingSettings,
        *,
        taken: bool,
    ) -> Verdict:
        """Record a step and say what is wrong with it; skipped steps are only counted.

        Args:
            step: The number of the step.
            loss: Its mean loss.
            gradient_norm: The norm of its gradients.
            settings: The settings of the training.
            taken: Whether loss and norm were finite and the loss within `limit`.

        Returns:
            The verdict on the step.
        """
        usual = self._usual(step, settings)
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            verdict = Verdict(reason=f"the loss is {loss}, the gradient norm {gradient_norm}")
        elif usual is not None and loss > (settings.spike_factor or math.inf) * usual:
            reason = f"the loss is {loss:.4g} where {usual:.4g} is usual"
            verdict = Verdict(spike=usual, reason=None if taken else reason)
        else:
            verdict = Verdict()
        self.skipped_in_a_row = 0 if taken else self.skipped_in_a_row + 1
        if taken and settings.spike_factor is not None:
            self._losses.append((step, loss))
        return verdict

    def _usual(self, step: int, settings: TrainingSettings) -> float | None:
        """Return the median loss against which a step is measured, or None."""
        losses = [loss for earlier, loss in self._losses if earlier <= step - _LATE]
        if settings.spike_factor is None or len(losses) < _LEAST_STEPS:
            return None
        return median(losses[-_WINDOW_STEPS:])

    def state(self) -> dict[str, Any]:
        """Return the memory as JSON values."""
        return {
            "skipped_in_a_row": self.skipped_in_a_row,
            "went_back_at": self.went_back_at,
            "losses": [list(each) for each in self._losses],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.went_back_at = state["went_back_at"]
        self._losses.clear()
        self._losses.extend((step, loss) for step, loss in state["losses"])


@dataclass(frozen=True, kw_only=True)
class LaunchedStep:
    """A step that a device may still be computing.

    Attributes:
        rate: The learning rate.
        figures: (4,). Its loss, how many processes were told to stop, its gradient norm, and
            whether it is taken.
        started: By the clock, waiting for its data included.
    """

    step: Step
    rate: float
    figures: Underway[Tensor]
    started: float
    data_wait_seconds: float


class Stopwatch:
    """How long each step takes, and how fast tokens go by, waiting for data included."""

    def __init__(self) -> None:
        self._last = 0.0
        self._laps: deque[tuple[int, float]] = deque(maxlen=_SPEED_STEPS)

    def lap(self, launched: LaunchedStep) -> tuple[float, float]:
        """Return the seconds of the step that is over, and the tokens a second of the last ones."""
        now = time.perf_counter()
        seconds = now - max(launched.started, self._last)
        self._last = now
        self._laps.append((launched.step.num_tokens, seconds))
        num_tokens, total = (sum(column) for column in zip(*self._laps, strict=True))
        return seconds, num_tokens / max(1e-9, total)


def step_record(
    launched: LaunchedStep, loss: float, gradient_norm: float, verdict: Verdict, watch: Stopwatch
) -> dict[str, Any]:
    """Return what the log is told of a step that is over now."""
    step = launched.step
    seconds, tokens_per_second = watch.lap(launched)
    return {
        "step": step.progress.step,
        "tokens": step.progress.tokens,
        "loss": _finite(loss),
        "learning_rate": launched.rate,
        "gradient_norm": _finite(gradient_norm),
        "num_tokens": step.num_tokens,
        "num_targets": step.num_targets,
        "tokens_per_second": tokens_per_second,
        "fill": step.fill,
        "data_wait_seconds": launched.data_wait_seconds,
        **step.figures,
        "seconds": seconds,
        **({} if verdict.reason is None else {"reason": verdict.reason}),
    }


def _finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None
