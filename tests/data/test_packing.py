"""Packing: nothing lost, nothing too long, nearly no gaps, and any place found at once."""

import hashlib
import json
import lzma
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.memory_shards import FIRST_ID, SPECIAL, as_rows, memory_folder, random_folder
from tokenizers import Tokenizer

from modernbert.data import packing
from modernbert.data.mixture import Documents
from modernbert.data.packing import (
    MAX_BLOCK_BINS,
    NUM_SPECIAL,
    Bin,
    BinStream,
    PackingSettings,
    best_fit_decreasing,
    pack,
    split_documents,
)
from modernbert.data.shards import ShardFolder, ShardWriter
from modernbert.errors import InputError, SettingsError, ShardError

SMALL = PackingSettings(max_seqlen=64, bin_tokens=256)


@pytest.fixture(scope="module")
def folder() -> ShardFolder:
    return random_folder(300_000)


def documents(lengths: list[int]) -> Documents:
    sizes = np.array(lengths, dtype=np.int64)
    stops = sizes.cumsum()
    return Documents(np.zeros_like(sizes), stops - sizes, stops)


def read_block(stream: BinStream, block: int) -> list[Bin]:
    """All bins of a block, taken one by one."""
    bins, position = [], block * MAX_BLOCK_BINS
    while position // MAX_BLOCK_BINS == block:
        (one,), position = stream.take(position, 1)
        bins.append(one)
    return bins


class TestSplitDocuments:
    @settings(deadline=None)
    @given(lengths=st.lists(st.integers(1, 50)), max_seqlen=st.integers(3, 20))
    def test_full_pieces_and_a_rest(self, lengths: list[int], max_seqlen: int) -> None:
        whole, longest = documents(lengths), max_seqlen - NUM_SPECIAL
        expected = [
            (0, start, min(start + longest, stop))
            for _, first, stop in as_rows(whole)
            for start in range(first, stop, longest)
        ]
        assert as_rows(split_documents(whole, max_seqlen)) == expected


class TestBestFitDecreasing:
    @settings(deadline=None)
    @given(data=st.data(), capacity=st.integers(1, 40))
    def test_equals_a_search_through_all_bins(self, data: st.DataObject, capacity: int) -> None:
        lengths = sorted(data.draw(st.lists(st.integers(1, capacity))), reverse=True)
        room = data.draw(st.lists(st.integers(0, capacity), max_size=5))
        bins, num_bins = best_fit_decreasing(np.array(lengths, dtype=np.int64), room, capacity)
        left = [*room, *[capacity] * (num_bins - len(room))]
        for target, length in zip(bins, lengths, strict=True):
            left[target] -= length
        assert sorted(left) == sorted(searched(lengths, room, capacity))

    def test_room_given_is_not_changed(self) -> None:
        room = [4, 9]
        best_fit_decreasing(np.array([4, 4]), room, 10)
        assert room == [4, 9]


def searched(lengths: list[int], room: list[int], capacity: int) -> list[int]:
    """What best fit leaves free in each bin, found by looking at all of them."""
    room = list(room)
    for length in lengths:
        fitting = [index for index, size in enumerate(room) if size >= length]
        if not fitting:
            room.append(capacity)
            fitting = [len(room) - 1]
        room[min(fitting, key=lambda index: room[index])] -= length
    return room


class TestPack:
    @settings(deadline=None)
    @given(
        lengths=st.lists(st.integers(1, 30), max_size=60),
        bin_tokens=st.integers(32, 100),
        seed=st.integers(0, 5),
    )
    def test_every_piece_once_in_bins_that_are_neither_empty_nor_over_full(
        self, lengths: list[int], bin_tokens: int, seed: int
    ) -> None:
        pieces = documents(lengths)
        packed = pack(pieces, bin_tokens, seed=seed, block=0)
        assert sorted(as_rows(packed.pieces)) == as_rows(pieces)
        for first, stop in pairwise(packed.borders.tolist()):
            each = packed.pieces.lengths[first:stop]
            assert 0 < (each + NUM_SPECIAL).sum() <= bin_tokens
            assert (np.diff(each) <= 0).all()

    def test_lengths_are_mixed(self) -> None:
        """Bins differ in mean length no more than twice as much as bins of random pieces do."""
        random = np.random.default_rng(0)
        pieces = documents(random.integers(10, 500, size=8000).tolist())
        packed = pack(pieces, 8192, seed=0, block=0)
        means = np.add.reduceat(packed.pieces.lengths, packed.borders[:-1]) / np.diff(
            packed.borders
        )
        by_chance = pieces.lengths.std() / np.sqrt(np.diff(packed.borders).mean())
        assert means.std() < 2.5 * by_chance
        neighbours = np.corrcoef(means[:-1], means[1:])[0, 1]
        assert abs(neighbours) < 0.2

    def test_equal_pieces_of_a_document_are_spread(self) -> None:
        packed = pack(documents([62] * 400), 256, seed=0, block=0)
        together = [
            np.abs(np.diff(packed.pieces.starts[first:stop]))
            for first, stop in pairwise(packed.borders)
        ]
        assert (np.concatenate(together) == 62).mean() < 0.1


