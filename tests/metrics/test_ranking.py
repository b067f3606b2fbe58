"""Scores of rankings, against ir-measures."""

import random

import ir_measures
import pytest
from ir_measures import AP, RR, R, nDCG

from modernbert.errors import InputError
from modernbert.metrics.ranking import ndcg, ranked, ranking_scores

METRICS = {
    "ndcg@5": nDCG @ 5,
    "ndcg@10": nDCG @ 10,
    "recall@3": R @ 3,
    "mrr@10": RR @ 10,
    "map@10": AP @ 10,
}


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_ir_measures(seed: int) -> None:
    choose = random.Random(seed)
    documents = [f"d{i}" for i in range(30)]
    judgements = {
        f"q{i}": {each: choose.choice([0, 0, 1, 2]) for each in choose.sample(documents, 8)}
        for i in range(6)
    }
    scores = {  # many equal scores; and q5 has no ranking
        f"q{i}": {each: choose.randint(0, 4) / 4 for each in choose.sample(documents, 20)}
        for i in range(5)
    }
    found = ranking_scores(
        {query: ranked(each) for query, each in scores.items()}, judgements, list(METRICS)
    )
    wanted = ir_measures.calc_aggregate(METRICS.values(), judgements, scores)
    # The provider of this one breaks ties in another way.
    distinct = {
        query: {document: -rank for rank, document in enumerate(ranked(each))}
        for query, each in scores.items()
    }
    wanted |= ir_measures.calc_aggregate([RR @ 10], judgements, distinct)
    for name, measure in METRICS.items():
        assert found[name] == pytest.approx(wanted[measure], abs=1e-9), name


def test_a_query_without_a_relevant_document_counts_nothing() -> None:
    assert ranking_scores({"q": ["a"]}, {"q": {"a": 0}, "p": {}}, ["ndcg@10", "map@10"]) == {
        "ndcg@10": 0.0,
        "map@10": 0.0,
    }
    assert ndcg(["a", "b"], {"a": -1, "b": 1}, 10) < 1


def test_what_cannot_be_scored() -> None:
    with pytest.raises(InputError, match=r"^scores: that of document 'b' is NaN"):
        ranked({"a": 1.0, "b": float("nan")})
    with pytest.raises(InputError, match=r"a document occurs twice in the ranking of query 'q'"):
        ranking_scores({"q": ["a", "a"]}, {"q": {"a": 1}})
    with pytest.raises(InputError, match=r"^judgements: got none"):
        ranking_scores({"q": ["a"]}, {})
    for metric in ("ndgc@10", "ndcg", "ndcg@0", "ndcg@x"):
        with pytest.raises(InputError, match=r"^metrics: got .* expected one such as ndcg@10"):
            ranking_scores({"q": ["a"]}, {"q": {"a": 1}}, [metric])
