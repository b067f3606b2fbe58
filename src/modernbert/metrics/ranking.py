"""Scores of rankings: documents that answer a query should stand above those that do not.

As trec_eval has them: linear gain, a discount of log2(rank + 1), equal scores in the reverse order
of their ids, and the mean over every query that has judgements.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from modernbert.errors import InputError

Judgements = Mapping[str, int]
"""How relevant each judged document is to one query; 0 or less is not at all."""


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Return the ids of documents, the best score first.

    >>> ranked({"a": 1.0, "b": 3.0, "c": 1.0})
    ['b', 'c', 'a']

    Raises:
        InputError: A score that is NaN.
    """
    for document, score in scores.items():
        if math.isnan(score):
            raise InputError(f"scores: that of document {document!r} is NaN; it must be a number")
    return sorted(sorted(scores, reverse=True), key=lambda document: -scores[document])


def ndcg(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """Compute the normalised discounted cumulative gain of the first `k` documents.

    >>> round(ndcg(["x", "a", "b"], {"a": 2, "b": 1}, 10), 4)
    0.6697
    """
    best = sorted((each for each in judgements.values() if each > 0), reverse=True)
    ideal = _gain(best[:k])
    found = _gain([max(0, judgements.get(document, 0)) for document in ranking[:k]])
    return found / ideal if ideal else 0.0


def recall(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """Return the share of the relevant documents that are among the first `k`."""
    relevant = {document for document, each in judgements.items() if each > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """Return 1 over the rank of the first relevant document; 0 if it is not among `k`."""
    for rank, document in enumerate(ranking[:k], start=1):
        if judgements.get(document, 0) > 0:
            return 1 / rank
    return 0.0


def average_precision(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """Return the mean, over the relevant documents, of the precision at each one's rank."""
    num_relevant = sum(each > 0 for each in judgements.values())
    found, total = 0, 0.0
    for rank, document in enumerate(ranking[:k], start=1):
        if judgements.get(document, 0) > 0:
            found += 1
            total += found / rank
    return total / num_relevant if num_relevant else 0.0


_METRICS: dict[str, Callable[[Sequence[str], Judgements, int], float]] = {
    "ndcg": ndcg,
    "recall": recall,
    "mrr": reciprocal_rank,
    "map": average_precision,
}


def ranking_scores(
    rankings: Mapping[str, Sequence[str]],
    judgements: Mapping[str, Judgements],
    metrics: Sequence[str] = ("ndcg@10", "recall@100", "mrr@10"),
) -> dict[str, float]:
    """Return the mean of each metric over all judged queries; one without a ranking counts 0.

    Args:
        rankings: For each query, the ids of documents, the best first.
        judgements: For each query, how relevant documents are.
        metrics: `ndcg`, `recall`, `mrr` or `map`, each with `@` and how many documents count.

    >>> ranking_scores({"q": ["x", "a"]}, {"q": {"a": 1}}, ["mrr@10", "recall@1"])
    {'mrr@10': 0.5, 'recall@1': 0.0}

    Raises:
        InputError: An unknown metric, a document twice in a ranking, or no judgements.
    """
    if not judgements:
        raise InputError("judgements: got none; there is nothing to score")
    for query, ranking in rankings.items():
        if len(set(ranking)) != len(ranking):
            raise InputError(f"rankings: a document occurs twice in the ranking of query {query!r}")
    scores = {}
    for metric in metrics:
        score, k = _parsed(metric)
        values = [score(rankings.get(query, ()), each, k) for query, each in judgements.items()]
        scores[metric] = sum(values) / len(values)
    return scores


def _parsed(metric: str) -> tuple[Callable[[Sequence[str], Judgements, int], float], int]:
    name, _, depth = metric.partition("@")
    if name not in _METRICS or not depth.isdecimal() or int(depth) < 1:
        names = ", ".join(f"{each}@10" for each in _METRICS)
        raise InputError(f"metrics: got {metric!r}, expected one such as {names}")
    return _METRICS[name], int(depth)


def _gain(relevances: Sequence[int]) -> float:
    return sum(each / math.log2(rank + 1) for rank, each in enumerate(relevances, start=1))