class TestBins:
    @settings(deadline=None, max_examples=40)
    @given(
        shards=st.lists(
            st.lists(st.integers(1, 90), min_size=1, max_size=30), min_size=1, max_size=3
        ),
        max_seqlen=st.integers(3, 40),
        extra=st.integers(0, 60),
    )
    def test_an_epoch_holds_every_token_once(
        self, shards: list[list[int]], max_seqlen: int, extra: int
    ) -> None:
        folder = memory_folder(shards)
        sizes = PackingSettings(max_seqlen=max_seqlen, bin_tokens=max_seqlen + extra)
        stream = BinStream([(folder, 1.0)], sizes, seed=3)
        found: list[int] = []
        position = 0
        while stream.epochs(position)[0] == 0:
            (one,), position = stream.take(position, 1)
            assert one.num_tokens == sum(map(len, one.sequences)) <= sizes.bin_tokens
            for sequence in one.sequences:
                assert (sequence[0], sequence[-1]) == (SPECIAL.cls, SPECIAL.sep)
                assert sequence.dtype == np.int64
                assert 3 <= len(sequence) <= max_seqlen
                assert (np.diff(sequence[1:-1]) == 1).all()  # one unbroken piece
                found += sequence[1:-1].tolist()
        epochs = round(stream.epochs(position)[0])  # of so small a corpus, several are one block
        assert sorted(found) == sorted([*range(FIRST_ID, FIRST_ID + folder.num_tokens)] * epochs)

    def test_what_a_bin_tells_of_itself(self) -> None:
        stream = BinStream([(memory_folder([[5] * 40]), 1.0)], SMALL, seed=0)
        (one,), _ = stream.take(3, 1)
        assert one.id == 3
        assert one.lengths.tolist() == [7] * len(one.spans)
        assert one.read().tolist() == np.concatenate(one.sequences).tolist()

    def test_tokens_are_read_only_when_asked_for(self, tmp_path: Path) -> None:
        sizes = {"vocab_size": 99, "special_token_ids": SPECIAL, "tokenizer_fingerprint": "one"}
        with ShardWriter(tmp_path / "shards", **sizes) as writer:  # type: ignore[arg-type]
            for first in range(5, 90):
                writer.add([first, first + 1, first + 2])
        content = bytearray((tmp_path / "shards/shard-00000.tokens").read_bytes())
        (tmp_path / "shards/shard-00000.tokens").write_bytes(content[::-1])
        stream = BinStream([(ShardFolder.open(tmp_path / "shards"), 1.0)], SMALL, seed=0)
        (one,), _ = stream.take(0, 1)
        assert one.num_tokens > 0
        with pytest.raises(ShardError, match="its bytes have changed"):
            one.read()

    def test_bins_go_to_other_processes(self, folder: ShardFolder) -> None:
        (one,), _ = BinStream([(folder, 1.0)], SMALL, seed=0).take(7, 1)
        copy = pickle.loads(pickle.dumps(one))
        assert (copy.id, copy.read().tolist()) == (one.id, one.read().tolist())


