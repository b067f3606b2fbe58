"""The charts of a run over the tokens that it had seen, and the figures in them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modernbert.report.charts import Axis, Chart, Events, LineChart, Mark, Series, Timeline
from modernbert.report.formats import NumberFormat, compact, num_bytes, percent
from modernbert.report.history import Curve, LogRow, RunHistory, number

# A mean is over this fraction of the run on either side.
_SMOOTHING = 0.015
# A step of less than this share of its neighbours' tokens is left out of curves.
_SMALL_STEP = 0.5


@dataclass(frozen=True, kw_only=True)
class PhaseAccount:
    """The totals of a phase so far.

    Attributes:
        seconds: The time of its steps.
        evaluation: The figures of its last evaluation; empty if there is none.
    """

    name: str
    num_steps: int
    tokens: float
    seconds: float
    evaluation: Mapping[str, Any]

    @property
    def tokens_per_second(self) -> float:
        """The speed over all of its steps."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def smooth(curve: Curve) -> Curve:
    """Average around each point over a few hundredths of the run."""
    return curve.smoothed(round(len(curve.tokens) * _SMOOTHING))


def usual_curve(history: RunHistory, figure: str) -> Curve:
    """Return a figure of the steps, without those far smaller than both of their neighbours.

    Such a step has the few tokens that an epoch ends with, and its loss says nothing of the model.
    """
    tokens, values = history.column("tokens"), history.column(figure)
    sizes = np.pad(history.column("num_tokens"), 1, constant_values=np.inf)
    is_small = sizes[1:-1] < _SMALL_STEP * np.minimum(sizes[:-2], sizes[2:])
    kept = np.isfinite(tokens) & ~np.isnan(values) & ~(is_small & (len(tokens) > 1))
    return Curve(tokens[kept], values[kept])


def mean_curve(history: RunHistory, figure: str) -> Curve:
    """Average a figure over the usual steps, without infinite numbers."""
    curve = usual_curve(history, figure)
    finite = np.isfinite(curve.values)
    return smooth(Curve(curve.tokens[finite], curve.values[finite]))


def ratio(history: RunHistory, above: str, below: str, scale: float = 1.0) -> Curve:
    """Divide two sums around each point, such as tokens by seconds, and multiply by `scale`."""
    tokens, values, divisors = (history.column(name) for name in ("tokens", above, below))
    fine = np.isfinite(tokens) & np.isfinite(values) & (divisors > 0)
    sums = smooth(Curve(tokens[fine], values[fine])).values
    return Curve(tokens[fine], scale * sums / smooth(Curve(tokens[fine], divisors[fine])).values)


def phase_spans(history: RunHistory) -> list[tuple[float, float, str]]:
    """Return the first and last token of each phase so far, with its name."""
    phases, tokens = history.phase_of_steps, history.column("tokens")
    firsts = [int(np.argmax(phases == index)) for index in range(len(history.phases))]
    starts = [float(tokens[first - 1]) if first else 0.0 for first in firsts]
    ends = [*starts, history.last_tokens][1:]
    return list(zip(starts, ends, history.phases, strict=False))


def phase_accounts(history: RunHistory) -> list[PhaseAccount]:
    """Return the account of each phase, in their order."""
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
    """Return the rate of matrix products of all processes, in operations per second, if measured.

    It is the rate that the last start or resume measured on its machine.
    """
    for row in reversed(history.starts):
        rate = number(row.get("matmul_flops_per_second")) * number(row.get("num_processes", 1))
        if rate > 0:
            return rate
    return None


def _last_evaluation(history: RunHistory, phase: str, end: float) -> LogRow:
    """Return the last evaluation of a phase; if evaluations name no phase, that before its end."""
    found: LogRow = {}
    for row in history.of_kind("evaluation"):
        named = row.get("phase")
        if named == phase if named is not None else row.get("tokens", 0) <= end:
            found = row
    return found


_X_LABEL = "tokens seen in training"
_TRAINING, _HELD_OUT = "training, smoothed", "held out"
_BEGINNING, _MANY_STEPS = 0.1, 50


def run_charts(history: RunHistory, baseline: float | None = None) -> list[Chart]:
    """Make every chart for which the run has figures.

    Args:
        history: The history of the run.
        baseline: A loss to compare with, such as that of the unigram distribution.
    """
    drawer = _Drawer(history)
    ceiling = matmul_ceiling(history)
    charts = [
        drawer.losses(baseline),
        drawer.late_losses(),
        drawer.held_out(),
        drawer.general(),
        drawer.plain("Learning rate", "learning_rate", "at each step"),
        drawer.plain("Batch size", "num_tokens", "tokens per step"),
        drawer.ratio("Masked tokens", "num_targets", "num_tokens", "share of all tokens", percent),
        drawer.means("Gradient norm", "gradient_norm", "before clipping", log=True),
        drawer.ratio("Speed", "num_tokens", "seconds", "tokens per second"),
        drawer.ratio(
            "Arithmetic",
            "flops",
            "seconds",
            "share of the measured matrix rate",
            percent,
            scale=1 / ceiling if ceiling else math.nan,
        ),
        drawer.means("Packing", "fill", "share of the bins that is full", percent),
        drawer.ratio(
            "Waiting for data", "data_wait_seconds", "seconds", "share of the time", percent
        ),
        drawer.plain("Memory", "memory_bytes", "peak", num_bytes),
        drawer.events(),
    ]
    return [chart for chart in charts if not chart.is_empty()]


