"""Steps that a device may still be computing, and what is told of them in the end."""

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from modernbert.devices import Underway
from modernbert.training.health import Verdict
from modernbert.training.task import Step

_WINDOW_STEPS = 20


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
        self._laps: deque[tuple[int, float]] = deque(maxlen=_WINDOW_STEPS)

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
