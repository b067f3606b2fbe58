"""How figures of rounds become ratios."""

from typing import Any

import pytest

from benchmarks.serving.__main__ import ratios, summary


def figures(tokens: float, seconds: float) -> dict[str, Any]:
    latency = {"median_seconds": seconds, "p99_seconds": 2 * seconds}
    return {
        "saturation": {"tokens_per_second": tokens},
        "half": latency,
        "mixed": {"short": latency, "long": latency},
    }


def test_ratios_are_medians_of_the_ratios_within_rounds() -> None:
    rounds = {
        "ours float32": [figures(300, 1), figures(100, 1), figures(200, 1)],
        "sentence-transformers float32": [figures(100, 4), figures(50, 4), figures(100, 4)],
        "infinity float32": [],
    }
    found = ratios(rounds)
    assert list(found) == ["ours float32 over sentence-transformers float32"]
    row = found["ours float32 over sentence-transformers float32"]
    assert row["tokens_per_second"] == 2
    assert row["short_p99_beside_long_seconds"] == pytest.approx(0.25)


def test_large_requests_have_no_latency_at_half_load() -> None:
    rounds = [figures(tokens, 1) for tokens in (300, 100)]
    for each in rounds:
        del each["half"]
    assert summary(rounds)["tokens_per_second"] == 200
    names = ratios({"ours float32": rounds, "sentence-transformers float32": rounds})
    (row,) = names.values()
    assert row["short_p99_beside_long_seconds"] == 1 and "half_p99_seconds" not in row
