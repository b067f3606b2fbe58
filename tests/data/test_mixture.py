"""The order of documents: every epoch holds each once, and any part of it is found at once."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.memory_shards import MemoryFolder, MemoryShard, as_rows, memory_folder

from modernbert.data.mixture import (
    Documents,
    Mixture,
    Purpose,
    SourceStream,
    permutation,
    require_same_tokenizer,
)
from modernbert.data.shards import ShardFolder
from modernbert.errors import SettingsError, ShardError

SHARDS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=4)


def documents_of(folder: ShardFolder) -> list[tuple[int, int, int]]:
    return [
        (shard_id, int(start), int(stop))
        for shard_id, shard in enumerate(folder.shards)
        for start, stop in pairwise(shard.offsets)
    ]


def mixture(*sources: tuple[ShardFolder, float], seed: int = 1, wanted: int, least: int) -> Mixture:
    return Mixture(sources, seed=seed, wanted_block_tokens=wanted, least_block_tokens=least)


class TestPermutation:
    def test_each_number_once(self) -> None:
        order = permutation(1000, seed=3, purpose=Purpose.CHUNKS, key=(1, 2))
        assert sorted(order.tolist()) == list(range(1000))
        assert len(permutation(0, seed=3, purpose=Purpose.CHUNKS)) == 0

    def test_every_argument_counts(self) -> None:
        arguments = [
            (1, Purpose.PIECES, (0,)),
            (2, Purpose.PIECES, (0,)),
            (1, Purpose.BINS, (0,)),
            (1, Purpose.PIECES, (1,)),
            (1, Purpose.PIECES, (0, 0)),
            (1, Purpose.PIECES, (1 << 40,)),
            (1 << 63, Purpose.PIECES, (0,)),
        ]
        orders = {
            tuple(permutation(50, seed=seed, purpose=purpose, key=key).tolist())
            for seed, purpose, key in arguments
        }
        assert len(orders) == len(arguments)

    def test_places_are_uniform(self) -> None:
        first = [permutation(8, seed=s, purpose=Purpose.BINS)[0] for s in range(4000)]
        counts = np.bincount(first, minlength=8)
        chi_square = ((counts - 500) ** 2 / 500).sum()
        assert chi_square < 24.3  # 7 degrees of freedom: exceeded once in a thousand


class TestSourceStream:
    @settings(deadline=None)
    @given(lengths=SHARDS, chunk=st.integers(1, 60), seed=st.integers(0, 3))
    def test_every_epoch_holds_every_document_once(
        self, lengths: list[list[int]], chunk: int, seed: int
    ) -> None:
        folder = memory_folder(lengths)
        stream = SourceStream(folder, seed=seed, source=0, chunk_tokens=chunk)
        size = folder.num_tokens
        for epoch in (0, 1, 7):
            rows = as_rows(stream.documents(epoch * size, (epoch + 1) * size))
            assert sorted(rows) == sorted(documents_of(folder))

    @settings(deadline=None)
    @given(lengths=SHARDS, chunk=st.integers(1, 60), data=st.data())
    def test_a_part_is_what_walking_finds_there(
        self, lengths: list[list[int]], chunk: int, data: st.DataObject
    ) -> None:
        folder = memory_folder(lengths)
        stream = SourceStream(folder, seed=5, source=2, chunk_tokens=chunk)
        end = 3 * folder.num_tokens
        whole = stream.documents(0, end)
        starts = whole.lengths.cumsum() - whole.lengths
        first = data.draw(st.integers(0, end))
        stop = data.draw(st.integers(first, end))
        inside = np.flatnonzero((starts >= first) & (starts < stop))
        assert as_rows(stream.documents(first, stop)) == as_rows(whole[inside])

    def test_epochs_and_sources_have_orders_of_their_own(self) -> None:
        folder = memory_folder([[10] * 40, [10] * 40, [10] * 40])
        streams = [SourceStream(folder, seed=1, source=s, chunk_tokens=100) for s in (0, 1)]
        orders = {
            tuple(as_rows(stream.documents(epoch * 1200, (epoch + 1) * 1200)))
            for stream in streams
            for epoch in (0, 1, 2)
        }
        assert len(orders) == 6

    def test_one_shard_is_read_at_a_time(self) -> None:
        folder = memory_folder([[10] * 40] * 5)
        documents = SourceStream(folder, seed=1, source=0, chunk_tokens=100).documents(0, 2000)
        assert np.count_nonzero(np.diff(documents.shard_ids)) == 4
        assert np.any(np.diff(documents.starts[:40]) < 0)  # chunks of a shard are permuted


class TestMixture:
    def test_blocks_hold_every_document_of_an_epoch_once(self) -> None:
        folder = memory_folder([[7, 30, 2], [19, 1, 1, 40]])
        one = mixture((folder, 2.0), wanted=30, least=1)
        blocks = math.ceil(100 / 30)
        assert one.block_tokens == 25
        rows = [row for block in range(blocks) for row in as_rows(one.documents(block))]
        assert sorted(rows) == sorted(documents_of(folder))
        assert one.epochs(blocks) == (1.0,)

    def test_small_corpus_is_one_block_an_epoch(self) -> None:
        folder = memory_folder([[10] * 20])
        one = mixture((folder, 1.0), wanted=1000, least=100)
        for block in (0, 1, 5):
            assert sorted(as_rows(one.documents(block))) == documents_of(folder)
            assert one.epochs(block) == (block,)

    def test_tiny_corpus_is_several_epochs_a_block(self) -> None:
        folder = memory_folder([[10] * 5])
        one = mixture((folder, 1.0), wanted=1000, least=120)
        assert sorted(as_rows(one.documents(4))) == sorted(documents_of(folder) * 3)

    @settings(deadline=None, max_examples=30)
    @given(
        weights=st.lists(st.floats(0.01, 100), min_size=2, max_size=4),
        block=st.integers(0, 10**6),
    )
    def test_weights_are_shares_of_tokens(self, weights: list[float], block: int) -> None:
        longest = 20
        random = np.random.default_rng(0)
        folders = [
            memory_folder([random.integers(1, longest, size=size).tolist()])
            for size in (4000, 1500, 9000, 2500)[: len(weights)]
        ]
        mixed = mixture(*zip(folders, weights, strict=True), seed=9, wanted=20_000, least=5_000)
        documents = mixed.documents(block)
        for source, weight in enumerate(weights):
            tokens = int(documents.lengths[documents.shard_ids == source].sum())
            share = weight / sum(weights) * float(mixed.block_tokens)
            assert abs(tokens - share) <= longest + 1

    def test_the_most_repeated_source_begins_its_epochs_with_blocks(self) -> None:
        small, large = memory_folder([[10] * 30]), memory_folder([[10] * 1000])
        mixed = mixture((large, 1.0), (small, 0.1), wanted=1200, least=100)
        assert mixed.block_tokens == pytest.approx(3300 / 3)
        for epoch in (0, 4):
            parts = [mixed.documents(3 * epoch + block) for block in range(3)]
            found = Documents.concatenate(parts)
            assert np.bincount(found.starts[found.shard_ids == 1] // 10).tolist() == [1] * 30

    def test_far_places_need_few_shards(self) -> None:
        touched = []

        class CountedShard(MemoryShard):
            num_tokens, num_documents = 250_000_000, 250_000

            def __init__(self, number: int) -> None:
                object.__setattr__(self, "number", number)

            @property
            def offsets(self) -> np.ndarray:
                touched.append(self)
                return np.arange(250_001, dtype=np.uint64) * np.uint64(1000)

        folder = MemoryFolder(tuple(CountedShard(number) for number in range(8000)))
        mixed = mixture((folder, 1.0), wanted=8_000_000, least=1_000_000)  # type: ignore[arg-type]
        place = 1_500_000_000_000 // 8_000_000
        assert mixed.documents(place).lengths.sum() == pytest.approx(8_000_000, abs=2000)
        assert len(set(map(id, touched))) <= 2
        assert mixed.epochs(place) == (0.75,)

    def test_what_cannot_be_mixed(self) -> None:
        folder, other = memory_folder([[3]]), memory_folder([[3]], fingerprint="two")
        with pytest.raises(SettingsError, match="no sources"):
            mixture(wanted=10, least=1)
        for weight in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(SettingsError, match="weight of memory"):
                mixture((folder, weight), wanted=10, least=1)
        for seed in (-1, 1 << 64):
            with pytest.raises(SettingsError, match="seed"):
                mixture((folder, 1.0), seed=seed, wanted=10, least=1)
        with pytest.raises(ShardError, match="holds no documents"):
            mixture((memory_folder([]), 1.0), wanted=10, least=1)
        with pytest.raises(ShardError, match="another tokenizer"):
            mixture((folder, 1.0), (other, 1.0), wanted=10, least=1)
        require_same_tokenizer([folder, folder])
