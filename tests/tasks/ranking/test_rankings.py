"""Which queries a model is most wrong on."""

import pytest

from modernbert.tasks.ranking.rankings import Rankings

DOCUMENTS = {name: f"text {name}" for name in "abcd"}


def rankings() -> Rankings:
    return Rankings(
        queries={"right": "query right", "second": "query second", "missing": "query missing"},
        documents=DOCUMENTS,
        found={"right": ["a", "b"], "second": ["b", "c", "a"], "missing": ["d", "b"]},
        judgements={
            "right": {"a": 1, "b": 0},
            "second": {"a": 2, "c": 1, "b": 0},
            "missing": {"a": 1},
        },
    )


def test_the_worst_comes_first_with_what_stood_there_instead() -> None:
    missing, second = rankings().wrong("mrr@10")
    assert (missing.query, missing.score, missing.place) == ("query missing", 0.0, None)
    assert (missing.answer, missing.instead) == ("text a", "text d")
    assert (second.query, second.score, second.place) == ("query second", 0.5, 2)
    assert (second.answer, second.instead) == ("text a", "text b")


def test_the_scores_are_the_means_of_the_queries() -> None:
    scores = rankings().scores(["mrr@10", "recall@1", "mrr@10"])
    assert scores == {"mrr@10": pytest.approx(0.5), "recall@1": pytest.approx(1 / 3)}
    assert len(rankings().wrong("recall@10")) == 1
