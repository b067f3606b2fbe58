"""What the kernels derive from a batch's borders."""

import pytest
from tests.model.examples import ragged_batch

from modernbert.model.layout import Layout, Run


def test_neighbours_of_one_length_form_a_run() -> None:
    layout = Layout(ragged_batch([3, 3, 0, 3, 5, 3, 0]), window=2)
    assert layout.runs == [Run(0, 3, 3), Run(9, 1, 5), Run(14, 1, 3)]


@pytest.mark.parametrize("window", [1, 32, 40, 63, 64, 1 << 20])
def test_the_mask_says_who_sees_whom(window: int) -> None:
    batch = ragged_batch([50, 1, 45])
    layout = Layout(batch, window)
    size = layout.block
    assert size >= min(window, 50)
    assert layout.local_mask.shape == (layout.num_blocks, size, 3 * size)
    for row in range(batch.total_tokens):
        block, place = divmod(row, size)
        first = (block - 1) * size
        seen = [first + int(i) for i in layout.local_mask[block, place].nonzero().flatten()]
        sequence = batch.sequence_ids[row]
        expected = [
            other
            for other in range(batch.total_tokens)
            if batch.sequence_ids[other] == sequence and abs(other - row) <= window
        ]
        assert seen == expected


def test_no_row_is_without_a_key() -> None:
    """Also those past the end: a softmax over nothing would be NaN."""
    layout = Layout(ragged_batch([1]), window=64)
    assert layout.local_mask.any(dim=-1).all()
