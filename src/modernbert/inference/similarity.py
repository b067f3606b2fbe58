"""How alike vectors are, MaxSim, the documents most like a query, and rankings fused into one.

In MaxSim documents stay ragged: the products of a block are one matrix, of whose rows each document
has a run, and the best of each run are taken at once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from modernbert.errors import InputError, SettingsError

FusionMethod = Literal["rrf", "scores"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Vectors = np.ndarray | Tensor


def similarity(first: Vectors, second: Vectors, kind: Similarity = "cosine") -> Tensor:
    """Return how alike each vector of one set is to each of another; the larger, the more alike.

    >>> similarity(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 3.0]])).tolist()
    [[1.0, 0.0]]

    Args:
        first: (n, dim) or (dim,).
        second: (m, dim) or (dim,).
        kind: The cosine or the dot product, or the negative distance.

    Returns:
        (n, m) float32.

    Raises:
        InputError: Vectors of different dimensions.
    """
    a, b = _matrix(first), _matrix(second)
    if a.shape[1] != b.shape[1]:
        raise InputError(f"second: got vectors of {b.shape[1]} numbers, expected {a.shape[1]}")
    if kind == "cosine":
        a, b = functional.normalize(a), functional.normalize(b)
    if kind in ("cosine", "dot"):
        return torch.mm(a, b.T)
    distances: Tensor = torch.cdist(a, b, p=2.0 if kind == "euclidean" else 1.0)
    return distances.neg()


def _matrix(vectors: Vectors) -> Tensor:
    """(n, dim) float32."""
    values = torch.as_tensor(vectors).float()
    return values[None] if values.ndim == 1 else values


_BLOCK_VECTORS = 16_384
_QUERY_VECTORS = 1_024


def max_sim(queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> np.ndarray:
    """Return the scores of all pairs: (num_queries, num_documents) float32.

    >>> one, two = np.eye(2, dtype=np.float32)
    >>> max_sim([np.stack([one, two])], [one[None], np.stack([two, one])]).tolist()
    [[1.0, 2.0]]

    Args:
        queries: (num_vectors, dim) float32 each, 1 vector or more.
        documents: As `queries`.

    Raises:
        InputError: One without vectors, or vectors of different sizes.
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
    """Compute MaxSim with all products at once: (num_queries, num_documents) float32.

    Args:
        queries: (num_vectors, dim) for each query.
        vectors: (total_vectors, dim), the documents one after the other.
        lengths: How many of them each document has.
    """
    products: np.ndarray = vectors @ np.concatenate(queries).T  # (total_vectors, those of queries)
    return reduced(products, lengths, [len(query) for query in queries])


def reduced(
    products: np.ndarray, lengths: Sequence[int] | np.ndarray, query_lengths: Sequence[int]
) -> np.ndarray:
    """Reduce the products of all vectors to scores: (num_queries, num_documents) float32.

    Args:
        products: (total_vectors, vectors of all queries).
        lengths: How many vectors each document and each query has.
        query_lengths: As `lengths`.
    """
    scores = products
    if len(scores) != len(lengths):
        scores = np.maximum.reduceat(scores, _starts(lengths), axis=0)
    if scores.shape[1] != len(query_lengths):
        scores = np.add.reduceat(scores, _starts(query_lengths), axis=1)
    return scores.T


def runs(lengths: Sequence[int] | np.ndarray, most: int) -> Iterator[slice]:
    """Yield neighbours whose lengths together are at most `most`, but one in any case.

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
        InputError: Naming the text.
    """
    for index, vectors in enumerate(texts):
        if np.ndim(vectors) != 2 or not len(vectors) or vectors.shape[1] != texts[0].shape[1]:
            width = texts[0].shape[1] if np.ndim(texts[0]) == 2 else "dim"
            raise InputError(
                f"{name}: got {np.shape(vectors)} at {index}, expected (1 or more, {width})"
            )


def _starts(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.intp)


