"""Timing that compares fairly: everyone in turn, round after round, in one process."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import TypeVar

B = TypeVar("B", bound=int | None)

# Threads of the engine before may still spin for more work.
_SETTLE_SECONDS = 0.02


def interleave(
    turns: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    budget_seconds: float,
    min_turn_seconds: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    settle: Callable[[float], None] = time.sleep,
) -> dict[str, list[float]]:
    """Seconds of one call of each, for every round: A B C, A B C, ...

    rounds: at most so many; a round that would not fit into the budget any more is not begun, but
        there is always one.
    min_turn_seconds: short calls are repeated in their turn for so long, and the turn counts as
        their median.
    """
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    begin = clock()
    for index in range(rounds):
        elapsed = clock() - begin
        if index and elapsed + elapsed / index > budget_seconds:
            break
        for name, call in turns.items():
            settle(_SETTLE_SECONDS)
            seconds[name].append(_turn(call, min_turn_seconds, clock))
    return seconds


def _turn(call: Callable[[], object], min_seconds: float, clock: Callable[[], float]) -> float:
    """The median over as many calls as fill the turn, one at least."""
    durations: list[float] = []
    while not durations or sum(durations) < min_seconds:
        begin = clock()
        call()
        durations.append(clock() - begin)
    return median(durations)


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times faster we are: the median of the ratios of every round."""
    return median(their / our for our, their in zip(ours, theirs, strict=True))


def best_batch_size(encode: Callable[[B], object], sizes: Sequence[B]) -> B:
    """The size with which one call is fastest, tried once each; a single one is not tried."""
    if len(sizes) == 1:
        return sizes[0]
    tries = {
        str(place): interleave({"one": partial(encode, size)}, rounds=1, budget_seconds=0)["one"]
        for place, size in enumerate(sizes)
    }
    return sizes[int(fastest(tries))]


def fastest(seconds: Mapping[str, Sequence[float]]) -> str:
    """The name with the smallest median."""
    return min(seconds, key=lambda name: median(seconds[name]))


def by_both_clocks(
    turns: Mapping[str, Sequence[Callable[[], object]]],
) -> dict[str, dict[str, float]]:
    """Milliseconds of a call of each, by the clock and of the CPU; in turn, A B A B."""
    wall: dict[str, list[float]] = {name: [] for name in turns}
    cpu: dict[str, list[float]] = {name: [] for name in turns}
    for calls in zip(*turns.values(), strict=True):
        for name, call in zip(turns, calls, strict=True):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            call()
            wall[name].append(1e3 * (time.perf_counter() - begin))
            cpu[name].append(1e3 * (time.process_time() - begin_cpu))
    return {
        name: {
            "median_wall_ms": round(median(wall[name]), 2),
            "fastest_wall_ms": round(min(wall[name]), 2),
            "median_cpu_ms": round(median(cpu[name]), 2),
        }
        for name in turns
    }
