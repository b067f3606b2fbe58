"""Charts: what is drawn lies within, whatever the numbers are, and stays small."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread
from tests.report.html_tree import parse

from modernbert.errors import RunError
from modernbert.report.charts import (
    Axis,
    Chart,
    Events,
    LineChart,
    Mark,
    Series,
    Timeline,
    save_png,
    thinned,
)

X = Axis(label="tokens")


def lines(*series: Series, y: Axis | None = None, **more: Any) -> LineChart:
    return LineChart(title="Loss", series=series, x=X, y=y or Axis(), **more)


def drawn(chart: Chart) -> Any:
    """The axes that a chart was drawn on."""
    axes = Figure().add_subplot()
    chart.draw(axes)
    return axes


def test_limits_labels_and_title() -> None:
    chart = lines(Series(label="a", x=[0, 10], y=[0, 10]), y=Axis(label="nats", low=0, high=10))
    axes = drawn(chart)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 10), (0, 10))
    assert axes.get_xlabel() == "tokens"
    root = parse(chart.html())
    assert [root.all("b")[0].text, root.all("span", "unit")[0].text] == ["Loss", "nats"]
    assert "tokens" in [text.text for text in root.all("text")]


def test_every_named_line_is_in_the_legend() -> None:
    chart = lines(
        Series(label="", x=[1, 2], y=[5, 4], kind="faint"),
        Series(label="mean", x=[1, 2], y=[5, 4]),
        Series(label="<held out>", x=[1, 2], y=[6, 5], colour=1, kind="dots"),
        Series(label="empty", x=[], y=[]),
    )
    (legend,) = parse(chart.html()).all("span", "legend")
    assert [entry.text for entry in legend.all("span")] == ["mean", "<held out>"]
    assert [line.get_marker() for line in drawn(chart).get_lines()] == ["None", "None", "o"]


def test_a_page_has_its_own_colours_and_nothing_from_elsewhere() -> None:
    rows = [Events(label="resumes", places=[1.0], colour=3, spans=[(0, 1, "first")])]
    timeline = Timeline(title="Events", rows=rows, x=X)
    series = [Series(label="", x=[1, 2], y=[1, 2], colour=colour) for colour in range(5)]
    both = lines(*series, marks=[Mark(x=1.5, label="phase")]).html() + timeline.html()
    for colour in range(5):
        assert f"var(--c{colour})" in both
    for foreign in ("http", "<style", "<script", "<?xml", "metadata", "DejaVu", 'id="axes'):
        assert foreign not in both.replace("http://www.w3.org/1999/xlink", "")


def test_a_spike_of_a_faint_line_does_not_squash_the_others() -> None:
    y = [1.0] * 500
    y[250] = 1e9
    faint = Series(label="", x=range(500), y=y, kind="faint")
    low, high = drawn(lines(faint, Series(label="m", x=[0, 499], y=[1, 2]))).get_ylim()
    assert low < 1 and 2 < high < 3


@pytest.mark.parametrize("y", [[], [math.nan], [math.nan, math.inf]])
def test_nothing_to_draw(y: list[float]) -> None:
    chart = lines(Series(label="", x=range(len(y)), y=y))
    timeline = Timeline(title="a", rows=[Events(label="none")], x=X)
    assert chart.is_empty() and timeline.is_empty()
    assert chart.html() == timeline.html() == ""


def test_names_of_marks_do_not_overlap() -> None:
    places = (("one", 30), ("two", 31), ("three", 32), ("end", 99.9), ("outside", 200))
    marks = [Mark(x=x, label=name) for name, x in places]
    axes = drawn(lines(Series(label="", x=[0, 100], y=[0, 1]), marks=marks))
    assert len(axes.get_lines()) == 1 + 4
    assert {text.get_text().strip(): text.get_ha() for text in axes.texts} == {
        "one": "right",
        "three": "left",
        "end": "right",
    }


def test_a_timeline_has_a_row_for_what_happened() -> None:
    rows = [
        Events(label="phases", spans=[(0, 60, "first"), (60, 61, "too narrow for its name")]),
        Events(label="resumes", places=[10, 10, 50]),
        Events(label="never"),
    ]
    axes = drawn(Timeline(title="Events", rows=rows, x=Axis(label="tokens", low=0, high=100)))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["phases", "resumes"]
    assert [text.get_text() for text in axes.texts] == ["first"]
    assert [len(each.get_segments()) for each in axes.collections if hasattr(each, "get_segments")][
        -1
    ] == 2  # two at one place are one


def test_pictures(tmp_path: Path) -> None:
    chart = lines(Series(label="a", x=[0, 1], y=[0, 1]))
    save_png([chart], tmp_path / "one.png", columns=1)
    height, width, _ = imread(tmp_path / "one.png").shape
    assert (width, height) == (1200, 720)
    save_png([chart] * 4, tmp_path / "four.png", columns=3)
    assert imread(tmp_path / "four.png").shape[1] == 1620


def test_a_picture_that_cannot_be_written_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "loss.png").mkdir()
    with pytest.raises(RunError, match=r"loss\.png: could not be written"):
        save_png([lines(Series(label="a", x=[0], y=[0]))], tmp_path / "loss.png", columns=1)
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(-1e3, 1e3), st.just(0.0)
)


@settings(deadline=None, max_examples=30)
@given(y=st.lists(NUMBERS, min_size=1, max_size=40), log=st.booleans())
def test_any_numbers_can_be_drawn(y: list[float], log: bool) -> None:
    chart = lines(Series(label="x", x=range(len(y)), y=y, kind="dots"), y=Axis(log=log))
    parse(chart.html() or "<p></p>")
    if not chart.is_empty():
        assert np.isfinite(drawn(chart).get_ylim()).all()


@given(
    y=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300),
    buckets=st.integers(1, 20),
)
def test_thinning_keeps_the_extremes_and_the_order(y: list[float], buckets: int) -> None:
    x, kept = thinned(range(len(y)), y, buckets)
    assert len(x) <= max(4 * buckets, 4)
    assert (np.diff(x) > 0).all()
    assert [y[int(place)] for place in x] == kept.tolist()
    assert (kept.min(), kept.max(), kept[0], kept[-1]) == (min(y), max(y), y[0], y[-1])


def test_a_million_points_are_a_small_chart() -> None:
    x = np.arange(1_000_000)
    html = lines(Series(label="", x=x, y=np.sin(x))).html()
    assert 1_000 < len(html) < 40_000