class TestBinStream:
    @settings(deadline=None, max_examples=30)
    @given(start=st.integers(0, 400), sizes=st.lists(st.integers(0, 300), max_size=4))
    def test_taking_together_equals_taking_apart(
        self, folder: ShardFolder, start: int, sizes: list[int]
    ) -> None:
        stream = BinStream([(folder, 1.0)], SMALL, seed=2)
        together, end = stream.take(start, sum(sizes))
        apart: list[Bin] = []
        position = start
        for size in sizes:
            bins, position = stream.take(position, size)
            apart += bins
        assert apart == together
        assert position == end

    def test_jumping_equals_walking(self, folder: ShardFolder) -> None:
        walker = BinStream([(folder, 1.0)], SMALL, seed=2)
        walked, _ = walker.take(0, 3000)
        assert walked[-1].id >= 2 * MAX_BLOCK_BINS
        for index in (0, 1, 1023, 1500, 2999):
            jumper = BinStream([(folder, 1.0)], SMALL, seed=2)
            (one,), _ = jumper.take(walked[index].id, 1)
            assert one == walked[index]

    def test_ids_ascend_and_lead_on(self, folder: ShardFolder) -> None:
        bins, end = BinStream([(folder, 1.0)], SMALL, seed=2).take(0, 2500)
        ids = [one.id for one in bins]
        assert ids == sorted(set(ids))
        assert ids[-1] < end

    def test_seeds_and_epochs_differ(self) -> None:
        folder = random_folder(60_000)
        first, second = (BinStream([(folder, 1.0)], SMALL, seed=seed) for seed in (1, 2))
        epochs = [read_block(first, 0), read_block(first, 1), read_block(second, 0)]
        contents = [{one.spans for one in bins} for bins in epochs]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert len(contents[a] & contents[b]) < len(contents[a]) / 20

    def test_sources_are_mixed_by_weight(self) -> None:
        second_id = 500_000
        folders = [random_folder(200_000), random_folder(150_000, seed=1, first_id=second_id)]
        stream = BinStream([(folders[0], 3.0), (folders[1], 1.0)], SMALL, seed=0)
        token_ids = np.concatenate([one.read() for one in stream.take(0, 900)[0]])
        ordinary = token_ids[token_ids >= FIRST_ID]
        assert (ordinary < second_id).mean() == pytest.approx(0.75, abs=0.02)

    @pytest.mark.parametrize("hash_seed", ["0", "1"])
    def test_every_process_makes_the_same_bins(self, hash_seed: str) -> None:
        program = "from tests.data.test_packing import digest_of_a_far_place as f; print(f())"
        answer = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert answer.stdout.strip() == digest_of_a_far_place()

    def test_places_that_do_not_exist(self, folder: ShardFolder) -> None:
        stream = BinStream([(folder, 1.0)], SMALL, seed=0)
        for position, num_bins in ((-1, 1), (0, -1)):
            with pytest.raises(InputError, match="expected 0 or more"):
                stream.take(position, num_bins)
        with pytest.raises(InputError, match=r"other data or other settings"):
            stream.take(MAX_BLOCK_BINS - 1, 1)

    def test_more_bins_than_a_position_can_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packing, "MAX_BLOCK_BINS", 8)
        stream = BinStream([(random_folder(20_000), 1.0)], SMALL, seed=0)
        with pytest.raises(ShardError, match="expected at most 8"):
            stream.take(0, 1)

    @pytest.mark.parametrize(
        ("max_seqlen", "bin_tokens", "told"), [(2, 100, "max_seqlen"), (65, 64, "bin_tokens")]
    )
    def test_sizes_that_cannot_be(self, max_seqlen: int, bin_tokens: int, told: str) -> None:
        with pytest.raises(SettingsError, match=told):
            PackingSettings(max_seqlen=max_seqlen, bin_tokens=bin_tokens)
        PackingSettings(max_seqlen=3, bin_tokens=3)


def digest_of_a_far_place() -> str:
    stream = BinStream([(random_folder(100_000), 1.0)], SMALL, seed=11)
    bins, position = stream.take(12_345 * MAX_BLOCK_BINS + 17, 40)
    content = b"".join(one.read().tobytes() for one in bins)
    return hashlib.sha256(content).hexdigest() + str(position)


@pytest.mark.parametrize(("corpus", "num_texts"), [("reviews", 4_000), ("books", 12)])
@pytest.mark.parametrize("bin_tokens", [8192, 16384, 65536])
def test_real_documents_fill_bins(
    shared_data: Path, corpus: str, num_texts: int, bin_tokens: int
) -> None:
    folder = memory_folder([real_lengths(shared_data, corpus, num_texts)])
    sizes = PackingSettings(max_seqlen=1024, bin_tokens=bin_tokens)
    bins = read_block(BinStream([(folder, 1.0)], sizes, seed=0), 0)
    assert sum(one.num_tokens for one in bins) / (len(bins) * bin_tokens) >= 0.995


@cache
def real_lengths(shared_data: Path, corpus: str, num_texts: int) -> list[int]:
    """Tokens of the first texts of a corpus."""
    tokenizer = Tokenizer.from_file(str(shared_data / "tokenizer/modernbert.json"))
    texts = list(islice(read_texts(shared_data / corpus / "train.jsonl.xz"), num_texts))
    return [len(one) for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def read_texts(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
