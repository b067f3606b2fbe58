"""The charts of a run: whatever its log has figures for, over the tokens that it had seen."""

import math
from dataclasses import replace

import numpy as np

from modernbert.report.charts import Axis, Chart, Events, LineChart, Mark, Series, Timeline
from modernbert.report.formats import Format, compact, num_bytes, percent
from modernbert.report.history import Curve, RunHistory, number
from modernbert.report.run_figures import (
    matmul_ceiling,
    mean_curve,
    phase_spans,
    ratio,
    smooth,
)

_X_LABEL = "tokens seen in training"
_TRAINING, _HELD_OUT = "training, smoothed", "held out"
_BEGINNING, _MANY_STEPS = 0.1, 50


def run_charts(history: RunHistory, baseline: float | None = None) -> list[Chart]:
    """Every chart that there are figures for.

    baseline: a loss to compare with, such as the unigram distribution's.
    """
    drawer = _Drawer(history)
    ceiling = matmul_ceiling(history)
    charts = [
        drawer.losses(baseline),
        drawer.late_losses(),
        drawer.held_out(),
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
    """Draws with what all charts of a run share: its tokens, and the borders of its phases."""

    def __init__(self, history: RunHistory) -> None:
        self.history = history
        self.x = Axis(label=_X_LABEL, low=0.0, high=max(history.last_tokens, 1.0))
        self.marks = [Mark(x=start, label=name) for start, _, name in phase_spans(history)[1:]]

    def losses(self, baseline: float | None) -> Chart:
        training = self.history.curve("loss")
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
        """Without the steep beginning, beside which the rest looks flat."""
        many = self.history.num_steps >= _MANY_STEPS
        start = _BEGINNING * self.history.last_tokens if many else math.inf
        training = self.history.curve("loss")
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

    def plain(self, title: str, figure: str, unit: str, format: Format = compact) -> Chart:
        """A figure as it is."""
        series = [_series("", self.history.curve(figure))]
        return self._chart(title, series, Axis(label=unit, format=format, low=0))

    def means(
        self, title: str, figure: str, unit: str, format: Format = compact, *, log: bool = False
    ) -> Chart:
        """A figure that jumps about: faint, with means."""
        series = [
            _series("", self.history.curve(figure), kind="faint"),
            _series("", mean_curve(self.history, figure)),
        ]
        return self._chart(title, series, Axis(label=unit, format=format, log=log))

    def ratio(
        self,
        title: str,
        above: str,
        below: str,
        unit: str,
        format: Format = compact,
        *,
        scale: float = 1.0,
    ) -> Chart:
        """A sum over another, around each step."""
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
        """Where the events of these kinds happened; a record may tell its step alone."""
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
