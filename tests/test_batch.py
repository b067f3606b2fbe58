"""PackedBatch: what goes in at one edge comes out at the other."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.batch import PackedBatch
from modernbert.errors import InputError

SEQUENCES = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=7), min_size=1, max_size=6)
# A mask of at least one row and column; a row, or all rows but one token, may be padding alone.
MASKS = st.integers(1, 6).flatmap(
    lambda columns: st.lists(
        st.lists(st.booleans(), min_size=columns, max_size=columns), min_size=1, max_size=5
    )
)


@settings(deadline=None)
@given(SEQUENCES)
def test_sequences_come_out_as_they_went_in(sequences: list[list[int]]) -> None:
    batch = PackedBatch.from_sequences(sequences)
    assert [part.tolist() for part in batch.split()] == sequences
    assert batch.lengths.tolist() == [len(sequence) for sequence in sequences]
    assert batch.num_tokens_each == tuple(len(sequence) for sequence in sequences)
    assert batch.to("cpu").num_tokens_each == batch.num_tokens_each
    assert batch.total_tokens == sum(map(len, sequences))
    assert batch.num_sequences == len(sequences)
    assert batch.max_seqlen == max(map(len, sequences))


@settings(deadline=None)
@given(SEQUENCES)
def test_ids_and_positions_of_each_token(sequences: list[list[int]]) -> None:
    batch = PackedBatch.from_sequences(sequences)
    places = [(i, j) for i, sequence in enumerate(sequences) for j in range(len(sequence))]
    assert batch.sequence_ids.tolist() == [i for i, _ in places]
    assert batch.position_ids.tolist() == [j for _, j in places]


@settings(deadline=None)
@given(SEQUENCES)
def test_padding_on_the_right(sequences: list[list[int]]) -> None:
    padded = PackedBatch.from_sequences(sequences).to_padded(padding_value=-1)
    longest = max(map(len, sequences))
    assert padded.tolist() == [row + [-1] * (longest - len(row)) for row in sequences]


@settings(deadline=None)
@given(MASKS)
def test_padded_rows_come_back_in_their_old_places(mask: list[list[bool]]) -> None:
    present = torch.tensor(mask)
    token_ids = torch.arange(1, present.numel() + 1).view_as(present)
    if not present.any():
        with pytest.raises(InputError, match="needs a token"):
            PackedBatch.from_padded(token_ids, present)
        return
    batch = PackedBatch.from_padded(token_ids, present.int())
    assert torch.equal(batch.to_padded(), token_ids * present)
    assert torch.equal(batch.token_ids, token_ids[present])
    assert batch.lengths.tolist() == present.sum(1).tolist()


@settings(deadline=None)
@given(MASKS, st.integers(1, 3))
def test_values_of_several_dimensions_follow_their_tokens(mask: list[list[bool]], n: int) -> None:
    mask[0][0] = True
    present = torch.tensor(mask)
    token_ids = torch.arange(present.numel()).view_as(present)
    batch = PackedBatch.from_padded(token_ids, present)
    values = batch.token_ids[:, None].expand(-1, n).double()
    padded = batch.to_padded(values, padding_value=-1)
    expected = torch.where(present, token_ids, -1)[..., None].expand(-1, -1, n).double()
    assert torch.equal(padded, expected)


def test_gradients_flow_through_padding() -> None:
    batch = PackedBatch.from_sequences([[1, 2, 3], [4]])
    values = torch.ones(4, requires_grad=True)
    batch.to_padded(values).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64, np.int32])
def test_arrays_as_shards_hold_them(dtype: type[np.generic]) -> None:
    largest = min(np.iinfo(dtype).max, 2**31)
    batch = PackedBatch.from_sequences([np.array([0, largest], dtype=dtype)])
    assert batch.token_ids.dtype == torch.int64
    assert batch.token_ids.tolist() == [0, largest]


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "no sequences"),
        ([[1], []], "sequence 1 is empty"),
        ([[1.5]], r"sequence 0: got \(1,\) float32"),
        ([[True]], r"sequence 0: got \(1,\) bool"),
        ([[[1, 2]]], r"sequence 0: got \(1, 2\) int64"),
        (["text"], "sequence 0: not a list of token ids"),
        ([[1, None]], "sequence 0: not a list of token ids"),
    ],
)
def test_what_is_no_sequence_is_refused(sequences: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PackedBatch.from_sequences(sequences)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("token_ids", "cu_seqlens", "name"),
    [
        (torch.zeros(2, dtype=torch.int32), torch.tensor([0, 2], dtype=torch.int32), "token_ids"),
        (torch.zeros(1, 2, dtype=torch.int64), torch.tensor([0, 2]).int(), "token_ids"),
        (torch.zeros(2, dtype=torch.int64), torch.tensor([0, 2]), "cu_seqlens"),
    ],
)
def test_other_types_and_shapes_are_refused(
    token_ids: torch.Tensor, cu_seqlens: torch.Tensor, name: str
) -> None:
    with pytest.raises(InputError, match=f"{name}: got .* expected"):
        PackedBatch(token_ids=token_ids, cu_seqlens=cu_seqlens, max_seqlen=2)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="attention_mask: got"):
        PackedBatch.from_padded(torch.ones(2, 3, dtype=torch.int64), torch.ones(3, 2))


def test_values_of_another_length_are_refused() -> None:
    with pytest.raises(InputError, match="an entry for each token"):
        PackedBatch.from_sequences([[1, 2]]).to_padded(torch.zeros(3))


def test_a_batch_cannot_be_changed() -> None:
    batch = PackedBatch.from_sequences([[1]])
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.max_seqlen = 5  # type: ignore[misc]


def test_moving_keeps_everything() -> None:
    batch = PackedBatch.from_padded(torch.tensor([[0, 7, 8]]), torch.tensor([[0, 1, 1]]))
    moved = batch.to("cpu")
    assert moved.to_padded().tolist() == [[0, 7, 8]]
    assert moved.cu_seqlens.dtype == torch.int32


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=9),
    missing=st.integers(0, 30),
)
def test_filled_up_batches_have_a_fixed_shape(lengths: list[int], missing: int) -> None:
    batch = PackedBatch.from_sequences([torch.arange(length) for length in lengths])
    total = sum(lengths) + missing
    filled = batch.filled_up(total, max_seqlen=6, token_id=9)
    assert filled.total_tokens == total and filled.max_seqlen == 6
    assert torch.equal(filled.token_ids[: batch.total_tokens], batch.token_ids)
    assert (filled.token_ids[batch.total_tokens :] == 9).all()
    assert filled.cu_seqlens[: len(lengths) + 1].tolist() == batch.cu_seqlens.tolist()
    assert int(filled.lengths.max()) <= 6 and int(filled.lengths.sum()) == total
    assert filled.num_sequences.bit_count() == 1
    assert filled.cu_seqlens.dtype == torch.int32


def test_filling_up_refuses_what_is_too_long() -> None:
    batch = PackedBatch.from_sequences([[5, 6, 7]])
    with pytest.raises(InputError, match="3 tokens with sequences of up to 3"):
        batch.filled_up(2, max_seqlen=3, token_id=0)
    with pytest.raises(InputError, match="expected at most 9 and 2"):
        batch.filled_up(9, max_seqlen=2, token_id=0)
