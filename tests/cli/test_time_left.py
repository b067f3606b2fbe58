"""The time that is left: recent, steady, and with what comes between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.cli.terminal import TimeLeft


def estimates(
    step_seconds: list[float], total: int, pauses: dict[int, float] | None = None
) -> dict[int, float]:
    """What is said after each step of one unit, of a run that pauses before some."""
    left, now = TimeLeft(), 0.0
    left.update(now, 0, total)
    said = {}
    for step, seconds in enumerate(step_seconds, 1):
        if pause := (pauses or {}).get(step):
            now += pause
            left.pause(pause)
        now += seconds
        found = left.update(now, step, total)
        if found is not None:
            said[step] = found
    return said


@given(seconds=st.floats(0.01, 100), total=st.integers(2, 10_000))
def test_a_steady_rate_is_told_exactly(seconds: float, total: int) -> None:
    said = estimates([seconds] * min(total - 1, 200), total)
    for step, left in said.items():
        assert left == pytest.approx(seconds * (total - step))
        assert seconds * step >= 5 * 0.999


def test_nothing_is_said_of_the_first_seconds_or_after_the_end() -> None:
    said = estimates([1.0] * 10, total=10)
    assert list(said) == [5, 6, 7, 8, 9]


def test_one_slow_step_moves_it_little() -> None:
    """A step that takes ten times as long does not make it ten times as much."""
    steps = [1.0] * 60 + [10.0] + [1.0] * 5
    said = estimates(steps, total=1000)
    assert said[61] < 1.5 * said[60]


def test_a_machine_that_becomes_busy_is_believed_by_and_by() -> None:
    said = estimates([1.0] * 100 + [4.0] * 60, total=1000)
    assert all(said[step + 1] < 1.35 * said[step] for step in range(5, 160))
    assert said[160] == pytest.approx(4.0 * 840, rel=0.1)


def test_evaluations_count_and_do_not_make_it_jump() -> None:
    """Ten seconds after every fifty steps: a fifth more for each unit, once one was seen."""
    pauses = dict.fromkeys(range(51, 400, 50), 10.0)
    said = estimates([1.0] * 400, total=1000, pauses=pauses)
    assert said[50] == pytest.approx(950)
    assert said[351] == pytest.approx(649 * (1 + 70 / 351))
    assert all(said[step + 1] < 1.25 * said[step] for step in range(5, 400))


def test_work_that_begins_again_is_told_anew() -> None:
    left = TimeLeft()
    for now, done in ((0, 0), (100, 50), (101, 0), (121, 10)):
        found = left.update(now, done, 60)
    assert found == pytest.approx(100)
    assert left.update(122, 11, None) is None
