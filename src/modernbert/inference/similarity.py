"""How alike vectors are."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from modernbert.errors import InputError

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Vectors = np.ndarray | Tensor


def similarity(first: Vectors, second: Vectors, kind: Similarity = "cosine") -> Tensor:
    """How alike each vector of one set is to each of another; the larger, the more alike.

    first: (n, dim) or (dim,).
    second: (m, dim) or (dim,).
    kind: the cosine or the dot product, or the negative distance.
    Returns (n, m) float32.

    >>> similarity(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 3.0]])).tolist()
    [[1.0, 0.0]]

    Raises:
        InputError: vectors of different dimensions.
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
