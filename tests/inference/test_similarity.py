"""How alike vectors are, against the formulas written out."""

import numpy as np
import pytest
import torch

from modernbert.errors import InputError
from modernbert.inference.similarity import Similarity, similarity

A = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
B = np.array([[4.0, 3.0], [-1.0, 0.0]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cosine", [[0.96, -0.6], [0.6, 0.0], [0.0, 0.0]]),
        ("dot", [[24.0, -3.0], [6.0, 0.0], [0.0, 0.0]]),
        ("euclidean", [[-(2**0.5), -(32**0.5)], [-(17**0.5), -(5**0.5)], [-5.0, -1.0]]),
        ("manhattan", [[-2.0, -8.0], [-5.0, -3.0], [-7.0, -1.0]]),
    ],
)
def test_each_kind(kind: Similarity, expected: list[list[float]]) -> None:
    torch.testing.assert_close(similarity(A, torch.tensor(B), kind), torch.tensor(expected))


def test_a_single_vector_is_a_row() -> None:
    assert similarity(A[0], B[0], "dot").tolist() == [[24.0]]


def test_different_dimensions() -> None:
    with pytest.raises(InputError, match=r"^second: got vectors of 1 numbers, expected 2"):
        similarity(A, B[:, :1])
