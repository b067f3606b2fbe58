"""Fewer vectors for a document: the most similar ones become their mean (token pooling).

This is the hierarchical pooling of Clavie et al. (arXiv 2409.14683), with Ward's criterion.
"""

import numpy as np

_NUM_KEPT = 1
"""The first vectors, which stand for the whole text, stay as they are."""


def pooled(vectors: np.ndarray, factor: int) -> np.ndarray:
    """Join the vectors of a document until one is left for so many.

    >>> pooled(np.array([[9.0, 9], [1, 0], [0, 1], [1, 0], [0, 1]], np.float32), 2).tolist()
    [[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]]

    Args:
        vectors: (num_vectors, dim) float32.
        factor: How many vectors become one, on average; 1 leaves all.

    Returns:
        (fewer, dim) float32; vectors that were of length 1 are so again.
    """
    rest = vectors[_NUM_KEPT:]
    num = -(-len(rest) // factor)
    if num == len(rest):
        return vectors
    labels = _clusters(rest, num)
    means = np.zeros((num, vectors.shape[1]), np.float32)
    np.add.at(means, labels, rest)
    means /= np.bincount(labels)[:, None]
    if np.allclose(np.linalg.norm(rest, axis=1), 1, atol=1e-3):
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return np.concatenate([vectors[:_NUM_KEPT], means])


def _clusters(vectors: np.ndarray, num: int) -> np.ndarray:
    """Find the cluster of each vector, (num_vectors,) int64, numbered by their first vectors.

    The two clusters are joined whose joining adds the least to the squared distances from the
    means (Ward 1963), by the formula of Lance and Williams, until `num` are left.
    """
    squares = np.square(vectors).sum(1)
    costs = squares[:, None] + squares - 2 * vectors @ vectors.T
    np.fill_diagonal(costs, np.inf)
    sizes, labels = np.ones(len(vectors)), np.arange(len(vectors))
    for _ in range(len(vectors) - num):
        first, second = sorted(divmod(int(costs.argmin()), len(costs)))
        a, b = sizes[first], sizes[second]
        joined = (a + sizes) * costs[first] + (b + sizes) * costs[second]
        joined = (joined - sizes * costs[first, second]) / (a + b + sizes)
        costs[first] = costs[:, first] = joined
        costs[second] = costs[:, second] = costs[first, first] = np.inf
        sizes[first] += b
        labels[labels == second] = first
    numbers: np.ndarray = np.unique(labels, return_inverse=True)[1]
    return numbers
