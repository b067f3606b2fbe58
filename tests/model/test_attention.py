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
from modernbert.errors import ConfigError, InputError
from modernbert.model import flex
from modernbert.model.attention import attend
from modernbert.model.choices import AttentionChoice
from modernbert.model.layout import Layout

HEADS, SIZE = 2, 8

lengths_of_a_batch = st.lists(
    st.sampled_from([0, *BOUNDARY_LENGTHS]) | st.integers(0, 200), min_size=1, max_size=5
).filter(any)
windows = st.none() | st.sampled_from([1, 2, 16, 31, 32, 33, 63, 64, 65, 100, 500])


class Case:
    """Random queries, keys and values, flat and padded, and a direction for the gradient."""

    def __init__(self, lengths: Sequence[int], dtype: torch.dtype, size: int = SIZE) -> None:
        token_ids, self.present = ragged(lengths)
        self.batch = PackedBatch.from_padded(token_ids, self.present)
        generator = torch.Generator().manual_seed(0)
        shape = (4, self.batch.total_tokens, HEADS, size)
        self.tensors = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def flat(
        self,
        window: int | None,
        *,
        attention: AttentionChoice = "auto",
        is_causal: bool = False,
    ) -> tuple[Tensor, ...]:
        """The output, and the gradients of queries, keys and values."""
        inputs = [x.detach().requires_grad_() for x in self.tensors[:3]]
        reach = 64 if window is None else window
        layout = Layout(self.batch, reach, attention=attention, is_causal=is_causal)
        output = attend(*inputs, layout, window=window)
        return output, *torch.autograd.grad(output, inputs, self.tensors[3])

    def dense(self, window: int | None, *, is_causal: bool = False) -> tuple[Tensor, ...]:
        """The same by the reference, in float64."""
        inputs = [x.detach().double().requires_grad_() for x in self.tensors[:3]]
        positions = self.present.long().cumsum(1) - 1
        mask = dense_mask(positions, self.present, window, is_causal=is_causal)
        padded = [self.batch.to_padded(x).transpose(1, 2) for x in inputs]
        output = dense_attention(*padded, mask).transpose(1, 2)[self.present]
        return output, *torch.autograd.grad(output, inputs, self.tensors[3].double())


def check(
    lengths: Sequence[int],
    window: int | None,
    dtype: torch.dtype,
    within: float,
    attention: AttentionChoice = "auto",
    *,
    is_causal: bool = False,
) -> None:
    case = Case(lengths, dtype)
    names = ("output", "of queries", "of keys", "of values")
    for name, got, expected in zip(
        names,
        case.flat(window, attention=attention, is_causal=is_causal),
        case.dense(window, is_causal=is_causal),
        strict=True,
    ):
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


@settings(max_examples=40, deadline=None)
@given(lengths=lengths_of_a_batch, window=windows)
@example(lengths=[0, 5, 0], window=64)
@example(lengths=[64, 64, 64], window=64)
@example(lengths=[200, 200, 3], window=None)
def test_causal_is_equal_to_dense_attention(lengths: list[int], window: int | None) -> None:
    check(lengths, window, torch.float32, within=5e-5, is_causal=True)


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
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_cuda(
    lengths: list[int], window: int | None, is_causal: bool, dtype: torch.dtype
) -> None:
    case = Case(lengths, dtype)
    expected = case.dense(window, is_causal=is_causal)
    case.batch, case.tensors = case.batch.to("cuda"), case.tensors.cuda()
    for got, wanted in zip(case.flat(window, is_causal=is_causal), expected, strict=True):
        assert got.is_cuda and got.dtype == dtype
        assert largest_difference(got.cpu(), wanted) <= (5e-3 if dtype is torch.float32 else 0.05)


