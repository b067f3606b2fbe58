"""How well a retriever ranks documents for queries, without any training."""

from modernbert.data.judged_texts import JudgedTexts
from modernbert.inference.batching import Observer
from modernbert.inference.ranking import rank_documents
from modernbert.inference.retriever import Retriever, text_vectors
from modernbert.metrics.ranking import ranking_scores

METRICS = ("ndcg@10", "recall@10", "recall@100", "mrr@10", "map@100")
_DEPTH = 100


def rank_judged(
    retriever: Retriever,
    judged: JudgedTexts,
    *,
    top_k: int = _DEPTH,
    on_progress: Observer | None = None,
) -> dict[str, dict[str, float]]:
    """For each query the best documents with their scores, by either kind of retriever.

    A document that is the query itself, by its id, is left out, as BEIR does.

    on_progress: is told how far the documents are embedded.
    """
    queries = text_vectors(retriever, judged.queries.values(), "query")
    documents = text_vectors(
        retriever,
        judged.documents.values(),
        "document",
        on_progress=on_progress,
    )
    found = rank_documents([text for block in queries for text in block], documents, top_k + 1)
    names = list(judged.documents)
    rankings = {}
    for query, (scores, rows) in zip(judged.queries, found, strict=True):
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        kept = [(names[row], score) for row, score in pairs if names[row] != query]
        rankings[query] = dict(kept[:top_k])
    return rankings


def retrieval_scores(
    retriever: Retriever,
    judged: JudgedTexts,
    metrics: tuple[str, ...] = METRICS,
    *,
    on_progress: Observer | None = None,
) -> dict[str, float]:
    """The mean of each metric over all judged queries.

    Raises:
        InputError: an unknown metric, or no judgements.
    """
    depth = max([_DEPTH, *(int(m.partition("@")[2]) for m in metrics if m[-1:].isdigit())])
    found = rank_judged(retriever, judged, top_k=depth, on_progress=on_progress)
    rankings = {query: list(documents) for query, documents in found.items()}
    return ranking_scores(rankings, judged.judgements, metrics)
