"""`Rankings`: what a model ranks first for held-out queries, and where it is wrong."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modernbert.extras import is_installed
from modernbert.inference.bm25 import Bm25, rank_by_words
from modernbert.metrics.ranking import ranking_scores
from modernbert.tasks.tuning.job import Review
from modernbert.tasks.tuning.page import shown

_CHARACTERS = 300
_SHOWN_RIGHT = 8


@dataclass(frozen=True)
class QueryOutcome:
    """What became of a query.

    Attributes:
        score: The score of the metric.
        answer: The document that answers best.
        place: The rank of the first answer, from 1; None if it was not ranked.
        instead: The first document that is not an answer.
    """

    query: str
    score: float
    answer: str
    place: int | None
    instead: str


@dataclass(frozen=True, kw_only=True)
class Rankings:
    """The documents of each query in the order of a model.

    Attributes:
        queries: The text of each query, by id.
        documents: The text of each document, by id.
        found: For each query, the ids of documents, the best first.
        judgements: For each query, the relevance of documents; 0 is not relevant.
    """

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    found: Mapping[str, Sequence[str]]
    judgements: Mapping[str, Mapping[str, int]]

    def scores(self, metrics: Sequence[str]) -> dict[str, float]:
        """Return the mean of each metric over all queries.

        Raises:
            InputError: A metric is unknown.
        """
        return ranking_scores(self.found, self.judgements, list(dict.fromkeys(metrics)))

    def score_of_each(self, metric: str) -> dict[str, float]:
        return {
            query: ranking_scores({query: self.found[query]}, {query: judged}, [metric])[metric]
            for query, judged in self.judgements.items()
        }

    def wrong(self, metric: str) -> list[QueryOutcome]:
        """Return the queries that are not answered perfectly, the worst first."""
        scores = self.score_of_each(metric)
        wrong = [query for query, score in scores.items() if score < 1 - 1e-9]
        return [
            self._outcome(query, scores[query])
            for query in sorted(wrong, key=lambda query: scores[query])
        ]

    def review(self, metric: str) -> Review:
        """Return the worst queries, and some that are answered perfectly, for the page."""
        scores = self.score_of_each(metric)
        right = [query for query, score in scores.items() if score >= 1 - 1e-9][:_SHOWN_RIGHT]
        return Review(
            columns=(
                "query",
                metric,
                "answer",
                "place of the first answer",
                "first that is no answer",
            ),
            mistakes=[_cells(each) for each in self.wrong(metric)],
            right=[_cells(self._outcome(query, scores[query])) for query in right],
        )

    def _outcome(self, query: str, score: float) -> QueryOutcome:
        judged, found = self.judgements[query], self.found[query]
        answers = [place for place, name in enumerate(found, 1) if judged.get(name, 0) > 0]
        others = [name for name in found if judged.get(name, 0) <= 0]
        return QueryOutcome(
            query=self.queries[query],
            score=score,
            answer=self.documents[max(judged, key=lambda name: judged[name])],
            place=answers[0] if answers else None,
            instead=self.documents[others[0]] if others else "",
        )


def word_scores(
    documents: Iterable[str], queries: Iterable[str], top_k: int
) -> list[dict[int, float]]:
    """Find the best documents of each query by BM25: places and scores, best first.

    Returns:
        Nothing where bm25s or PyStemmer is not installed.
    """
    if not (is_installed("bm25s") and is_installed("Stemmer")):
        return []
    return [
        dict(zip(rows.tolist(), scores.tolist(), strict=True))
        for scores, rows in rank_by_words([Bm25.build(documents)], queries, top_k)
    ]


def _cells(query: QueryOutcome) -> tuple[object, ...]:
    return (
        shown(query.query, _CHARACTERS),
        f"{query.score:.3f}",
        shown(query.answer, _CHARACTERS),
        "not found" if query.place is None else query.place,
        shown(query.instead, _CHARACTERS),
    )
