"""The C kernels, held equal to the reference, in each variant that the machine can run."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.model.conftest import kernels
from tests.model.examples import BOUNDARY_LENGTHS, largest_difference, ragged
from tests.reference.padded_encoder import dense_attention, dense_mask, gelu, rotated
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.inference.similarity import max_sim
from modernbert.model.layout import Layout
from modernbert.model.native import functions as native
from modernbert.model.rope import rotary_table

HEADS, THETA = 2, 10_000.0

needs_kernels = pytest.mark.usefixtures("variant")
needs_bfloat16 = pytest.mark.usefixtures("bfloat16_variant")

lengths_of_a_batch = st.lists(
    st.sampled_from([0, *BOUNDARY_LENGTHS]) | st.integers(0, 300), min_size=1, max_size=5
).filter(any)
windows = st.none() | st.sampled_from([1, 2, 15, 16, 31, 32, 33, 63, 64, 65, 100, 500])


class Case:
    """Random queries, keys and values in one tensor, and a direction for the gradient."""

    def __init__(self, lengths: Sequence[int], dtype: torch.dtype) -> None:
        token_ids, self.present = ragged(lengths)
        self.batch = PackedBatch.from_padded(token_ids, self.present)
        generator = torch.Generator().manual_seed(0)
        width = HEADS * native.HEAD_SIZE
        self.qkv = torch.randn(self.batch.total_tokens, 3 * width, generator=generator).to(dtype)
        self.direction = torch.randn(self.batch.total_tokens, width, generator=generator).to(dtype)

    def in_c(self, window: int | None, *, is_causal: bool = False) -> tuple[Tensor, Tensor]:
        """The output and the gradient of `qkv`."""
        qkv = self.qkv.detach().requires_grad_()
        assert native.supports_attention(qkv, HEADS)
        table = rotary_table(self.batch.position_ids, native.HEAD_SIZE, THETA)
        layout = Layout(self.batch, window or 64, is_causal=is_causal)
        output = native.attend(qkv, table, layout, num_heads=HEADS, window=window)
        return output, *torch.autograd.grad(output, qkv, self.direction)

    def dense(self, window: int | None, *, is_causal: bool = False) -> tuple[Tensor, Tensor]:
        """The same by the reference, in float64."""
        qkv = self.qkv.detach().double().requires_grad_()
        positions = self.present.long().cumsum(1) - 1
        mask = dense_mask(positions, self.present, window, is_causal=is_causal)
        padded = self.batch.to_padded(qkv).unflatten(-1, (3, HEADS, -1))
        query, key, value = padded.permute(2, 0, 3, 1, 4)  # (rows, heads, columns, head_size)
        query, key = rotated(query, positions, THETA), rotated(key, positions, THETA)
        output = dense_attention(query, key, value, mask).transpose(1, 2).flatten(2)
        output = output[self.present]
        return output, *torch.autograd.grad(output, qkv, self.direction.double())


def check(
    lengths: Sequence[int],
    window: int | None,
    dtype: torch.dtype,
    within: float,
    *,
    is_causal: bool = False,
) -> None:
    case = Case(lengths, dtype)
    found = case.in_c(window, is_causal=is_causal)
    for got, expected in zip(found, case.dense(window, is_causal=is_causal), strict=True):
        assert got.dtype == dtype
        assert largest_difference(got, expected) <= within


@needs_kernels
@settings(max_examples=60, deadline=None)
@given(lengths=lengths_of_a_batch, window=windows, is_causal=st.booleans())
@example(lengths=[1], window=None, is_causal=False)
@example(lengths=[0, 5, 0], window=64, is_causal=True)
@example(lengths=[1] * 70, window=1, is_causal=False)
@example(lengths=[64, 64, 64], window=64, is_causal=False)
@example(lengths=[64, 64, 64], window=64, is_causal=True)
@example(lengths=[1300, 3], window=None, is_causal=True)
def test_attention(lengths: list[int], window: int | None, is_causal: bool) -> None:
    check(lengths, window, torch.float32, within=5e-5, is_causal=is_causal)


@needs_kernels
@pytest.mark.parametrize("window", [None, 1, 64])
@pytest.mark.parametrize("length", BOUNDARY_LENGTHS)
def test_attention_over_one_sequence(length: int, window: int | None) -> None:
    check([length], window, torch.float32, within=5e-5)


@needs_bfloat16
@settings(max_examples=30, deadline=None)
@given(lengths=lengths_of_a_batch, window=windows, is_causal=st.booleans())
def test_attention_in_bfloat16(lengths: list[int], window: int | None, is_causal: bool) -> None:
    check(lengths, window, torch.bfloat16, within=0.1, is_causal=is_causal)


@needs_kernels
@pytest.mark.parametrize("window", [None, 3])
def test_what_came_before_and_after_changes_nothing(window: int | None) -> None:
    """To the last bit, when the sequence stands at the same place."""
    case = Case([40, 50, 60], torch.float32)
    before = case.in_c(window)
    case.qkv[:40] = 50 * torch.randn(40, case.qkv.shape[1])
    case.qkv[90:] = 50 * torch.randn(60, case.qkv.shape[1])
    for old, new in zip(before, case.in_c(window), strict=True):
        assert torch.equal(old[40:90], new[40:90])


@needs_kernels
def test_large_scores_stay_finite() -> None:
    """Softmax must subtract its maximum: e^1000 is no float32."""
    case = Case([100, 3], torch.float32)
    case.qkv *= 30
    for window in (None, 8):
        output, gradient = case.in_c(window)
        assert output.isfinite().all() and gradient.isfinite().all()
        assert largest_difference(output, case.dense(window)[0]) < 1e-2


@needs_kernels
@pytest.mark.parametrize("threads", [1, 2])
def test_attention_on_several_threads(threads: int) -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check([200, 0, 1, 150], 16, torch.float32, within=5e-5)
        check([200, 0, 1, 150], None, torch.float32, within=5e-5)
    finally:
        torch.set_num_threads(usual)


@needs_kernels
@pytest.mark.parametrize("rows", [1, 2, 31])
@pytest.mark.parametrize("width", [16, 48, 384])
def test_geglu(rows: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    halves = 3 * torch.randn(rows, 2 * width, generator=generator)
    direction = torch.randn(rows, width, generator=generator)
    halves[0, :4] = torch.tensor([0.0, -30.0, 30.0, -1e-8])
    values = halves.clone().requires_grad_()
    assert native.supports_geglu(values)
    output = native.geglu(values)
    (gradient,) = torch.autograd.grad(output, values, direction)

    exact = halves.double().requires_grad_()
    first, second = exact.chunk(2, dim=-1)
    expected = gelu(first) * second
    assert largest_difference(output, expected) < 1e-5
    (expected_gradient,) = torch.autograd.grad(expected, exact, direction.double())
    assert largest_difference(gradient, expected_gradient) < 1e-5


@needs_bfloat16
def test_geglu_in_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    halves = torch.randn(7, 96, generator=generator).bfloat16()
    first, second = halves.double().chunk(2, dim=-1)
    output = native.geglu(halves)
    assert output.dtype is torch.bfloat16
    assert largest_difference(output, gelu(first) * second) < 0.05


@needs_kernels
def test_other_sizes_and_types_are_left_to_torch() -> None:
    assert not native.supports_attention(torch.zeros(3, 3 * 2 * 32), 2)
    assert not native.supports_attention(torch.zeros(3, 3 * 2 * 64, dtype=torch.float64), 2)
    assert not native.supports_geglu(torch.zeros(3, 2 * 24))
    assert not native.supports_geglu(torch.zeros(3, 2 * 32, dtype=torch.float16))


@needs_kernels
def test_borders_that_are_no_neighbours_in_memory() -> None:
    """Their copy must live until the kernels, also those of the backward, have read it."""
    case = Case([40, 3, 60], torch.float32)
    expected = case.in_c(8)
    spread = torch.zeros(2 * len(case.batch.cu_seqlens), dtype=torch.int32)[::2]
    case.batch = replace(case.batch, cu_seqlens=spread.copy_(case.batch.cu_seqlens))
    assert not case.batch.cu_seqlens.is_contiguous()
    assert all(map(torch.equal, case.in_c(8), expected))


@needs_kernels
@pytest.mark.parametrize("width", [1, 7, 4096, 4097, 20_000])
def test_weighted_rows_are_a_product(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    rows = torch.randint(-128, 128, (9, width), generator=generator, dtype=torch.int8)
    chosen, weights = torch.tensor([8, 0, 3, 3]), torch.randn(4, generator=generator)
    expected = weights @ rows[chosen].float()
    ours = native.weighted_rows(rows, chosen, weights)
    with kernels("torch"):
        by_torch = native.weighted_rows(rows, chosen, weights)
    for found in (ours, by_torch):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@needs_kernels
@pytest.mark.parametrize(("dim", "num_query_vectors"), [(1, 1), (64, 11), (100, 16), (128, 35)])
def test_max_sim_of_chosen_documents(dim: int, num_query_vectors: int) -> None:
    draw = np.random.default_rng(dim)
    lengths = draw.integers(1, 12, 150)
    borders = np.concatenate([[0], lengths.cumsum()])
    codes = draw.integers(-127, 128, (borders[-1], dim), dtype=np.int8)
    scales = draw.random((len(codes), 1), np.float32)
    query = draw.standard_normal((num_query_vectors, dim), np.float32)
    chosen = draw.permutation(150)[:100]
    found = native.max_sim(*map(torch.from_numpy, (codes, scales, borders, chosen, query)))
    documents = np.split(codes * scales, borders[1:-1])
    expected = max_sim([query], [documents[each] for each in chosen])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-2)
