"""Plots of a run, drawn without a display."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from modernbert.errors import RunError
from modernbert.files import new_file
from modernbert.report.metrics import Curve, read_curve, read_rows

_TRAINING, _HELD_OUT, _BASELINE, _TEXT = "#3b6ea5", "#d1603d", "#7a7a7a", "#333333"
# The training curve shows means over this fraction of the run on either side.
_SMOOTHING = 0.015


def plot_losses(
    metrics_path: Path | str, png_path: Path | str, baseline: float | None = None
) -> None:
    """Draw training and held-out loss over the tokens seen, from a run's `metrics.jsonl`.

    baseline: a loss to compare with, such as the unigram distribution's; a dashed line.

    Raises:
        RunError: the log is missing or holds no step yet, or the picture cannot be written.
    """
    rows = read_rows(metrics_path)
    training = read_curve(rows, "step", "loss")
    held_out = read_curve(rows, "evaluation", "held_out_loss")
    if not training:
        raise RunError(f"{metrics_path}: holds no step yet, so there is nothing to draw")
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _style(axes)
    _draw_training(axes, training)
    if held_out:
        _draw_held_out(axes, held_out)
    if baseline is not None:
        label = f"unigram baseline, {baseline:.2f}"
        axes.axhline(baseline, color=_BASELINE, linestyle=(0, (5, 3)), linewidth=1.2, label=label)
    _fit(axes, training, held_out, baseline)
    axes.legend(frameon=False, labelcolor=_TEXT, loc="upper right")
    try:
        with new_file(Path(png_path)) as file:
            figure.savefig(file, format="png")
    except OSError as error:
        raise RunError(f"{png_path}: could not be written: {error}") from None


def _style(axes: Axes) -> None:
    axes.set_title("Masked-language-model loss", loc="left", color=_TEXT, fontsize=12)
    axes.set_xlabel("tokens seen in training", color=_TEXT)
    axes.set_ylabel("cross entropy, nats a masked token", color=_TEXT)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_TEXT, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")


def _draw_training(axes: Axes, training: Curve) -> None:
    smoothed = training.smoothed(round(len(training.tokens) * _SMOOTHING))
    axes.plot(training.tokens, training.values, color=_TRAINING, alpha=0.22, linewidth=0.8)
    label = f"training, {smoothed.values[-1]:.2f} at the end"
    axes.plot(smoothed.tokens, smoothed.values, color=_TRAINING, linewidth=1.8, label=label)


def _draw_held_out(axes: Axes, held_out: Curve) -> None:
    style: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.4}
    label = f"held out, {held_out.values[-1]:.2f} at the end"
    axes.plot(held_out.tokens, held_out.values, color=_HELD_OUT, label=label, **style)


def _fit(axes: Axes, training: Curve, held_out: Curve, baseline: float | None) -> None:
    """From a little below the lowest loss to a little above the highest."""
    values = [*training.values, *held_out.values, *([] if baseline is None else [baseline])]
    low, high = min(values), max(values)
    margin = 0.05 * max(high - low, 0.1)
    axes.set_ylim(max(0.0, low - margin), high + margin)
    axes.set_xlim(left=0)
