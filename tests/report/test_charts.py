"""Charts: what is drawn lies within, whatever the numbers are, and stays small."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.html_tree import Node, parse

from modernbert.report.charts import Axis, Events, Mark, Series, line_chart, thinned, timeline

X = Axis(label="tokens")


def points(polyline: Node) -> list[tuple[float, float]]:
    given = polyline.attributes["points"] or ""
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in given.split())]


def test_a_line_goes_from_corner_to_corner() -> None:
    y = Axis(label="nats", low=0, high=10)
    root = parse(line_chart("Loss", [Series(label="a", x=[0, 10], y=[0, 10])], x=X, y=y))
    (line,) = root.all("polyline")
    (left, bottom), (right, top) = points(line)
    assert (left, right) == (52, 468) and bottom > 200 and top < 30
    assert root.all("b")[0].text == "Loss"
    assert "tokens" in [text.text for text in root.all("text")]


def test_every_named_line_is_in_the_legend() -> None:
    lines = [
        Series(label="", x=[1, 2], y=[5, 4], kind="faint"),
        Series(label="mean", x=[1, 2], y=[5, 4]),
        Series(label="<held out>", x=[1, 2], y=[6, 5], colour=1, kind="dots"),
    ]
    root = parse(line_chart("Loss", lines, x=X, y=Axis()))
    (legend,) = root.all("span", "legend")
    assert [entry.text for entry in legend.all("span")] == ["mean", "<held out>"]
    assert len(root.all("circle")) == 2


def test_gaps_stay_gaps() -> None:
    series = Series(label="", x=range(7), y=[1, 2, math.nan, 3, 4, math.inf, 5])
    root = parse(line_chart("a", [series], x=X, y=Axis()))
    assert [len(points(line)) for line in root.all("polyline")] == [2, 2]


def test_a_spike_of_a_faint_line_does_not_squash_the_others() -> None:
    y = [1.0] * 500
    y[250] = 1e9
    faint = Series(label="", x=range(500), y=y, kind="faint")
    root = parse(line_chart("a", [faint, Series(label="m", x=[0, 499], y=[1, 2])], x=X, y=Axis()))
    first, second = points(root.all("polyline", "line")[0])
    assert first[1] - second[1] > 150
    assert root.all("svg")[1].attributes["style"] == "overflow:hidden"


@pytest.mark.parametrize("y", [[], [math.nan], [math.nan, math.inf]])
def test_nothing_to_draw(y: list[float]) -> None:
    series = Series(label="", x=range(len(y)), y=y)
    assert line_chart("a", [series], x=X, y=Axis()) == ""
    assert timeline("a", [Events(label="none")], x=X) == ""


def test_names_of_marks_do_not_overlap() -> None:
    marks = [
        Mark(x=x, label=name)
        for name, x in (("one", 30), ("two", 31), ("three", 32), ("end", 99.9))
    ]
    series = Series(label="", x=[0, 100], y=[0, 1])
    root = parse(line_chart("a", [series], x=X, y=Axis(), marks=marks))
    assert len(root.all("line", "border")) == 4
    texts = {text.text: text.attributes for text in root.all("text")}
    assert {name: place["text-anchor"] for name, place in texts.items() if name.isalpha()} == {
        "one": "end",
        "three": "start",
        "end": "end",
        "tokens": "middle",
    }


def test_a_timeline_has_a_row_for_what_happened() -> None:
    rows = [
        Events(label="phases", spans=[(0, 60, "first"), (60, 61, "too narrow for its name")]),
        Events(label="resumes", places=[10, 10, 50]),
        Events(label="never"),
    ]
    root = parse(timeline("Events", rows, x=Axis(label="tokens", low=0, high=100)))
    texts = [text.text for text in root.all("text")]
    assert {"phases", "resumes", "first"} <= set(texts)
    assert "never" not in texts and "too narrow for its name" not in texts
    assert len(root.all("line", "s0")) == 2  # two at one place are one


NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(-1e3, 1e3), st.just(0.0)
)


@given(y=st.lists(NUMBERS, min_size=1, max_size=40), log=st.booleans())
def test_any_numbers_can_be_drawn(y: list[float], log: bool) -> None:
    series = Series(label="x", x=range(len(y)), y=y, kind="dots")
    root = parse(line_chart("a", [series], x=X, y=Axis(log=log)) or "<p></p>")
    for line in root.all("polyline"):
        assert all(math.isfinite(place) for point in points(line) for place in point)


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
    drawn = line_chart("a", [Series(label="", x=x, y=np.sin(x))], x=X, y=Axis())
    assert 1_000 < len(drawn) < 30_000
