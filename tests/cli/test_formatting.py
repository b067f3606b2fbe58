"""Numbers as a person reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.cli.terminal import duration, lines, short_count


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (9_999, "10.0k"),
        (12_345, "12.3k"),
        (999_999, "1.00M"),
        (149_655_232, "150M"),
        (1.719e12, "1.72T"),
        (5e15, "5000T"),
    ],
)
def test_short_counts(number: float, text: str) -> None:
    assert short_count(number) == text


@given(st.integers(0, 10**16))
def test_short_counts_are_right_to_a_percent(number: int) -> None:
    text = short_count(number)
    units = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    value = float(text[:-1]) * units[text[-1]] if text[-1] in units else float(text)
    assert value == pytest.approx(number, rel=0.0051)
    assert len(text) <= 5 or number > 9e15


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90_000, "1d 1:00:00")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_descriptions_as_lines() -> None:
    description = {
        "kind": "test",
        "num_layers": 1200,
        "tied": True,
        "theta": 1e4,
        "rate": 8e-4,
        "kinds": ["global", "local"],
        "nothing": {},
        "sources": [{"name": "a_b", "tokens": 5000}],
        "inner": {"x": 1, "long_name": 2},
    }
    assert list(lines(description)) == [
        "kind        test",
        "num layers  1,200",
        "tied        yes",
        "theta       10,000",
        "rate        0.0008",
        "kinds       global, local",
        "nothing     none",
        "sources",
        "  a_b  tokens 5,000",
        "inner",
        "  x          1",
        "  long name  2",
    ]
