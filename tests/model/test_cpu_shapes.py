"""Batches are filled up to few sizes, and what stands in them stays as it is."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from modernbert.batch import PackedBatch
from modernbert.devices import filled, missing_rows


@given(st.integers(0, 10_000))
def test_sizes_are_multiples(num_rows: int) -> None:
    assert 0 <= missing_rows(num_rows) < 64
    assert (num_rows + missing_rows(num_rows)) % 64 == 0


@given(st.lists(st.integers(1, 90), min_size=1, max_size=12))
def test_what_is_filled_comes_last(lengths: list[int]) -> None:
    batch = PackedBatch.from_sequences([list(range(5, 5 + length)) for length in lengths])
    full = filled(batch)
    assert full.total_tokens % 64 == 0 and full.total_tokens - batch.total_tokens < 64
    assert torch.equal(full.token_ids[: batch.total_tokens], batch.token_ids)
    assert torch.equal(full.cu_seqlens[: len(batch.cu_seqlens)], batch.cu_seqlens)
