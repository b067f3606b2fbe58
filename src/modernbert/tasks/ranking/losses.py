"""The losses of retrieval and reranking, as functions of scores.

All except `flops` return a SUM over queries, as a trainer's task does. The scores are float32.
"""

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


IN_BATCH: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"in-batch": in_batch}
"""Losses of the scores of a step's queries and all its documents, by the names in recipes."""

LABELLED: Mapping[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {"binary": binary}
"""Losses of scores and of which documents answer, for each query."""

DISTILLATION: Mapping[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "margin": margin_mse,
    "kl": kl_divergence,
}
"""Losses of a model's scores and a teacher's, for each query, by the names that recipes have."""
