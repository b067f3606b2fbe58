"""MaxSim: for each vector of a query the best product with one of a document's, summed.

Documents stay ragged: the products of a block are one matrix, of whose rows each document has a
run, and the best of each run are taken at once.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from modernbert.errors import InputError

_BLOCK_VECTORS = 16_384
_QUERY_VECTORS = 1_024


def max_sim(queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> np.ndarray:
    """The scores of all pairs: (num_queries, num_documents) float32.

    queries, documents: (num_vectors, dim) float32 each, 1 vector or more.

    >>> one, two = np.eye(2, dtype=np.float32)
    >>> max_sim([np.stack([one, two])], [one[None], np.stack([two, one])]).tolist()
    [[1.0, 2.0]]

    Raises:
        InputError: one without vectors, or vectors of different sizes.
    """
    check_vectors(queries, "queries")
    check_vectors(documents, "documents")
    scores = np.zeros((len(queries), len(documents)), np.float32)
    lengths = [len(each) for each in documents]
    for rows in runs(lengths, _BLOCK_VECTORS):
        vectors = np.concatenate(documents[rows])
        for chosen in runs([len(each) for each in queries], _QUERY_VECTORS):
            scores[chosen, rows] = scores_of_block(queries[chosen], vectors, lengths[rows])
    return scores


def scores_of_block(
    queries: Sequence[np.ndarray], vectors: np.ndarray, lengths: Sequence[int] | np.ndarray
) -> np.ndarray:
    """(num_queries, num_documents) float32, all products at once.

    vectors: (total_vectors, dim), the documents one after the other.
    lengths: how many of them each document has.
    """
    products: np.ndarray = vectors @ np.concatenate(queries).T  # (total_vectors, those of queries)
    return reduced(products, lengths, [len(query) for query in queries])


def reduced(
    products: np.ndarray, lengths: Sequence[int] | np.ndarray, query_lengths: Sequence[int]
) -> np.ndarray:
    """(num_queries, num_documents) float32 from the products of all their vectors.

    products: (total_vectors, vectors of all queries).
    lengths, query_lengths: how many vectors each document and each query has.
    """
    scores = products
    if len(scores) != len(lengths):
        scores = np.maximum.reduceat(scores, _starts(lengths), axis=0)
    if scores.shape[1] != len(query_lengths):
        scores = np.add.reduceat(scores, _starts(query_lengths), axis=1)
    return scores.T


def runs(lengths: Sequence[int] | np.ndarray, most: int) -> Iterator[slice]:
    """Neighbours whose lengths together are at most `most`, but one in any case.

    >>> list(runs([2, 3, 9, 1], 5))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    start = total = 0
    for index, length in enumerate(lengths):
        if index > start and total + length > most:
            yield slice(start, index)
            start, total = index, 0
        total += int(length)
    if start < len(lengths):
        yield slice(start, len(lengths))


def check_vectors(texts: Sequence[np.ndarray], name: str) -> None:
    """Refuse texts without vectors, and vectors that are none or of different sizes.

    Raises:
        InputError: naming the text.
    """
    for index, vectors in enumerate(texts):
        if np.ndim(vectors) != 2 or not len(vectors) or vectors.shape[1] != texts[0].shape[1]:
            width = texts[0].shape[1] if np.ndim(texts[0]) == 2 else "dim"
            raise InputError(
                f"{name}: got {np.shape(vectors)} at {index}, expected (1 or more, {width})"
            )


def _starts(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.intp)
