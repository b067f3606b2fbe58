"""Copies ahead of their use: in order, one at a time, and on the device."""

import pytest
import torch

from modernbert.devices import copied_ahead


def test_items_are_copied_in_their_order_when_they_are_asked_for() -> None:
    seen: list[int] = []

    def copy(number: int) -> int:
        seen.append(number)
        return -number

    copies = copied_ahead(iter([1, 2, 3]), copy, "cpu")
    assert next(copies) == -1 and seen == [1]
    assert list(copies) == [-2, -3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_every_copy_has_arrived() -> None:
    rows = [torch.full((1 << 20,), float(number)) for number in range(20)]
    copies = copied_ahead(rows, lambda row: row.pin_memory().to("cuda", non_blocking=True), "cuda")
    for number, row in enumerate(copies):
        work = torch.randn(1 << 11, 1 << 11, device="cuda")
        assert (row == number).all()
        del row, work
