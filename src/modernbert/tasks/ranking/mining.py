"""Hard negatives: documents that a retriever takes for answers, but that are not.

The documents nearest to each query are taken in their order. Left out are the known answers of the
query, the first few documents, which may be unknown answers, and documents that are too near to the
query compared with the known answers (NV-Retriever, arXiv 2407.15831). Of several known answers the
one with the lowest score decides, as in sentence-transformers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from modernbert.errors import InputError
from modernbert.inference.batching import Observer
from modernbert.inference.bm25 import Bm25, rank_by_words
from modernbert.inference.embedder_folder import Side
from modernbert.inference.reranker import Reranker
from modernbert.inference.retriever import Retriever, text_vectors
from modernbert.inference.similarity import rank_documents, scores_of_block
from modernbert.tasks.ranking.data import RankedTexts, RetrievalData
from modernbert.tasks.ranking.recipe import MiningSettings

Vectors = Callable[[Sequence[str], Side], Iterable[Sequence[np.ndarray]]]
"""The vectors of texts of a side, in blocks; see `text_vectors`."""


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

    Rows without any negatives are skipped; `scores` are added if there is a teacher. If documents
    are ranked by BM25, the retriever is not used.

    Args:
        retriever: Ranks the documents by its vectors, or by words.
        data: The queries with the documents that answer them.
        corpus: The documents to search, each once.
        settings: Which documents count as hard negatives.
        teacher: The reranker whose scores of the positive and the negatives are added, if any. They
            are its outputs before any sigmoid: the softmax of probabilities would be almost even,
            so that nothing could be learnt from it.
        on_progress: Called with the progress of embedding.

    Raises:
        InputError: Something is not a text, or there is no teacher whose scores should decide.
    """
    vectors = partial(text_vectors, retriever, on_progress=on_progress)
    rows = rows_of_examples(vectors, data, corpus, settings, teacher=teacher)
    return (row for row in rows if row is not None)


def rows_of_examples(
    vectors_of: Vectors,
    data: RetrievalData,
    corpus: Sequence[str],
    settings: MiningSettings,
    *,
    teacher: Reranker | None = None,
    first: int = 0,
) -> Iterator[dict[str, Any] | None]:
    """Make the row of each example, or None for one without an answer or without negatives.

    Args:
        vectors_of: Computes vectors: of queries, of the corpus, and of all answers, in this order.
        data: As in `mine`.
        corpus: As in `mine`.
        settings: As in `mine`.
        teacher: As in `mine`.
        first: The example to begin with.

    Raises:
        InputError: As `mine`.
    """
    if settings.limit_by == "teacher" and teacher is None:
        raise InputError("limit_by: got 'teacher', but there is no teacher; name one")
    queries = list(data.known)
    lowest: dict[str, float] = {}
    found: Iterable[tuple[np.ndarray, np.ndarray]]
    if settings.by == "bm25":
        words = Bm25.build(corpus, settings.language)
        found = rank_by_words([words], queries, settings.depth)
    else:
        vectors = [v for block in vectors_of(queries, "query") for v in block]
        found = rank_documents(vectors, vectors_of(corpus, "document"), settings.depth)
        lowest = _lowest_of_answers(vectors_of, data, dict(zip(queries, vectors, strict=True)))
    nearest = dict(zip(queries, found, strict=True))
    for each in islice(data.examples, first, None):
        if not each.relevant:
            yield None
            continue
        scores, rows = nearest[each.query]
        candidates = [
            (corpus[row], score)
            for row, score in zip(rows[settings.skip :], scores[settings.skip :], strict=True)
            if corpus[row] not in data.known[each.query]
        ]
        limit = lowest.get(each.query, 0.0)
        if settings.limit_by == "teacher" and candidates:
            assert teacher is not None
            candidates, limit = _judged(teacher, each.query, candidates, data.known[each.query])
        yield _row(each, _kept(candidates, limit, settings)[: settings.negatives], teacher)


def _row(
    example: RankedTexts, negatives: list[str], teacher: Reranker | None
) -> dict[str, Any] | None:
    """The row of an example, with a teacher's scores; None without negatives."""
    if not negatives:
        return None
    positive = example.documents[0]
    row: dict[str, Any] = {"query": example.query, "positive": positive, "negatives": negatives}
    if teacher is not None:
        pairs = [(example.query, text) for text in (positive, *negatives)]
        row["scores"] = teacher.scores(pairs, is_raw=True).tolist()
    return row


def _lowest_of_answers(
    vectors_of: Vectors, data: RetrievalData, vectors: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """The lowest score that the retriever gives to a known answer of each query."""
    pairs = [(query, text) for query, texts in data.known.items() for text in sorted(texts)]
    blocks = vectors_of([text for _, text in pairs], "document")
    lowest: dict[str, float] = {}
    for (query, _), answer in zip(pairs, (v for block in blocks for v in block), strict=True):
        score = float(scores_of_block([vectors[query]], answer, [len(answer)])[0, 0])
        lowest[query] = min(score, lowest.get(query, score))
    return lowest


def _judged(
    teacher: Reranker, query: str, candidates: Sequence[tuple[str, float]], answers: set[str]
) -> tuple[list[tuple[str, float]], float]:
    """The candidates with the teacher's scores, and its lowest score of a known answer."""
    texts = [text for text, _ in candidates]
    scores = teacher.scores([(query, text) for text in (*texts, *sorted(answers))]).tolist()
    return list(zip(texts, scores[: len(texts)], strict=True)), min(scores[len(texts) :])


def _kept(
    candidates: Sequence[tuple[str, float]], lowest: float, settings: MiningSettings
) -> list[str]:
    """Return the texts that are far enough below the answers' lowest score, in their order."""
    limit = lowest - settings.margin
    if settings.ratio is not None:
        limit = min(limit, lowest - (1 - settings.ratio) * abs(lowest))
    limited = settings.margin > 0 or settings.ratio is not None
    return [text for text, score in candidates if not limited or score <= limit]
