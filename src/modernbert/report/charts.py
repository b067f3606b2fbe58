"""Charts as SVG within a page: lines over an axis, events on it, bars, and a matrix of counts.

They are drawn without a library, in the colours of page.css, which follow the reader's light or
dark mode. However many points a line has, a chart stays small: see `thinned`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from modernbert.report.formats import Format, compact, log_ticks, ticks
from modernbert.report.page import Html, element, join

_WIDTH, _HEIGHT = 480, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 20, 40
_INNER_WIDTH, _INNER_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
# Columns of a line; more than one can tell apart in the width of a chart.
_BUCKETS = 240
_ROW_HEIGHT = 22
# Of a faint line's points, so many may stick out on either side.
_FAINT_QUANTILE = 0.005
_COLOURS = 5
_HUGE = 1e100


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a chart; gaps where y is not a number.

    x, y: (num_points,), x ascending.
    colour: 0 to 4.
    kind: `line`; `dots`, a line with its points; `faint`, whose rare extremes may stick out.
    """

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: int = 0
    kind: Literal["line", "dots", "faint"] = "line"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis shows.

    low, high: bounds that it has at least; None for those of the points.
    """

    label: str = ""
    format: Format = compact
    log: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A place on the horizontal axis, as a broken line with a name."""

    x: float
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Events:
    """A row of a timeline: what happened at some places, or lasted from one to another.

    places: x of each event. spans: (from, to, name) of what lasted.
    """

    label: str
    places: Sequence[float] = ()
    spans: Sequence[tuple[float, float, str]] = ()
    colour: int = 0


