"""The losses of retrieval and reranking, as functions of scores.

All except `flops` return a SUM over queries, as a trainer's task does. The scores are float32.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional


def max_sim(
    queries: Tensor, lengths: Tensor, documents: Tensor, document_lengths: Tensor
) -> Tensor:
    """Compute how well each document answers each query.

    With one vector per text this is the dot product.

    Args:
        queries: (total_vectors, dim), the vectors of all queries one after the other.
        lengths: (num_queries,) int64, the number of vectors of each, at least 1.
        documents: (total_document_vectors, dim), the vectors of all documents.
        document_lengths: (num_documents,) int64, the number of vectors of each, at least 1.

    Returns:
        (num_queries, num_documents).
    """
    products = documents @ queries.T  # (vectors of documents, vectors of queries)
    if len(products) != len(document_lengths):
        products = torch.segment_reduce(products, "max", lengths=document_lengths, axis=0)
    scores = products.T  # (vectors of queries, num_documents)
    if len(scores) == len(lengths):
        return scores
    rows = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    return scores.new_zeros(len(lengths), scores.shape[1]).index_add(0, rows, scores)


def in_batch(scores: Tensor, answers: Tensor, left_out: Tensor) -> Tensor:
    """Compute the cross entropy of each query's answer among all documents of the batch.

    Args:
        scores: (num_queries, num_documents), scaled.
        answers: (num_queries,) int64, the document that answers each query.
        left_out: (num_queries, num_documents) bool, other documents that answer it too.
    """
    scores = scores.masked_fill(left_out, -torch.inf)
    return functional.cross_entropy(scores, answers, reduction="sum")


def flops(weights: Tensor) -> Tensor:
    """Estimate the products of a search with inverted lists, as a smooth function.

    It is the sum over the vocabulary of the squared mean weight (FLOPS, arXiv 2004.05665), which is
    small if each text has few tokens and no token is in all texts.

    Args:
        weights: (num_texts, vocab_size), not negative.

    Returns:
        A scalar, which is not a sum over texts.
    """
    return weights.mean(0).square().sum()


def margin_mse(scores: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Compute the squared error of the first document's margin over each other document.

    For each query it is the mean over the other documents (arXiv 2010.02666).

    Args:
        scores: (num_documents,) for each query.
        teacher: (num_documents,) for each query.
    """
    losses = [
        functional.mse_loss(own[0] - own[1:], other[0] - other[1:])
        for own, other in zip(scores, teacher, strict=True)
    ]
    return torch.stack(losses).sum()


def kl_divergence(scores: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Compute how far the probabilities of a query's documents are from the teacher's.

    Args:
        scores: (num_documents,) for each query.
        teacher: (num_documents,) for each query.
    """
    losses = [
        functional.kl_div(own.log_softmax(0), other.softmax(0), reduction="sum")
        for own, other in zip(scores, teacher, strict=True)
    ]
    return torch.stack(losses).sum()


def binary(scores: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Compute the binary cross entropy, averaged over the documents of a query.

    Args:
        scores: (num_documents,) for each query.
        labels: (num_documents,) for each query, 1 for documents that answer it.
    """
    losses = [
        functional.binary_cross_entropy_with_logits(own, wanted)
        for own, wanted in zip(scores, labels, strict=True)
    ]
    return torch.stack(losses).sum()


def squared_error(scores: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Compute the squared error of each score, averaged over the documents of a query.

    Args:
        scores: (num_documents,) for each query.
        teacher: (num_documents,) for each query.
    """
    losses = [functional.mse_loss(own, other) for own, other in zip(scores, teacher, strict=True)]
    return torch.stack(losses).sum()


def list_net(scores: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Compute the cross entropy of a query's documents with the softmax of what is wanted.

    This is ListNet with the probabilities of the first place (Cao et al. 2007). Its gradients are
    those of `kl_divergence`.

    Args:
        scores: (num_documents,) for each query.
        wanted: (num_documents,) for each query, a teacher's scores or grades of relevance.
    """
    losses = [
        functional.cross_entropy(own, other.softmax(0))
        for own, other in zip(scores, wanted, strict=True)
    ]
    return torch.stack(losses).sum()


def lambda_loss(scores: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Compute NDCG-Loss2++ of the LambdaLoss framework, a bound of how far nDCG is below 1.

    Each pair of documents in the wrong order costs as much as swapping them would change nDCG
    (Wang et al. 2018, with mu = 10 and sigma = 1). For each query it is the mean over its pairs.

    Args:
        scores: (num_documents,) for each query.
        wanted: (num_documents,) for each query, a teacher's scores or grades of relevance; those
            below 0 gain nothing.
    """
    return torch.stack([_lambda_loss(*each) for each in zip(scores, wanted, strict=True)]).sum()


def _lambda_loss(scores: Tensor, wanted: Tensor) -> Tensor:
    order = scores.argsort(descending=True)
    scores, wanted = scores[order], wanted[order]
    places = torch.arange(1, len(scores) + 1, device=scores.device)
    discounts = 1 / torch.log2(1.0 + places)
    gains = 2 ** wanted.clamp(min=0) - 1
    gains = gains / (gains.sort(descending=True).values @ discounts).clamp(min=1e-10)
    distances = (places[:, None] - places).abs().clamp(min=1)
    weights = 10 * (1 / torch.log2(1.0 + distances) - 1 / torch.log2(2.0 + distances))
    weights = weights + (discounts[:, None] - discounts).abs()
    weights = weights * (gains[:, None] - gains).abs()
    pairs = wanted[:, None] > wanted  # the first should be ahead of the second
    losses = -weights * functional.logsigmoid(scores[:, None] - scores) / math.log(2)
    return losses[pairs].sum() / pairs.sum().clamp(min=1)


def too_near(
    similarities: Tensor, answers: Tensor, margin: float | None, ratio: float | None
) -> Tensor:
    """Find documents of a step that are probably answers too, as they are as near as the answer.

    A document is too near if it is nearer than the answer's similarity less the margin, or less the
    part of the similarity that the ratio leaves (NV-Retriever, arXiv 2407.15831).

    >>> similarities = torch.tensor([[0.8, 0.79, 0.5]])
    >>> too_near(similarities, torch.tensor([0]), None, 0.95)
    tensor([[False,  True, False]])

    Args:
        similarities: (num_queries, num_documents).
        answers: (num_queries,) int64, the document that answers each query.
        margin: The absolute margin, if there is one.
        ratio: The highest similarity relative to the answer's, if there is one.

    Returns:
        (num_queries, num_documents) bool, never the answers themselves.
    """
    own = similarities.gather(1, answers[:, None])
    found = torch.zeros_like(similarities, dtype=torch.bool)
    if margin is not None:
        found |= similarities > own - margin
    if ratio is not None:
        found |= similarities > own - (1 - ratio) * own.abs()
    return found.scatter(1, answers[:, None], value=False)


IN_BATCH: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"in-batch": in_batch}
"""Losses of the scores of a step's queries and all its documents, by the names in recipes."""

LABELLED: Mapping[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {"binary": binary}
"""Losses of scores and of which documents answer, for each query."""

DISTILLATION: Mapping[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "margin": margin_mse,
    "kl": kl_divergence,
    "mse": squared_error,
}
"""Losses of a model's scores and a teacher's, for each query, by the names that recipes have."""

LISTWISE: Mapping[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "listnet": list_net,
    "lambda": lambda_loss,
}
"""Losses of a model's scores and of a teacher's scores, or else of grades, for each query."""
