"""The rate over tokens: its borders, its shape, and what it refuses."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.errors import SettingsError
from modernbert.training.training_settings import ScheduleSettings, learning_rate

SCHEDULE = ScheduleSettings(
    peak_learning_rate=8e-4, warmup_tokens=3_000, decay="1-sqrt", decay_tokens=50_000
)
TOTAL = 300_000


@st.composite
def schedules(draw: st.DrawFn) -> tuple[ScheduleSettings, int]:
    total = draw(st.integers(2, 10**13))
    warmup = draw(st.integers(0, total - 1))
    decay = draw(st.integers(0, total - warmup))
    schedule = ScheduleSettings(
        peak_learning_rate=draw(st.floats(1e-6, 1.0)),
        warmup_tokens=warmup,
        decay="1-sqrt" if decay else "constant",
        decay_tokens=decay,
        final_fraction=draw(st.floats(0, 1)),
    )
    return schedule, total


@given(schedules(), st.data())
@settings(deadline=None, max_examples=200)
def test_rises_stays_and_falls_within_its_borders(
    case: tuple[ScheduleSettings, int], data: st.DataObject
) -> None:
    schedule, total = case
    early, late = sorted(data.draw(st.tuples(*[st.integers(1, total)] * 2)))
    first, second = (learning_rate(schedule, tokens, total) for tokens in (early, late))
    peak = schedule.peak_learning_rate
    assert 0 <= second <= peak and 0 <= first <= peak
    assert first > 0 or early == total
    if late <= schedule.warmup_tokens:
        assert first <= second
    elif early >= total - schedule.decay_tokens:
        assert first >= second
    elif schedule.warmup_tokens <= early and late <= total - schedule.decay_tokens:
        assert first == second == peak


def test_borders_are_exact() -> None:
    peak = SCHEDULE.peak_learning_rate
    assert learning_rate(SCHEDULE, 1, TOTAL) == pytest.approx(peak / 3_000)
    assert learning_rate(SCHEDULE, 3_000, TOTAL) == peak
    assert learning_rate(SCHEDULE, 250_000, TOTAL) == peak
    assert learning_rate(SCHEDULE, TOTAL, TOTAL) == pytest.approx(peak * 0.001)
    assert learning_rate(SCHEDULE, TOTAL + 999, TOTAL) == pytest.approx(peak * 0.001)


def test_decay_is_the_papers_formula() -> None:
    for tokens in (250_001, 262_500, 290_000):
        progress = (tokens - 250_000) / 50_000
        expected = 8e-4 * (0.001 + 0.999 * (1 - math.sqrt(progress)))
        assert learning_rate(SCHEDULE, tokens, TOTAL) == pytest.approx(expected)


def test_without_warmup_or_decay_the_peak_is_all_there_is() -> None:
    schedule = ScheduleSettings(peak_learning_rate=3e-4)
    assert {learning_rate(schedule, tokens, 100) for tokens in range(1, 101)} == {3e-4}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peak_learning_rate": 0.0}, "peak_learning_rate: got 0.0"),
        ({"peak_learning_rate": math.inf}, "peak_learning_rate: got inf"),
        ({"warmup_tokens": -1}, "warmup_tokens: got -1"),
        ({"final_fraction": 1.5}, "final_fraction: got 1.5"),
        ({"decay": "1-sqrt"}, "decay_tokens: got 0"),
        ({"decay_tokens": 5}, 'decay_tokens: got 5 with decay = "constant"'),
    ],
)
def test_refuses(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=f"^{message}"):
        ScheduleSettings(**{"peak_learning_rate": 1e-3, **values})


def test_refuses_a_run_shorter_than_its_schedule() -> None:
    SCHEDULE.check_fits(53_000)
    with pytest.raises(SettingsError, match="more than the run's 52999 tokens"):
        SCHEDULE.check_fits(52_999)


def test_a_linear_decay_is_a_straight_line_to_the_end() -> None:
    settings = ScheduleSettings(
        peak_learning_rate=1.0, decay="linear", decay_tokens=900, final_fraction=0.0
    )
    rates = [learning_rate(settings, tokens, 1000) for tokens in (50, 100, 550, 1000)]
    assert rates == pytest.approx([1.0, 1.0, 0.5, 0.0])
