"""What a comparison of engines or of training steps tells: speeds, and ours over the others'."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.engines import precision_of
from benchmarks.timing import speedup

Seconds = Mapping[str, Sequence[float]]
"""Of each round, by the name of an engine."""


def timings(seconds: Seconds, num_tokens: int) -> dict[str, dict[str, Any]]:
    """The seconds of everyone, and tokens a second by their median."""
    return {
        name: {
            "precision": precision_of(name),
            "seconds": times,
            "tokens_per_second": num_tokens / median(times),
        }
        for name, times in seconds.items()
    }


def speedups(seconds: Seconds) -> dict[str, dict[str, float]]:
    """Of each of ours over each peer of its precision; of int8 also over our bfloat16."""
    found: dict[str, dict[str, float]] = {}
    for name in (name for name in seconds if name.startswith("ours")):
        precision = precision_of(name)
        found[name] = {
            other: speedup(seconds[name], seconds[other])
            for other in seconds
            if (other == "ours bfloat16" and precision == "int8")
            or (not other.startswith("ours") and precision_of(other) == precision)
        }
    return found


def tell(title: str, result: Mapping[str, Any]) -> None:
    """Print checks, speeds and speedups."""
    print(title)
    for name, passed in result["checks"].items():
        print(f"  {'equal' if passed else 'NOT EQUAL'}: {name}")
    for name, reason in result.get("absent", {}).items():
        print(f"  absent: {name}: {reason}")
    for name, timing in result.get("timings", {}).items():
        print(f"  {name:32s} {timing['tokens_per_second']:9,.0f} tokens/s")
    for name, against in result.get("speedups", {}).items():
        for other, factor in against.items():
            print(f"  {name} over {other}: {factor:.2f}")
    for name, share in result.get("share_of_ceiling", {}).items():
        print(f"  {name}: {share:.0%} of the ceiling")
