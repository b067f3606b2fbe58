"""Plots of a run as PNG files, drawn without a display."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from modernbert.errors import RunError
from modernbert.files import new_file
from modernbert.report.charts import thinned
from modernbert.report.formats import Format, compact, percent
from modernbert.report.history import Curve, RunHistory
from modernbert.report.run_figures import mean_curve, phase_spans, ratio, smooth

_TRAINING, _HELD_OUT, _BASELINE, _TEXT = "#3b6ea5", "#d1603d", "#7a7a7a", "#333333"


def plot_losses(history: RunHistory, png_path: Path | str, baseline: float | None = None) -> None:
    """Draw training and held-out loss over the tokens seen.

    baseline: a loss to compare with, such as the unigram distribution's; a dashed line.

    Raises:
        RunError: the history holds no step yet, or the picture cannot be written.
    """
    training = _require_steps(history, png_path)
    held_out = history.event_curve("evaluation", "held_out_loss")
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _style(axes, "Masked-language-model loss", history)
    axes.set_xlabel("tokens seen in training", color=_TEXT)
    axes.set_ylabel("cross entropy, nats a masked token", color=_TEXT)
    smoothed = _draw_training(axes, training)
    if held_out:
        _draw_held_out(axes, held_out)
    if baseline is not None:
        label = f"unigram baseline, {baseline:.2f}"
        axes.axhline(baseline, color=_BASELINE, linestyle=(0, (5, 3)), linewidth=1.2, label=label)
    _fit(axes, smoothed, held_out, baseline)
    axes.legend(frameon=False, labelcolor=_TEXT, loc="upper right")
    _save(figure, png_path)


def plot_run(history: RunHistory, png_path: Path | str) -> None:
    """Draw how a run went: rate, speed, gradients, packing, waiting and memory.

    Raises:
        RunError: the history holds no step yet, or the picture cannot be written.
    """
    _require_steps(history, png_path)
    panels: Sequence[tuple[str, Curve, Format]] = (
        ("learning rate", history.curve("learning_rate"), compact),
        ("tokens a second", mean_curve(history, "tokens_per_second"), compact),
        ("gradient norm", mean_curve(history, "gradient_norm"), compact),
        ("share of the bins that is filled", mean_curve(history, "fill"), percent),
        (
            "share of the time spent waiting for data",
            ratio(history, "data_wait_seconds", "seconds"),
            percent,
        ),
        ("peak memory, bytes", history.curve("memory_bytes"), compact),
    )
    figure = Figure(figsize=(12, 6), dpi=120, layout="constrained")
    for axes, (title, curve, format) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        _style(axes, title, history)
        _format(axes.yaxis, format)
        if curve:
            axes.plot(*thinned(curve.tokens, curve.values), color=_TRAINING, linewidth=1.4)
    _save(figure, png_path)


def _require_steps(history: RunHistory, png_path: Path | str) -> Curve:
    training = history.curve("loss")
    if not training:
        raise RunError(f"{png_path}: the run has no step yet, so there is nothing to draw")
    return training


def _style(axes: Axes, title: str, history: RunHistory) -> None:
    axes.set_title(title, loc="left", color=_TEXT, fontsize=12)
    _format(axes.xaxis, compact)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_TEXT, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
    axes.set_xlim(0, max(history.last_tokens, 1.0))
    for tokens, _, _ in phase_spans(history)[1:]:
        axes.axvline(tokens, color="#bbbbbb", linestyle=(0, (4, 3)), linewidth=1)


def _format(axis: Any, format: Format) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: format(value)))


def _draw_training(axes: Axes, training: Curve) -> Curve:
    smoothed = smooth(training)
    places = thinned(training.tokens, training.values)
    axes.plot(*places, color=_TRAINING, alpha=0.22, linewidth=0.8)
    label = f"training, {smoothed.values[-1]:.2f} at the end"
    places = thinned(smoothed.tokens, smoothed.values)
    axes.plot(*places, color=_TRAINING, linewidth=1.8, label=label)
    return smoothed


def _draw_held_out(axes: Axes, held_out: Curve) -> None:
    style: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.4}
    label = f"held out, {held_out.values[-1]:.2f} at the end"
    axes.plot(held_out.tokens, held_out.values, color=_HELD_OUT, label=label, **style)


def _fit(axes: Axes, training: Curve, held_out: Curve, baseline: float | None) -> None:
    """From a little below the lowest loss to a little above the highest; a spike may stick out."""
    values = [training.values, held_out.values, [] if baseline is None else [baseline]]
    shown = np.concatenate([np.asarray(part, dtype=float) for part in values])
    low, high = float(shown.min()), float(shown.max())
    margin = 0.08 * max(high - low, 0.1)
    axes.set_ylim(max(0.0, low - margin), high + margin)


def _save(figure: Figure, png_path: Path | str) -> None:
    try:
        with new_file(Path(png_path)) as file:
            figure.savefig(file, format="png")
    except OSError as error:
        raise RunError(f"{png_path}: could not be written: {error}") from None
