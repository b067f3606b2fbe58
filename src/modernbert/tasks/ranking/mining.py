"""Hard negatives: documents that a retriever takes for answers, but that are not.

The documents nearest to each query are taken in their order. Left out are the known answers of the
query, the first few documents, which may be unknown answers, and documents that are too near to the
query compared with the known answer (arXiv 2407.15831).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from modernbert.inference.batching import Observer
from modernbert.inference.reranker import Reranker
from modernbert.inference.retriever import Retriever, text_vectors
from modernbert.inference.similarity import rank_documents, scores_of_block
from modernbert.tasks.ranking.data import RetrievalData
from modernbert.tasks.ranking.recipe import MiningSettings


def mine(
    retriever: Retriever,
    data: RetrievalData,
    corpus: Sequence[str],
    settings: MiningSettings,
    *,
    teacher: Reranker | None = None,
    on_progress: Observer | None = None,
) -> Iterator[dict[str, Any]]:
    """Make a row for each example with an answer: `query`, `positive`, `negatives`, `scores`.

    Rows without any negatives are skipped; `scores` are added if there is a teacher.

    Args:
        retriever: The retriever.
        data: The examples.
        corpus: The documents to search, each once.
        settings: Which documents count as hard negatives.
        teacher: The reranker whose scores of the positive and the negatives are added, if any.
        on_progress: Called with the progress of embedding the corpus.

    Raises:
        InputError: Something is not a text.
    """
    queries = list(data.known)
    vectors = [v for block in text_vectors(retriever, queries, "query") for v in block]
    blocks = text_vectors(retriever, corpus, "document", on_progress=on_progress)
    found = rank_documents(vectors, blocks, settings.depth)
    nearest = dict(zip(queries, found, strict=True))
    places = {query: place for place, query in enumerate(queries)}
    answered = [each for each in data.examples if each.relevant]
    answers = text_vectors(retriever, (each.documents[0] for each in answered), "document")
    for each, answer in zip(answered, (v for block in answers for v in block), strict=True):
        own = float(scores_of_block([vectors[places[each.query]]], answer, [len(answer)])[0, 0])
        kept = _kept(*nearest[each.query], own, settings)
        texts = [corpus[row] for row in kept if corpus[row] not in data.known[each.query]]
        if not (negatives := texts[: settings.negatives]):
            continue
        row: dict[str, Any] = {
            "query": each.query,
            "positive": each.documents[0],
            "negatives": negatives,
        }
        if teacher is not None:
            pairs = [(each.query, text) for text in (each.documents[0], *negatives)]
            row["scores"] = teacher.scores(pairs).tolist()
        yield row


def _kept(scores: np.ndarray, rows: np.ndarray, own: float, settings: MiningSettings) -> list[int]:
    """Return the rows that are far enough below the answer's score, the nearest first."""
    limit = own - settings.margin
    if settings.ratio is not None:
        limit = min(limit, own - (1 - settings.ratio) * abs(own))
    limited = settings.margin > 0 or settings.ratio is not None
    pairs = zip(scores[settings.skip :].tolist(), rows[settings.skip :].tolist(), strict=True)
    return [row for score, row in pairs if not limited or score <= limit]