@settings(max_examples=25, deadline=None)
@given(lengths=lengths_of_a_batch, window=windows, is_causal=st.booleans())
@example(lengths=[128, 128, 1, 300, 0, 127], window=None, is_causal=False)
@example(lengths=[128, 128, 1, 300, 0, 127], window=64, is_causal=True)
@example(lengths=[600], window=500, is_causal=False)
@example(lengths=[600], window=None, is_causal=True)
def test_blocks_of_flex_attention_hold_every_pair_that_sees(
    lengths: list[int], window: int | None, is_causal: bool
) -> None:
    """A block is left out only where no pair sees, and taken whole only where all do."""
    case = Case(lengths, torch.float32)
    mask = flex.block_mask(case.batch, window, is_causal=is_causal)
    sequences, total = case.batch.sequence_ids, case.batch.total_tokens
    rows = torch.arange(total)
    dense = sequences[:, None] == sequences
    if window is not None:
        dense &= (rows[:, None] - rows).abs() <= window
    if is_causal:
        dense &= rows[:, None] >= rows
    assert torch.equal(mask.mask_mod(None, None, rows[:, None], rows), dense)
    for query in range(-(-total // flex.BLOCK)):
        partial = _listed(mask.kv_num_blocks, mask.kv_indices, query)
        whole = _listed(mask.full_kv_num_blocks, mask.full_kv_indices, query)
        assert not partial & whole
        for key in range(-(-total // flex.BLOCK)):
            pairs = dense[_rows(query), _rows(key)]
            assert key in partial | whole or not pairs.any()
            assert key not in whole or (pairs.all() and pairs.shape == (128, 128))


def _rows(block: int) -> slice:
    return slice(flex.BLOCK * block, flex.BLOCK * (block + 1))


def _listed(counts: Tensor | None, places: Tensor | None, row: int) -> set[int]:
    assert counts is not None and places is not None
    return set(places[0, 0, row, : int(counts[0, 0, row])].tolist())


def test_flex_attention_leaves_blocks_out() -> None:
    """Of 64 blocks a window of 64 needs three a row."""
    batch = PackedBatch.from_sequences([torch.zeros(64 * flex.BLOCK, dtype=torch.int64)])
    mask = flex.block_mask(batch, 64)
    assert int(mask.kv_num_blocks.max()) == 3
    assert int(flex.block_mask(batch, None).full_kv_num_blocks.min()) == 64


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize("lengths", [[100, 0, 1, 64, 150], [128, 129]])
def test_flex_attention_is_equal_to_dense(
    lengths: list[int], window: int | None, is_causal: bool
) -> None:
    case = Case(lengths, torch.float32, size=16)
    query, key, value = case.tensors[:3]
    layout = Layout(case.batch, 64, attention="flex", is_causal=is_causal)
    with torch.no_grad():
        output = attend(query, key, value, layout, window=window)
    assert largest_difference(output, case.dense(window, is_causal=is_causal)[0]) <= 5e-5


def test_flex_attention_says_that_it_cannot_train_on_a_cpu() -> None:
    case = Case([5], torch.float32, size=16)
    query = case.tensors[0].requires_grad_()
    with pytest.raises(InputError, match="no gradients on a CPU"):
        attend(query, query, query, Layout(case.batch, 64, attention="flex"), window=None)


@pytest.mark.parametrize("choice", ["varlen", "flash3"])
def test_a_back_end_that_the_device_lacks_is_refused(choice: AttentionChoice) -> None:
    batch = Case([5], torch.float32).batch
    with pytest.raises(ConfigError, match=f'"{choice}" needs an NVIDIA GPU'):
        Layout(batch, 64, attention=choice)


def test_an_unknown_back_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of auto, varlen"):
        Layout(Case([5], torch.float32).batch, 64, attention="flash")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("window", [None, 64])
def test_blocks_on_request_as_a_gpu_without_varlen_takes_them(
    dtype: torch.dtype, window: int | None
) -> None:
    within = 5e-5 if dtype is torch.float32 else 0.01
    check([100, 1, 64, 30], window, dtype, within=within, attention="blocks")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("attention", ["flex", "blocks"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 64])
def test_other_back_ends_on_cuda(
    attention: AttentionChoice, dtype: torch.dtype, window: int | None
) -> None:
    case = Case([100, 0, 1, 64, 300, 129], dtype, size=64)
    expected = case.dense(window)
    case.batch, case.tensors = case.batch.to("cuda"), case.tensors.cuda()
    for got, wanted in zip(case.flat(window, attention=attention), expected, strict=True):
        assert largest_difference(got.cpu(), wanted) <= (5e-3 if dtype is torch.float32 else 0.1)