@dataclass(frozen=True)
class _Scale:
    """Values of an axis to places on the drawing."""

    low: float
    high: float
    log: bool
    at: Callable[[np.ndarray], np.ndarray] = field(repr=False)

    def __call__(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        array = np.asarray(values, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = (
                (np.log(array) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
                if self.log
                else (array - self.low) / (self.high - self.low)
            )
        return self.at(shares)

    def ticks(self, count: int) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, count)


def thinned(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, buckets: int = _BUCKETS
) -> tuple[np.ndarray, np.ndarray]:
    """At most four points a bucket of x: the first, lowest, highest and last, in their order.

    A line through them covers what a line through all points would.

    >>> x, y = thinned(range(1000), [0.0] * 500 + [9.0] + [0.0] * 499, buckets=2)
    >>> x.tolist(), y.tolist()
    ([0.0, 499.0, 500.0, 501.0, 999.0], [0.0, 0.0, 9.0, 0.0, 0.0])
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


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    marks: Sequence[Mark] = (),
) -> Html:
    """Lines over a common axis; empty when there is no point to draw."""
    series = [line for line in series if _bounds(line, y) is not None]
    if not series:
        return Html("")
    x_scale, y_scale = _x_scale(series, x), _y_scale(series, y)
    drawing = [
        *_y_axis(y_scale, y),
        *_x_axis(x_scale, x, _HEIGHT - _BOTTOM),
        *_marks(marks, x_scale, _HEIGHT - _BOTTOM),
        _inner(part for line in series for part in _draw(line, x_scale, y_scale, y)),
    ]
    named = [line for line in series if line.label]
    legend = [_legend_entry(line.label, line.colour) for line in named]
    return _figure(title, y.label, legend, drawing, _HEIGHT)


def timeline(title: str, rows: Sequence[Events], *, x: Axis) -> Html:
    """Rows of events over a common axis; rows without events are left out."""
    rows = [row for row in rows if len(row.places) or row.spans]
    if not rows:
        return Html("")
    left = 112
    bottom = _TOP + _ROW_HEIGHT * len(rows)
    ends = [*(e for row in rows for e in row.places), *(s[1] for row in rows for s in row.spans)]
    scale = _scale(x.low or 0.0, x.high or max(ends), False, left, _WIDTH - _RIGHT - left)
    drawing = [*_x_axis(scale, x, bottom, left)]
    for index, row in enumerate(rows):
        drawing += _event_row(row, scale, _TOP + _ROW_HEIGHT * index)
    return _figure(title, "", (), drawing, bottom + _BOTTOM)


def _figure(
    title: str, unit: str, legend: Sequence[Html], drawing: Sequence[Html], height: float
) -> Html:
    caption = [element("b", title)]
    if unit:
        caption.append(element("span", unit, class_="unit"))
    caption.append(element("span", *legend, class_="legend") if legend else Html(""))
    svg = element("svg", *drawing, viewBox=f"0 0 {_WIDTH} {height:g}", role="img", aria_label=title)
    return element("figure", element("figcaption", *caption), svg)


def _legend_entry(label: str, colour: int) -> Html:
    return element("span", element("i", class_=f"f{colour % _COLOURS}"), label)


def _inner(drawing: object) -> Html:
    """A drawing within the axes; what would lie outside is cut off."""
    frame = f"{_LEFT} {_TOP} {_INNER_WIDTH} {_INNER_HEIGHT}"
    return element(
        "svg",
        join(drawing),  # type: ignore[arg-type]
        x=_LEFT,
        y=_TOP,
        width=_INNER_WIDTH,
        height=_INNER_HEIGHT,
        viewBox=frame,
        style="overflow:hidden",
    )


def _scale(low: float, high: float, log: bool, start: float, length: float) -> _Scale:
    if high <= low:
        low, high = (low / 2, low * 2) if log else (low - 0.5, low + 0.5)
    return _Scale(low, high, log, lambda shares: start + shares * length)


def _x_scale(series: Sequence[Series], axis: Axis) -> _Scale:
    low = min(float(line.x[0]) for line in series) if axis.low is None else axis.low
    high = max(float(line.x[-1]) for line in series) if axis.high is None else axis.high
    return _scale(low, high, False, _LEFT, _INNER_WIDTH)


def _y_scale(series: Sequence[Series], axis: Axis) -> _Scale:
    """Room for every line with a margin; for a faint one without its extremes."""
    bounds = [_bounds(line, axis) for line in series]
    found = [pair for pair in bounds if pair is not None]
    low, high = min(low for low, _ in found), max(high for _, high in found)
    if axis.log:
        return _scale(low / 1.25, high * 1.25, True, _HEIGHT - _BOTTOM, -_INNER_HEIGHT)
    least = low if axis.low is None else min(axis.low, low)
    most = high if axis.high is None else max(axis.high, high)
    margin = 0.06 * ((most - least) or abs(most) or 1.0)
    if axis.low is None or low < axis.low:
        least = max(0.0, least - margin) if least >= 0 else least - margin
    if axis.high is None or high > axis.high:
        most += margin
    return _scale(least, most, False, _HEIGHT - _BOTTOM, -_INNER_HEIGHT)


def _bounds(line: Series, axis: Axis) -> tuple[float, float] | None:
    values = _drawable(line.y, log=axis.log)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    if line.kind == "faint":
        low, high = np.quantile(values, [_FAINT_QUANTILE, 1 - _FAINT_QUANTILE])
        return float(low), float(high)
    return float(values.min()), float(values.max())


def _y_axis(scale: _Scale, axis: Axis) -> list[Html]:
    drawing = []
    for value in scale.ticks(5):
        y = scale([value])[0]
        drawing.append(_rule(_LEFT, y, _WIDTH - _RIGHT, y, "grid-line"))
        drawing.append(_text(_LEFT - 7, y + 4.5, axis.format(value), anchor="end"))
    return drawing


def _x_axis(scale: _Scale, axis: Axis, y: float, left: float = _LEFT) -> list[Html]:
    drawing = [_rule(left, y, _WIDTH - _RIGHT, y, "axis")]
    for value in scale.ticks(4):
        x = scale([value])[0]
        drawing.append(_rule(x, y, x, y + 4, "axis"))
        # The last one may stand at the very edge.
        anchor = "end" if x > _WIDTH - _RIGHT - 16 else "middle"
        drawing.append(_text(x, y + 17, axis.format(value), anchor=anchor))
    middle = (left + _WIDTH - _RIGHT) / 2
    return [*drawing, _text(middle, y + 34, axis.label, anchor="middle")]


def _marks(marks: Sequence[Mark], scale: _Scale, bottom: float) -> list[Html]:
    """Broken lines with their names beside them; a name that has no room is left out."""
    places = [(float(scale([mark.x])[0]), mark.label) for mark in marks]
    end = float(_WIDTH - _RIGHT)
    places = [(x, label) for x, label in places if _LEFT - 0.5 <= x <= end + 0.5]
    drawing = [_rule(x, _TOP - 16, x, bottom, "border") for x, _ in places]
    free = float(_LEFT)
    for index, (x, label) in enumerate(places):
        width = 7.0 * len(label) + 3
        room = places[index + 1][0] if index + 1 < len(places) else end
        if x + width <= room:
            drawing.append(_text(x + 3, _TOP - 6, label))
            free = x + width + 4
        elif x - width >= free:
            drawing.append(_text(x - 3, _TOP - 6, label, anchor="end"))
            free = x
    return drawing


def _draw(line: Series, x_scale: _Scale, y_scale: _Scale, axis: Axis) -> list[Html]:
    x, y = thinned(line.x, _drawable(line.y, log=axis.log))
    drawn = "faint" if line.kind == "faint" else "line"
    colour = line.colour % _COLOURS
    places = np.column_stack([x_scale(x), y_scale(y)])
    drawing = [
        element("polyline", points=_points(part), class_=f"{drawn} s{colour}")
        for part in _unbroken(places)
        if len(part) > 1
    ]
    if line.kind == "dots" or len(places) == 1:
        drawing += [
            element("circle", cx=f"{at[0]:.1f}", cy=f"{at[1]:.1f}", r=2.6, class_=f"f{colour}")
            for at in (places if len(places) <= _BUCKETS else places[:0])
            if np.isfinite(at).all()
        ]
    return drawing


def _drawable(values: Sequence[float] | np.ndarray, *, log: bool) -> np.ndarray:
    """The values, NaN for what no axis can show."""
    array = np.asarray(values, dtype=float)
    fine = np.abs(array) < _HUGE
    return np.where(fine & (array > 1 / _HUGE) if log else fine, array, np.nan)


def _unbroken(places: np.ndarray) -> list[np.ndarray]:
    """The stretches of points that are all numbers."""
    fine = np.isfinite(places).all(axis=1)
    borders = np.flatnonzero(np.diff(fine)) + 1
    return [part for part in np.split(places, borders) if np.isfinite(part).all()]


def _points(places: np.ndarray) -> str:
    # A point far outside, cut off in any case, need not be far.
    clipped = places.clip(-2 * _WIDTH, 3 * _WIDTH)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in clipped.tolist())


def _event_row(row: Events, scale: _Scale, top: float) -> list[Html]:
    colour = row.colour % _COLOURS
    drawing = [_text(0, top + 15, row.label)]
    for start, stop, name in row.spans:
        x, end = scale([start, stop]).tolist()
        width = max(1.0, end - x - 1)
        shape = {"x": f"{x:.1f}", "y": top + 3, "width": f"{width:.1f}", "height": _ROW_HEIGHT - 6}
        drawing.append(
            element("rect", **shape, rx=2, class_=f"f{colour}", fill_opacity="var(--band)")
        )
        if 7.5 * len(name) < width - 8:
            drawing.append(_text(x + 5, top + 15, name, class_="name"))
    places = np.unique(scale(row.places).round(1)) if len(row.places) else np.empty(0)
    drawing += [
        _rule(x, top + 4, x, top + _ROW_HEIGHT - 4, f"s{colour}", stroke_width=2)
        for x in places.tolist()
    ]
    return drawing


def _rule(x: float, y: float, to_x: float, to_y: float, kind: str, **more: object) -> Html:
    ends = {"x1": f"{x:.1f}", "y1": f"{y:.1f}", "x2": f"{to_x:.1f}", "y2": f"{to_y:.1f}"}
    return element("line", class_=kind, **ends, **more)


def _text(x: float, y: float, text: str, *, anchor: str = "start", **more: object) -> Html:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, **more)
