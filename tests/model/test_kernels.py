"""Attention over flat batches, held equal to dense attention over padded ones."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.model.examples import BOUNDARY_LENGTHS, largest_difference, ragged
from tests.reference.padded_encoder import dense_attention, dense_mask
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.model.kernels import attend
from modernbert.model.layout import Layout

HEADS, SIZE = 2, 8

lengths_of_a_batch = st.lists(
    st.sampled_from([0, *BOUNDARY_LENGTHS]) | st.integers(0, 200), min_size=1, max_size=5
).filter(any)
windows = st.none() | st.sampled_from([1, 2, 16, 31, 32, 33, 63, 64, 65, 100, 500])


class Case:
    """Random queries, keys and values, flat and padded, and a direction for the gradient."""

    def __init__(self, lengths: Sequence[int], dtype: torch.dtype) -> None:
        token_ids, self.present = ragged(lengths)
        self.batch = PackedBatch.from_padded(token_ids, self.present)
        generator = torch.Generator().manual_seed(0)
        shape = (4, self.batch.total_tokens, HEADS, SIZE)
        self.tensors = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def flat(self, window: int | None) -> tuple[Tensor, ...]:
        """The output, and the gradients of queries, keys and values."""
        inputs = [x.detach().requires_grad_() for x in self.tensors[:3]]
        layout = Layout(self.batch, window if window is not None else 64)
        output = attend(*inputs, layout, window=window)
        return output, *torch.autograd.grad(output, inputs, self.tensors[3])

    def dense(self, window: int | None) -> tuple[Tensor, ...]:
        """The same by the reference, in float64."""
        inputs = [x.detach().double().requires_grad_() for x in self.tensors[:3]]
        positions = self.present.long().cumsum(1) - 1
        mask = dense_mask(positions, self.present, window)
        padded = [self.batch.to_padded(x).transpose(1, 2) for x in inputs]
        output = dense_attention(*padded, mask).transpose(1, 2)[self.present]
        return output, *torch.autograd.grad(output, inputs, self.tensors[3].double())


def check(lengths: Sequence[int], window: int | None, dtype: torch.dtype, within: float) -> None:
    case = Case(lengths, dtype)
    names = ("output", "of queries", "of keys", "of values")
    for name, got, expected in zip(names, case.flat(window), case.dense(window), strict=True):
        assert got.dtype == dtype
        assert largest_difference(got, expected) <= within, name


@settings(max_examples=60, deadline=None)
@given(lengths=lengths_of_a_batch, window=windows)
@example(lengths=[1], window=None)
@example(lengths=[1], window=64)
@example(lengths=[0, 5, 0], window=64)
@example(lengths=[1] * 70, window=1)
@example(lengths=[64, 64, 64], window=64)
def test_equal_to_dense_attention(lengths: list[int], window: int | None) -> None:
    check(lengths, window, torch.float32, within=5e-5)


@settings(max_examples=20, deadline=None)
@given(lengths=lengths_of_a_batch, window=windows)
def test_equal_to_dense_attention_in_float64(lengths: list[int], window: int | None) -> None:
    check(lengths, window, torch.float64, within=1e-12)


@pytest.mark.parametrize("window", [None, 1, 64])
@pytest.mark.parametrize("length", BOUNDARY_LENGTHS)
def test_one_sequence_of_every_length_at_a_border(length: int, window: int | None) -> None:
    check([length], window, torch.float32, within=5e-5)


@pytest.mark.parametrize("window", [None, 64])
def test_half_precision(window: int | None) -> None:
    check([100, 1, 64, 30], window, torch.bfloat16, within=0.05)


@pytest.mark.parametrize("window", [None, 3])
def test_what_came_before_and_after_changes_nothing(window: int | None) -> None:
    """To the last bit, when the sequence stands at the same place."""
    case = Case([40, 50, 60], torch.float32)
    before = case.flat(window)
    case.tensors[:, :40] = 50 * torch.randn(4, 40, HEADS, SIZE)
    case.tensors[:, 90:] = 50 * torch.randn(4, 60, HEADS, SIZE)
    for old, new in zip(before, case.flat(window), strict=True):
        assert torch.equal(old[40:90], new[40:90])


def test_a_long_local_sequence_needs_no_square_of_its_length() -> None:
    """100,000 x 100,000 scores would be 40 GB."""
    length, window = 100_000, 64
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, length, 1, 8, generator=generator)
    batch = PackedBatch.from_sequences([torch.zeros(length, dtype=torch.int64)])
    output = attend(query, key, value, Layout(batch, window), window=window)
    for row in (0, 50_001, length - 1):
        seen = slice(max(0, row - window), row + window + 1)
        weights = (key[seen, 0] @ query[row, 0] / 8**0.5).softmax(0)
        assert largest_difference(output[row, 0], weights @ value[seen, 0]) < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("lengths", [[100, 0, 1, 64, 30], [129], [1] * 5])
@pytest.mark.parametrize("window", [None, 1, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_cuda(lengths: list[int], window: int | None, dtype: torch.dtype) -> None:
    case = Case(lengths, dtype)
    expected = case.dense(window)
    case.batch, case.tensors = case.batch.to("cuda"), case.tensors.cuda()
    for got, wanted in zip(case.flat(window), expected, strict=True):
        assert got.is_cuda and got.dtype == dtype
        assert largest_difference(got.cpu(), wanted) <= (5e-3 if dtype is torch.float32 else 0.05)
