"""Charts drawn with matplotlib, as SVG on a page and as PNG files.

On a page, lines and texts take the colours of page.css, which follow the reader's light or dark
mode. A chart stays small however many points its lines have; see `thinned`.
"""

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from modernbert.errors import RunError
from modernbert.extras import import_extra, is_installed, missing
from modernbert.files import new_file
from modernbert.report.formats import NumberFormat, compact, log_ticks, tick_labels, ticks
from modernbert.report.page import Html, element

# The colours of lines in a PNG file, and the ground's, text's and grid's; page.css has each twice,
# and an SVG names it there.
_COLOURS = ("#2b6cb0", "#c4532f", "#2f855a", "#7a4fb0", "#8a6d1c")
_TEXT, _GRID, _LINE = "#5c6470", "#e7eaee", "#dfe3e8"
_NAMES = {_TEXT: "quiet", _GRID: "grid", _LINE: "line"} | {
    colour: f"c{index}" for index, colour in enumerate(_COLOURS)
}
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _LINE,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": _TEXT,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 12,
    "grid.color": _GRID,
    "lines.solid_joinstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "modernbert",  # the same chart has the same names inside
    "text.color": _TEXT,
    "text.parse_math": False,
    "xtick.color": _LINE,
    "xtick.labelcolor": _TEXT,
    "xtick.major.pad": 6,
    "ytick.labelcolor": _TEXT,
    "ytick.major.size": 0,
}
_POINTS_PER_INCH = 72
# The largest size of texts in a chart, which page.css gives them on narrow screens.
_PAGE_FONT_SIZE = 15
_WIDTH, _HEIGHT, _ROW_HEIGHT = 480, 260, 24
# Columns of a line; more than one can tell apart in the width of a chart.
_BUCKETS = 240
# Of a faint line's points, so many may stick out on either side.
_FAINT_QUANTILE = 0.005
_HUGE = 1e100


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a chart, with gaps where y is not finite.

    Args:
        x: (num_points,), ascending.
        y: (num_points,).
        colour: The index of the colour, 0 to 4.
        kind: `line`; `dots`, a line with its points; or `faint`, whose rare extremes may be cut
            off.
    """

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: int = 0
    kind: Literal["line", "dots", "faint"] = "line"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The range of an axis.

    Args:
        low: The axis begins at this value or lower; None for the lowest point.
        high: The axis ends at this value or higher; None for the highest point.
    """

    label: str = ""
    format: NumberFormat = compact
    log: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A place on the horizontal axis, drawn as a dashed line with a name."""

    x: float
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Events:
    """A row of a timeline.

    Args:
        places: The x of each event.
        spans: (from, to, name) of each span.
    """

    label: str
    places: Sequence[float] = ()
    spans: Sequence[tuple[float, float, str]] = ()
    colour: int = 0


@dataclass(frozen=True, kw_only=True)
class Chart(ABC):
    """A chart for a page or a PNG file."""

    title: str
    x: Axis

    @property
    def unit(self) -> str:
        """The unit, shown next to the title."""
        return ""

    @property
    def height(self) -> float:
        """The height, relative to a width of 480."""
        return _HEIGHT

    @property
    def named(self) -> Sequence[Series]:
        """The lines in the legend."""
        return ()

    @abstractmethod
    def is_empty(self) -> bool:
        """Return whether there is no point to draw."""

    @abstractmethod
    def draw(self, axes: Any) -> None:
        """Draw everything except title and legend on axes of matplotlib."""

    def html(self) -> Html:
        """Return the chart as a figure of a page; empty if there is no point to draw."""
        if self.is_empty():
            return Html("")
        caption = [element("b", self.title)]
        if self.unit:
            caption.append(element("span", self.unit, class_="unit"))
        if self.named:
            names = [
                element("span", element("i", class_=f"f{line.colour}"), line.label)
                for line in self.named
            ]
            caption.append(element("span", *names, class_="legend"))
        return element("figure", element("figcaption", *caption), Html(self._svg()))

    def _svg(self) -> str:
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context({**_STYLE, "font.size": _PAGE_FONT_SIZE}):
            size = (_WIDTH / _POINTS_PER_INCH, self.height / _POINTS_PER_INCH)
            figure = Figure(figsize=size, layout="constrained")
            self.draw(figure.add_subplot())
            file = io.StringIO()
            figure.savefig(file, format="svg", transparent=True)
        return _for_page(file.getvalue(), self.title)


def charts_html(charts: Sequence[Chart]) -> list[Html]:
    """Return the charts with points as figures of a page; a line of text without matplotlib."""
    if charts and not is_installed("matplotlib"):
        return [element("p", f"The charts are not drawn: {missing('matplotlib')}")]
    return [html for chart in charts if (html := chart.html())]


def save_png(charts: Sequence[Chart], path: Path, *, columns: int) -> None:
    """Draw charts in rows into one picture.

    Args:
        charts: The charts, in the order in which they fill the rows.
        path: The file to write.
        columns: The number of charts in a row.

    Raises:
        RunError: The picture cannot be written.
        MissingPackageError: matplotlib is not installed.
    """
    rc_context = import_extra("matplotlib").rc_context
    Figure = import_extra("matplotlib.figure").Figure

    rows, single = -(-len(charts) // columns), len(charts) == 1
    with rc_context({**_STYLE, "figure.dpi": 150 if single else 100, "font.size": 10}):
        size = (8, 4.8) if single else (5.4 * columns, 3.6 * rows)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, chart in zip(grid, charts, strict=False):
            chart.draw(axes)
            axes.set_title(chart.title, loc="left", fontweight="bold", pad=18)
            axes.set_ylabel(chart.unit)
            if chart.named:
                axes.legend(framealpha=0.8, edgecolor="none")
        for axes in grid:
            axes.set_visible(False)
        try:
            with new_file(path) as file:
                figure.savefig(file, format="png")
        except OSError as error:
            raise RunError(f"{path}: could not be written: {error}") from None


@dataclass(frozen=True, kw_only=True)
class LineChart(Chart):
    """Lines over a common axis."""

    series: Sequence[Series]
    y: Axis
    marks: Sequence[Mark] = ()

    @property
    def unit(self) -> str:
        return self.y.label

    @property
    def named(self) -> Sequence[Series]:
        return [line for line in self._drawn() if line.label]

    def is_empty(self) -> bool:
        return not self._drawn()

    def draw(self, axes: Any) -> None:
        drawn = self._drawn()
        for line in drawn:
            _draw_line(axes, line, self.y)
        x_low = min(float(line.x[0]) for line in drawn) if self.x.low is None else self.x.low
        x_high = max(float(line.x[-1]) for line in drawn) if self.x.high is None else self.x.high
        if self.y.log:
            axes.set_yscale("log")
        axes.set_ylim(*self._y_limits(drawn))
        _finish(axes, self.x, x_low, x_high)
        low, high = axes.get_ylim()
        places = log_ticks(low, high) if self.y.log else ticks(low, high, 5)
        names = [self.y.format(place) for place in places]
        axes.set_yticks(places, names if self.y.log else tick_labels(places, self.y.format))
        axes.minorticks_off()
        for mark in self.marks:
            if x_low <= mark.x <= x_high:
                axes.axvline(mark.x, color=_TEXT, linestyle=(0, (4, 3)), linewidth=1)
        _name_marks(axes, self.marks)

    def _drawn(self) -> list[Series]:
        return [line for line in self.series if _bounds(line, self.y) is not None]

    def _y_limits(self, drawn: Sequence[Series]) -> tuple[float, float]:
        """Room for every line with a margin; for a faint one without its extremes."""
        found = [pair for line in drawn if (pair := _bounds(line, self.y)) is not None]
        low, high = min(low for low, _ in found), max(high for _, high in found)
        if self.y.log:
            return low / 1.25, high * 1.25
        least = low if self.y.low is None else min(self.y.low, low)
        most = high if self.y.high is None else max(self.y.high, high)
        margin = 0.06 * ((most - least) or abs(most) or 1.0)
        if self.y.low is None or low < self.y.low:
            least = max(0.0, least - margin) if least >= 0 else least - margin
        return least, most + margin if self.y.high is None or high > self.y.high else most


@dataclass(frozen=True, kw_only=True)
class Timeline(Chart):
    """Rows of events over a common axis, without rows that have no events."""

    rows: Sequence[Events]

    @property
    def height(self) -> float:
        return _ROW_HEIGHT * len(self._drawn()) + 60

    def is_empty(self) -> bool:
        return not self._drawn()

    def draw(self, axes: Any) -> None:
        rows = self._drawn()
        ends = [x for row in rows for x in (*row.places, *(stop for _, stop, _ in row.spans))]
        low, high = self.x.low or 0.0, self.x.high or max(ends)
        for index, row in enumerate(rows):
            colour = _COLOURS[row.colour]
            bars = [(start, stop - start) for start, stop, _ in row.spans]
            axes.broken_barh(bars, (index - 0.35, 0.7), facecolors=colour, alpha=0.3)
            axes.vlines(np.unique(row.places), index - 0.3, index + 0.3, colors=colour, linewidth=2)
            for start, stop, name in row.spans:
                if len(name) * 0.025 < (stop - start) / ((high - low) or 1):
                    axes.text((start + stop) / 2, index, name, ha="center", va="center")
        axes.set(ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)))
        axes.set_yticklabels([row.label for row in rows])
        axes.grid(visible=False)
        _finish(axes, self.x, low, high)

    def _drawn(self) -> list[Events]:
        return [row for row in self.rows if len(row.places) or row.spans]


def thinned(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, buckets: int = _BUCKETS
) -> tuple[np.ndarray, np.ndarray]:
    """Keep at most four points per bucket of x, in their order: first, lowest, highest and last.

    A line through them covers the same area as a line through all points.

    >>> x, y = thinned(range(1000), [0.0] * 500 + [9.0] + [0.0] * 499, buckets=2)
    >>> x.tolist(), y.tolist()
    ([0.0, 499.0, 500.0, 501.0, 999.0], [0.0, 0.0, 9.0, 0.0, 0.0])

    Args:
        x: (num_points,), ascending.
        y: (num_points,).
        buckets: The number of buckets.
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(xs) <= 4 * buckets:
        return xs, ys
    span = max(xs[-1] - xs[0], 1e-300)
    bucket = np.minimum(((xs - xs[0]) / span * buckets).astype(np.int64), buckets - 1)
    firsts = np.flatnonzero(np.diff(bucket, prepend=-1))
    lasts = np.append(firsts[1:], len(xs)) - 1
    order = np.lexsort((ys, bucket))  # within a bucket by value, what is no number last
    present = np.add.reduceat(np.isfinite(ys).astype(np.int64), firsts)
    lowest, highest = order[firsts], order[firsts + np.maximum(present, 1) - 1]
    kept = np.unique(np.concatenate([firsts, lowest, highest, lasts]))
    return xs[kept], ys[kept]