def rank_documents(
    queries: Sequence[np.ndarray], blocks: Iterable[Sequence[np.ndarray]], top_k: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find the best documents of each query by MaxSim: scores and numbers, best first.

    With one vector a text that is the dot product. Only one block is held at a time.

    Args:
        queries: (num_vectors, dim) float32 each.
        blocks: Documents in their order, in lists, each document as the queries.
        top_k: The number of results to return, best first.
    """
    best = {
        (chosen.start, chosen.stop): Best(chosen.stop - chosen.start, top_k)
        for chosen in runs([len(query) for query in queries], _QUERY_VECTORS)
    }
    first_row = 0
    for block in blocks:
        lengths = [len(document) for document in block]
        for rows in runs(lengths, _BLOCK_VECTORS):
            vectors = np.concatenate(block[rows])
            for (start, stop), found in best.items():
                scores = scores_of_block(queries[start:stop], vectors, lengths[rows])
                found.add(np.ascontiguousarray(scores), first_row + rows.start)
        first_row += len(block)
    return [each for found in best.values() for each in found.ordered()]


class Best:
    """The best rows for each query so far, while blocks of rows are scored one after another.

    Args:
        num: How many are kept.
    """

    def __init__(self, num_queries: int, num: int) -> None:
        self.num = num
        self._scores = torch.empty(num_queries, 0)
        self._rows = torch.empty(num_queries, 0, dtype=torch.int64)

    def add(self, scores: np.ndarray, first_row: int) -> None:
        """Take the scores (num_queries, rows) float32 of rows from `first_row` on."""
        found = torch.arange(first_row, first_row + scores.shape[1]).expand(len(scores), -1)
        joined = torch.cat([self._scores, torch.from_numpy(scores)], 1)
        rows = torch.cat([self._rows, found], 1)
        self._scores, places = joined.topk(min(self.num, joined.shape[1]), dim=1)
        self._rows = rows.gather(1, places)

    @property
    def rows(self) -> np.ndarray:
        """(num_queries, num) int64, in any order."""
        return self._rows.numpy()

    def ordered(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield scores and rows for each query, best first; among equals the first row."""
        for scores, rows in zip(self._scores.numpy(), self._rows.numpy(), strict=True):
            order = np.lexsort((rows, -scores))
            yield scores[order], rows[order]


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How two rankings of the same query become one.

    Attributes:
        method: By reciprocal ranks (Cormack et al. 2009), or by scores, those of each ranking from
            0 for its last document to 1 for its first.
        weight: The share of the vectors, from 0 to 1; the words have the rest.
        depth: How many documents of each ranking take part.
        constant: What is added to each rank; the larger, the less the first ranks stand out.

    Raises:
        SettingsError: A number out of its range.
    """

    method: FusionMethod = "rrf"
    weight: float = 0.5
    depth: int = 100
    constant: float = 60.0

    def __post_init__(self) -> None:
        if self.method not in ("rrf", "scores"):
            raise SettingsError(f"method: got {self.method!r}, expected rrf or scores")
        if not 0 <= self.weight <= 1:
            raise SettingsError(f"weight: got {self.weight}, expected a number from 0 to 1")
        if self.depth < 1 or self.constant < 0:
            raise SettingsError("depth and constant: expected 1 or more, and 0 or more")

    def __call__(
        self, by_vectors: Sequence[tuple[int, float]], by_words: Sequence[tuple[int, float]]
    ) -> list[tuple[int, float]]:
        """Join the documents of two rankings, given as rows and scores, best first.

        >>> Fusion()([(7, 0.9), (3, 0.8)], [(3, 12.0)])[0][0]
        3
        """
        sums: dict[int, float] = {}
        for weight, ranking in ((self.weight, by_vectors), (1 - self.weight, by_words)):
            for row, part in self._parts(ranking).items():
                sums[row] = sums.get(row, 0.0) + 2 * weight * part
        return sorted(sums.items(), key=lambda each: (-each[1], each[0]))

    def _parts(self, ranking: Sequence[tuple[int, float]]) -> Mapping[int, float]:
        """What each document of a ranking gets."""
        if self.method == "rrf":
            return {row: 1 / (self.constant + rank) for rank, (row, _) in enumerate(ranking, 1)}
        scores = [score for _, score in ranking]
        low, high = min(scores, default=0.0), max(scores, default=0.0)
        span = high - low
        return {row: (score - low) / span if span else 1.0 for row, score in ranking}
