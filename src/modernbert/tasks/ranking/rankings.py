"""`Rankings`: what a model puts first for the queries of held-out data, and where it is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modernbert.metrics.ranking import ranking_scores
from modernbert.tasks.tuning.job import Review
from modernbert.tasks.tuning.page import shown

_CHARACTERS = 300


@dataclass(frozen=True)
class WrongQuery:
    """A query whose answers do not stand first.

    Attributes:
        score: Of the metric, below 1.
        answer: The document that answers best.
        place: Where the first answer stands, from 1; None when it is not among those that were
            ranked.
        instead: The first document that is no answer.
    """

    query: str
    score: float
    answer: str
    place: int | None
    instead: str


@dataclass(frozen=True, kw_only=True)
class Rankings:
    """Documents in the order that a model gives them, for each query.

    Attributes:
        queries: The text of each id.
        documents: As `queries`.
        found: For each query, the ids of documents, the best first.
        judgements: For each query, how relevant documents are; 0 is not at all.
    """

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    found: Mapping[str, Sequence[str]]
    judgements: Mapping[str, Mapping[str, int]]

    def scores(self, metrics: Sequence[str]) -> dict[str, float]:
        """The mean of each metric over all queries, each metric once.

        Raises:
            InputError: An unknown metric.
        """
        return ranking_scores(self.found, self.judgements, list(dict.fromkeys(metrics)))

    def wrong(self, metric: str) -> list[WrongQuery]:
        """The queries that are not perfectly answered, the worst first."""
        scores = {
            query: ranking_scores({query: self.found[query]}, {query: judged}, [metric])[metric]
            for query, judged in self.judgements.items()
        }
        wrong = [query for query, score in scores.items() if score < 1 - 1e-9]
        return [
            self._wrong(query, scores[query])
            for query in sorted(wrong, key=lambda query: scores[query])
        ]

    def review(self, metric: str) -> Review:
        """The worst queries, for the page."""
        return Review(
            columns=(
                "query",
                metric,
                "answer",
                "place of the first answer",
                "first that is no answer",
            ),
            mistakes=[
                (
                    shown(each.query, _CHARACTERS),
                    f"{each.score:.3f}",
                    shown(each.answer, _CHARACTERS),
                    "not found" if each.place is None else each.place,
                    shown(each.instead, _CHARACTERS),
                )
                for each in self.wrong(metric)
            ],
        )

    def _wrong(self, query: str, score: float) -> WrongQuery:
        judged, found = self.judgements[query], self.found[query]
        answers = [place for place, name in enumerate(found, 1) if judged.get(name, 0) > 0]
        others = [name for name in found if judged.get(name, 0) <= 0]
        return WrongQuery(
            query=self.queries[query],
            score=score,
            answer=self.documents[max(judged, key=lambda name: judged[name])],
            place=answers[0] if answers else None,
            instead=self.documents[others[0]] if others else "",
        )