class _Drawer:
    """Draws charts with what they all share: the run's tokens and the borders of its phases."""

    def __init__(self, history: RunHistory) -> None:
        self.history = history
        self.x = Axis(label=_X_LABEL, low=0.0, high=max(history.last_tokens, 1.0))
        self.marks = [Mark(x=start, label=name) for start, _, name in phase_spans(history)[1:]]

    def losses(self, baseline: float | None) -> Chart:
        training = usual_curve(self.history, "loss")
        held_out = self.history.event_curve("evaluation", "held_out_loss")
        series = [
            _series("", training, kind="faint"),
            _series(_TRAINING, smooth(training)),
            _series(_HELD_OUT, held_out, colour=1, kind="dots"),
        ]
        if baseline is not None:
            ends = [0.0, self.x.high or 1.0]
            label = f"unigram baseline, {baseline:.2f}"
            series.append(Series(label=label, x=ends, y=[baseline] * 2, colour=4))
        return self._chart("Loss", series, Axis(label="nats per masked token"))

    def late_losses(self) -> Chart:
        """Draw the losses without the steep beginning, which would make the rest look flat."""
        many = self.history.num_steps >= _MANY_STEPS
        start = _BEGINNING * self.history.last_tokens if many else math.inf
        training = usual_curve(self.history, "loss")
        held_out = self.history.event_curve("evaluation", "held_out_loss")
        series = [
            _series("", training.after(start), kind="faint"),
            _series(_TRAINING, smooth(training).after(start)),
            _series(_HELD_OUT, held_out.after(start), colour=1, kind="dots"),
        ]
        axis = Axis(label="nats per masked token, without the first tenth")
        x = replace(self.x, low=start)
        return LineChart(title="Loss, closer", series=series, x=x, y=axis, marks=self.marks)

    def held_out(self) -> Chart:
        curve = self.history.event_curve("evaluation", "held_out_accuracy")
        series = [_series("", curve, colour=1, kind="dots")]
        axis = Axis(label="masked tokens predicted correctly", format=percent)
        return self._chart("Held-out accuracy", series, axis)

    def general(self) -> Chart:
        """Draw what a model that learns a field forgets."""
        curve = self.history.event_curve("evaluation", "general_accuracy")
        series = [_series("", curve, colour=1, kind="dots")]
        axis = Axis(label="masked tokens of general text predicted correctly", format=percent)
        return self._chart("Accuracy on general text", series, axis)

    def plain(self, title: str, figure: str, unit: str, format: NumberFormat = compact) -> Chart:
        """Draw a figure as it is at each usual step."""
        series = [_series("", usual_curve(self.history, figure))]
        return self._chart(title, series, Axis(label=unit, format=format, low=0))

    def means(
        self,
        title: str,
        figure: str,
        unit: str,
        format: NumberFormat = compact,
        *,
        log: bool = False,
    ) -> Chart:
        """Draw a noisy figure faintly, with its means."""
        series = [
            _series("", usual_curve(self.history, figure), kind="faint"),
            _series("", mean_curve(self.history, figure)),
        ]
        return self._chart(title, series, Axis(label=unit, format=format, log=log))

    def ratio(
        self,
        title: str,
        above: str,
        below: str,
        unit: str,
        format: NumberFormat = compact,
        *,
        scale: float = 1.0,
    ) -> Chart:
        """Draw the ratio of two sums around each step."""
        series = [_series("", ratio(self.history, above, below, scale))]
        return self._chart(title, series, Axis(label=unit, format=format, low=0))

    def events(self) -> Chart:
        spans = phase_spans(self.history)
        rows = [
            Events(label="phases", spans=spans if len(spans) > 1 else ()),
            *(
                Events(label=label, places=self._places(*kinds), colour=colour)
                for label, kinds, colour in (
                    ("evaluations", ("evaluation",), 2),
                    ("checkpoints", ("checkpoint",), 0),
                    ("resumed", ("resume",), 3),
                    ("skipped steps", ("skipped",), 1),
                    ("spikes", ("spike",), 4),
                    ("warnings", ("warning",), 1),
                )
            ),
        ]
        return Timeline(title="Events", rows=rows, x=self.x)

    def _places(self, *kinds: str) -> list[float]:
        """Return where events of these kinds happened; a record may only name its step."""
        rows = self.history.of_kind(*kinds)
        steps = self.history.column("step")
        tokens = np.concatenate([[0.0], self.history.column("tokens")])
        told = [number(row.get("tokens")) for row in rows]
        by_step = tokens[steps.searchsorted([number(row.get("step")) for row in rows], "right")]
        places = np.where(np.isnan(told), by_step, told)
        return [float(place) for place in places if np.isfinite(place)]

    def _chart(self, title: str, series: list[Series], y: Axis) -> Chart:
        return LineChart(title=title, series=series, x=self.x, y=y, marks=self.marks)


def _series(label: str, curve: Curve, *, colour: int = 0, kind: str = "line") -> Series:
    return Series(label=label, x=curve.tokens, y=curve.values, colour=colour, kind=kind)  # type: ignore[arg-type]
