"""One vector a sequence."""

import pytest
import torch

from modernbert.batch import PackedBatch
from modernbert.model.pooling import pool

HIDDEN = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 60.0], [7.0, 8.0]])


def test_literal_values() -> None:
    batch = PackedBatch.from_sequences([[1, 5, 2], [1]])
    assert pool(HIDDEN, batch, "cls").tolist() == [[1.0, 10.0], [7.0, 8.0]]
    assert pool(HIDDEN, batch, "mean").tolist() == [[2.0, 30.0], [7.0, 8.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_type_stays(dtype: torch.dtype) -> None:
    batch = PackedBatch.from_sequences([[1, 5, 2], [1]])
    assert pool(HIDDEN.to(dtype), batch, "mean").dtype == dtype


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_row_of_padding_alone_gets_zeros(pooling: str) -> None:
    """Wherever it stands, also as the last, where no token follows."""
    present = torch.tensor([[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]])
    batch = PackedBatch.from_padded(torch.ones(5, 3, dtype=torch.int64), present)
    pooled = pool(HIDDEN, batch, pooling)  # type: ignore[arg-type]
    assert pooled[[0, 2, 4]].count_nonzero() == 0
    assert pooled[3].tolist() == [7.0, 8.0]


def test_the_mean_of_many_is_exact_in_bfloat16_too() -> None:
    batch = PackedBatch.from_sequences([[5] * 3000])
    hidden = torch.full((3000, 2), 1.5, dtype=torch.bfloat16)
    assert pool(hidden, batch, "mean").tolist() == [[1.5, 1.5]]
