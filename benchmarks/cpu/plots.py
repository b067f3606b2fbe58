"""One picture for each kind of result: `python -m benchmarks.cpu.plots`."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import results

_TEXT, _GRID = "#333333", "#e6e6e6"
_COLOURS = {
    "ours": "#d1603d",
    "transformers": "#3b6ea5",
    "sentence-transformers": "#6f9bc8",
    "fastembed": "#b5a642",
    "onnxruntime": "#5f8f5f",
    "openvino": "#8a6bb1",
    "bert": "#9a9a9a",
}
_PRECISIONS = ("float32", "bfloat16", "int8")
_PARTS = {
    "products": "#d1603d",
    "global attention": "#3b6ea5",
    "local attention": "#8fb4d9",
    "rest": "#bbbbbb",
}

Results = Mapping[str, Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw what there are results of."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--folder", type=Path, help="of the results; this machine's when absent")
    folder = made.parse_args(arguments).folder or results.on_this_cpu("").parent
    found = {path.stem: results.read(path) for path in sorted(folder.glob("*.json"))}
    for kind, draw in DRAWINGS.items():
        of_kind = {
            name: result
            for name, result in found.items()
            if result["benchmark"] == kind and _is_measured(result)
        }
        if of_kind:
            path = folder / f"{kind}.png"
            draw(of_kind).savefig(path)
            print(path)
    return 0


def _is_measured(result: Mapping[str, Any]) -> bool:
    return any(key in result for key in ("timings", "cases", "engines", "seconds", "runs"))


def _encoding(found: Results) -> Figure:
    """A panel for each workload: tokens a second of everyone, by precision."""
    return _panels(
        found,
        _speeds,
        title=lambda result: result["workload"]["description"],
        label="real tokens a second",
    )


def _training(found: Results) -> Figure:
    """A panel for each batch: tokens a second of a step."""
    return _panels(
        found,
        _speeds,
        title=lambda result: f"{result['batch']['name']}: {result['batch']['total_tokens']} tokens",
        label="real tokens a second, forward and backward",
    )


def _memory(found: Results) -> Figure:
    """Megabytes above the weights."""
    return _panels(
        found,
        lambda result: {
            name: engine["above_mb"]
            for name, engine in result["engines"].items()
            if "above_mb" in engine
        },
        title=lambda result: f"one sequence of {result['length']:,} tokens",
        label="MB above the weights",
    )


def _speeds(result: Mapping[str, Any]) -> dict[str, float]:
    return {name: each["tokens_per_second"] for name, each in result["timings"].items()}


def _panels(
    found: Results,
    values: Callable[[Mapping[str, Any]], dict[str, float]],
    *,
    title: Callable[[Mapping[str, Any]], str],
    label: str,
) -> Figure:
    """Bars of every result, two results side by side."""
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    most = max(len(values(result)) for result in found.values())
    size = (7 * columns, rows * (1.3 + 0.25 * most))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    for index, (name, result) in enumerate(found.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        _bars(axes, values(result))
        axes.set_title(f"{name}: {title(result)}\n{result['model']}", **_title())
        axes.set_xlabel(label, color=_TEXT, fontsize=8)
    return figure


def _bars(axes: Axes, values: Mapping[str, float]) -> None:
    """Horizontal bars, by precision and in each the longest on top."""
    names = sorted(values, key=lambda name: (_precision(name), -values[name]))
    for place, name in enumerate(names):
        is_ours = name.startswith("ours")
        colour = _COLOURS[name.split()[0]]
        axes.barh(place, values[name], color=colour, alpha=1 if is_ours else 0.75, height=0.72)
        axes.annotate(
            f"{values[name]:,.0f}",
            (values[name], place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=_TEXT,
        )
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name.startswith("ours") else "normal")
    axes.invert_yaxis()
    axes.set_xlim(right=1.12 * max(values.values()))
    _style(axes)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)


def _precision(name: str) -> int:
    found = [index for index, precision in enumerate(_PRECISIONS) if precision in name]
    return found[0] if found else _PRECISIONS.index("bfloat16")  # autocast


def _ceiling(found: Results) -> Figure:
    """How the time of each length and precision divides, and the share of the ceiling."""
    (result,) = found.values()
    cases = [
        (f"{case} tokens, {precision}", each)
        for case, measured in result["cases"].items()
        for precision, each in measured["precisions"].items()
    ]
    figure = Figure(figsize=(9, 1.6 + 0.45 * len(cases)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for place, (_, each) in enumerate(cases):
        left = 0.0
        for part, colour in _PARTS.items():
            share = max(0.0, each["parts"][part]["share_of_time"])
            label = part if place == 0 else None
            axes.barh(place, share, left=left, color=colour, height=0.7, label=label)
            left += share
        text = f"{each['share_of_ceiling']:.0%} of the ceiling"
        axes.text(max(left, 1) + 0.01, place, text, va="center", fontsize=8, color=_TEXT)
    axes.set_yticks(range(len(cases)), [name for name, _ in cases], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35)
    axes.set_xlabel("share of the time", color=_TEXT, fontsize=8)
    axes.set_title(result["model"], **_title())
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.12))
    _style(axes)
    return figure


def _losses(found: Results) -> Figure:
    """Held-out loss over the seconds of training, a line for each run."""
    (result,) = found.values()
    figure = Figure(figsize=(8, 4.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    named = set()
    for key, run in result["runs"].items():
        name = key.rpartition(" ")[0]
        points = [(seconds, loss) for seconds, _, loss in run["points"] if seconds]
        label = None if name in named else name
        named.add(name)
        line = "--" if name.endswith("blocks") else "-"
        colour = _COLOURS[name.split()[0]]
        axes.plot(*zip(*points, strict=True), line, color=colour, linewidth=1.2, label=label)
        axes.plot(*points[-1], "o", color=colour, markersize=4)
    if (loss := result.get("loss")) is not None:
        axes.axhline(loss, color=_GRID, linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:,.0f}")
    axes.set_xlabel("seconds of training", color=_TEXT, fontsize=9)
    axes.set_ylabel("held-out loss", color=_TEXT, fontsize=9)
    axes.set_title(result["model"], **_title())
    axes.legend(frameon=False, fontsize=8)
    _style(axes)
    return figure


def _title() -> dict[str, Any]:
    return {"loc": "left", "fontsize": 9, "color": _TEXT}


def _style(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=_TEXT, length=0, labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")


DRAWINGS: Mapping[str, Callable[[Results], Figure]] = {
    "encoding": _encoding,
    "training_step": _training,
    "ceiling": _ceiling,
    "memory": _memory,
    "time_to_loss": _losses,
}

if __name__ == "__main__":
    raise SystemExit(main())
