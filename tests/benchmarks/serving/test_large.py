"""How rounds of large requests are summed up."""

from benchmarks.serving.large import _summary, _told


def side(tokens: float, seconds: float) -> dict[str, object]:
    return {"tokens_per_second": tokens, "mixed": {"query": {"p99_seconds": seconds}}}


def test_ratios_are_ours_over_the_peers_by_precision() -> None:
    rounds = [
        {"dtype": "float32", **_told({"ours": side(tokens, 1.0), "peer": side(100, 4.0)})}
        for tokens in (100, 200, 300)
    ]
    assert _summary(rounds) == {"float32": {"throughput": 2.0, "query_p99": 0.25}}
