"""Turns, rounds and budgets, by a clock that only calls move."""

from collections.abc import Callable

import pytest

from benchmarks.timing import fastest, interleave, speedup


class Clock:
    """Stands still but for what the calls made here take; notes who was called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes these seconds in turn."""
        waiting = list(seconds)

        def run() -> None:
            self.calls.append(name)
            self.now += waiting.pop(0) if len(waiting) > 1 else waiting[0]

        return run


def timed(clock: Clock, *, rounds: int, budget: float, turn: float = 0, **calls: Callable) -> dict:
    return interleave(
        calls,
        rounds=rounds,
        budget_seconds=budget,
        min_turn_seconds=turn,
        clock=clock,
        settle=lambda _: None,
    )


def test_everyone_takes_turns() -> None:
    clock = Clock()
    seconds = timed(clock, rounds=2, budget=100, a=clock.call("a", 1, 2), b=clock.call("b", 5))
    assert clock.calls == ["a", "b", "a", "b"]
    assert seconds == {"a": [1, 2], "b": [5, 5]}


@pytest.mark.parametrize(("budget", "rounds"), [(0, 1), (11.9, 1), (12, 2), (18, 3), (1000, 4)])
def test_no_round_is_begun_that_would_not_fit(budget: float, rounds: int) -> None:
    clock = Clock()
    seconds = timed(clock, rounds=4, budget=budget, a=clock.call("a", 6))
    assert len(seconds["a"]) == rounds


def test_short_calls_fill_their_turn_and_count_by_their_median() -> None:
    clock = Clock()
    calls = {"a": clock.call("a", 1, 9, 2, 2), "b": clock.call("b", 20)}
    seconds = timed(clock, rounds=1, budget=0, turn=13, **calls)
    assert clock.calls == ["a"] * 4 + ["b"]
    assert seconds == {"a": [2], "b": [20]}


def test_others_may_settle_before_each_turn() -> None:
    clock, pauses = Clock(), []
    interleave(
        {"a": clock.call("a", 1), "b": clock.call("b", 1)},
        rounds=2,
        budget_seconds=9,
        clock=clock,
        settle=pauses.append,
    )
    assert len(pauses) == 4
    assert min(pauses) > 0


def test_speedup_compares_within_rounds() -> None:
    """A machine that is half as fast in one round changes nothing."""
    assert speedup([1, 2, 1], [3, 6, 3]) == 3
    assert speedup([1, 1, 1], [3, 2, 50]) == 3


def test_fastest_is_by_the_median() -> None:
    assert fastest({"a": [1, 9, 9], "b": [5, 5, 5]}) == "b"
