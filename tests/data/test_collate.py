"""Collation: bins become one batch, each masked as if it were alone."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.memory_shards import SPECIAL, memory_folder, random_folder

from modernbert.data.collate import MaskedBatch, collate
from modernbert.data.packing import Bin, BinStream, PackingSettings
from modernbert.errors import InputError

VOCAB_SIZE = 1 << 20
SIZES = PackingSettings(max_seqlen=64, bin_tokens=256)


@pytest.fixture(scope="module")
def bins() -> list[Bin]:
    return BinStream([(random_folder(20_000), 1.0)], SIZES, seed=0).take(0, 12)[0]


def join(bins: list[Bin], rate: float = 0.3, seed: int = 4) -> MaskedBatch:
    return collate(bins, vocab_size=VOCAB_SIZE, rate=rate, seed=seed)


def originals(batch: MaskedBatch) -> list[int]:
    """The tokens of a batch before masking."""
    token_ids = batch.batch.token_ids.clone()
    token_ids[batch.masked_indices] = batch.labels
    return token_ids.tolist()


def test_a_batch_is_its_bins(bins: list[Bin]) -> None:
    batch = join(bins)
    sequences = [sequence.tolist() for one in bins for sequence in one.sequences]
    assert originals(batch) == [token for sequence in sequences for token in sequence]
    assert batch.batch.lengths.tolist() == list(map(len, sequences))
    assert batch.batch.max_seqlen == max(map(len, sequences))
    assert batch.bin_ids == tuple(one.id for one in bins)
    assert batch.bin_tokens_each == tuple(one.num_tokens for one in bins)
    assert batch.num_masked == len(batch.masked_indices) == len(batch.labels) > 0


def test_types(bins: list[Bin]) -> None:
    batch = join(bins[:2])
    assert batch.batch.token_ids.dtype == torch.int64
    assert batch.batch.cu_seqlens.dtype == torch.int32
    assert batch.masked_indices.dtype == batch.labels.dtype == torch.int64


@settings(deadline=None, max_examples=30)
@given(cuts=st.sets(st.integers(1, 11)))
def test_masks_do_not_depend_on_the_grouping(bins: list[Bin], cuts: set[int]) -> None:
    together = join(bins)
    borders = [0, *sorted(cuts), len(bins)]
    parts = [join(bins[a:b]) for a, b in pairwise(borders)]
    seen = torch.cat([part.batch.token_ids for part in parts])
    assert seen.equal(together.batch.token_ids)
    assert torch.cat([part.labels for part in parts]).equal(together.labels)


def test_order_of_bins_moves_masks_with_them(bins: list[Bin]) -> None:
    batch = join(bins[::-1])
    parts = [join([one]).batch.token_ids for one in bins[::-1]]
    assert batch.batch.token_ids.equal(torch.cat(parts))


def test_special_tokens_are_seen_as_they_are(bins: list[Bin]) -> None:
    batch = join(bins, rate=1.0)
    firsts = batch.batch.token_ids[batch.batch.cu_seqlens[:-1]]
    lasts = batch.batch.token_ids[batch.batch.cu_seqlens[1:] - 1]
    assert set(firsts.tolist()) == {SPECIAL.cls}
    assert set(lasts.tolist()) == {SPECIAL.sep}
    assert batch.num_masked == batch.batch.total_tokens - 2 * batch.batch.num_sequences


def test_a_bin_may_have_nothing_masked() -> None:
    stream = BinStream(
        [(memory_folder([[1]]), 1.0)], PackingSettings(max_seqlen=3, bin_tokens=3), seed=0
    )
    batches = [join([one], rate=0.15) for one in stream.take(0, 40)[0]]
    assert {batch.num_masked for batch in batches} == {0, 1}
    empty = next(batch for batch in batches if not batch.num_masked)
    assert empty.masked_indices.shape == empty.labels.shape == (0,)
    assert empty.masked_indices.dtype == torch.int64


def test_to_another_device(bins: list[Bin]) -> None:
    batch = join(bins[:2])
    moved = batch.to("meta")
    devices = {moved.batch.token_ids.device, moved.masked_indices.device, moved.labels.device}
    assert devices == {torch.device("meta")}
    assert moved.bin_ids == batch.bin_ids


def test_no_bins() -> None:
    with pytest.raises(InputError, match="no bins"):
        join([])


def test_filling_up_adds_nothing_to_predict(bins: list[Bin]) -> None:
    batch = join(bins[:3])
    total = batch.batch.total_tokens
    filled = batch.filled_up(total + 50, max_seqlen=batch.batch.max_seqlen, token_id=3)
    assert filled.labels is batch.labels and filled.masked_indices is batch.masked_indices
    assert filled.batch.token_ids[:total].equal(batch.batch.token_ids)
    assert filled.bin_tokens_each == (*batch.bin_tokens_each, 50)
    assert sum(filled.bin_tokens_each) == filled.batch.total_tokens
    assert len(set(filled.bin_ids)) == len(filled.bin_tokens_each)


def test_causal_predicts_each_next_token_of_a_sequence(bins: list[Bin]) -> None:
    batch = collate(bins, vocab_size=VOCAB_SIZE, rate=0.3, seed=4, objective="causal")
    sequences = [sequence.tolist() for one in bins for sequence in one.sequences]
    assert batch.batch.token_ids.tolist() == [token for each in sequences for token in each]
    assert batch.labels.tolist() == [token for each in sequences for token in each[1:]]
    assert batch.batch.token_ids[batch.masked_indices].tolist() == [
        token for each in sequences for token in each[:-1]
    ]