def _draw_line(axes: Any, line: Series, axis: Axis) -> None:
    x, y = thinned(line.x, _drawable(line.y, log=axis.log))
    dots = (line.kind == "dots" and len(x) <= _BUCKETS) or len(x) == 1
    axes.plot(
        x,
        y,
        color=_COLOURS[line.colour],
        label=line.label or None,
        linewidth=1 if line.kind == "faint" else 1.8,
        alpha=0.3 if line.kind == "faint" else 1,
        marker="o" if dots else None,
        markersize=5,
        clip_on=not dots,  # a dot at the end of the axis is drawn whole
    )


def _finish(axes: Any, x: Axis, low: float, high: float) -> None:
    """Draw the horizontal axis, as in both kinds of charts."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    axes.set_xlim(low, high)
    axes.set_xlabel(x.label)
    places = ticks(low, high, 4)
    axes.set_xticks(places, tick_labels(places, x.format))


def _name_marks(axes: Any, marks: Sequence[Mark]) -> None:
    """Write names above the dashed lines, to their right or left; one without room is left out."""
    low, high = axes.get_xlim()
    shares = [((mark.x - low) / (high - low), mark.label) for mark in marks]
    places = [(x, label) for x, label in shares if 0 <= x <= 1]
    ends = [*(x for x, _ in places[1:]), 1.0]
    free = 0.0
    for (x, label), end in zip(places, ends, strict=False):
        width = 0.015 * len(label) + 0.012  # about as much of the axis as it takes
        if x + width <= end or x - width >= free:
            side, free = ("left", x + width) if x + width <= end else ("right", x)
            axes.text(x, 1.01, f" {label} ", ha=side, transform=axes.transAxes)


def _bounds(line: Series, axis: Axis) -> tuple[float, float] | None:
    values = _drawable(line.y, log=axis.log)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    if line.kind == "faint":
        low, high = np.quantile(values, [_FAINT_QUANTILE, 1 - _FAINT_QUANTILE])
        return float(low), float(high)
    return float(values.min()), float(values.max())


def _drawable(values: Sequence[float] | np.ndarray, *, log: bool) -> np.ndarray:
    """Return the values with NaN for those that no axis can show."""
    array = np.asarray(values, dtype=float)
    fine = np.abs(array) < _HUGE
    return np.where(fine & (array > 1 / _HUGE) if log else fine, array, np.nan)


def _for_page(svg: str, title: str) -> str:
    """Return the drawn parts of an SVG file, in the colours and the font of the page."""
    inner = svg[svg.index("<svg") :]
    for rubbish in (
        r"<metadata>.*?</metadata>",
        r"<!--.*?-->",
        r"<style.*?</style>",
        r' id="[a-zA-Z]\w*_\d+"',  # repeated in each chart; those that are referred to differ
        r"<svg[^>]*>",
    ):
        inner = re.sub(rubbish, "", inner, count=0, flags=re.DOTALL)
    inner = re.sub(r"font(-size|-family)?: [^;\"]*;? ?", "", inner)
    for colour, name in _NAMES.items():
        inner = inner.replace(colour, f"var(--{name})")
    size = re.search(r'viewBox="([^"]+)"', svg)
    box = element("svg", viewBox=size[1] if size else "", role="img", aria_label=title)
    return box.removesuffix("</svg>") + re.sub(r"\s*\n\s*", "\n", inner)
