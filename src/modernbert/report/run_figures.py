"""What is derived from a run's log: means, shares, borders and the account of each phase."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modernbert.report.history import Curve, Row, RunHistory, number

# A mean is over this fraction of the run on either side.
_SMOOTHING = 0.015


@dataclass(frozen=True, kw_only=True)
class PhaseAccount:
    """What a phase came to, as far as the run is.

    seconds: of its steps alone.
    evaluation: the figures of its last evaluation; empty when it has none.
    """

    name: str
    num_steps: int
    tokens: float
    seconds: float
    evaluation: Mapping[str, Any]

    @property
    def tokens_per_second(self) -> float:
        """Over all of its steps together."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def smooth(curve: Curve) -> Curve:
    """Means over a few hundredths of the run around each point."""
    return curve.smoothed(round(len(curve.tokens) * _SMOOTHING))


def mean_curve(history: RunHistory, figure: str) -> Curve:
    """The means of a figure that every step has; numbers that are infinite are left out."""
    curve = history.curve(figure)
    finite = np.isfinite(curve.values)
    return smooth(Curve(curve.tokens[finite], curve.values[finite]))


def ratio(history: RunHistory, above: str, below: str, scale: float = 1.0) -> Curve:
    """A sum over another around each point, such as tokens by seconds, times `scale`."""
    tokens, values, divisors = (history.column(name) for name in ("tokens", above, below))
    fine = np.isfinite(tokens) & np.isfinite(values) & (divisors > 0)
    sums = smooth(Curve(tokens[fine], values[fine])).values
    return Curve(tokens[fine], scale * sums / smooth(Curve(tokens[fine], divisors[fine])).values)


def phase_spans(history: RunHistory) -> list[tuple[float, float, str]]:
    """From how many tokens to how many each phase went so far, and its name."""
    phases, tokens = history.phase_of_steps, history.column("tokens")
    firsts = [int(np.argmax(phases == index)) for index in range(len(history.phases))]
    starts = [float(tokens[first - 1]) if first else 0.0 for first in firsts]
    ends = [*starts, history.last_tokens][1:]
    return list(zip(starts, ends, history.phases, strict=False))


def phase_accounts(history: RunHistory) -> list[PhaseAccount]:
    """The account of each phase, in their order."""
    phases, seconds = history.phase_of_steps, history.column("seconds")
    return [
        PhaseAccount(
            name=name,
            num_steps=int((phases == index).sum()),
            tokens=end - start,
            seconds=float(np.nansum(seconds[phases == index])),
            evaluation=_last_evaluation(history, name, end),
        )
        for index, (start, end, name) in enumerate(phase_spans(history))
    ]


def matmul_ceiling(history: RunHistory) -> float | None:
    """Operations a second of matrix products, of all processes, if they were measured.

    As the last start or resume found them, on its machine.
    """
    for row in reversed(history.starts):
        rate = number(row.get("matmul_flops_per_second")) * (row.get("num_processes") or 1)
        if rate > 0:
            return rate
    return None


def _last_evaluation(history: RunHistory, phase: str, end: float) -> Row:
    """That of a phase; where evaluations name none, the last one up to its end."""
    found: Row = {}
    for row in history.of_kind("evaluation"):
        named = row.get("phase")
        if named == phase if named is not None else row.get("tokens", 0) <= end:
            found = row
    return found
