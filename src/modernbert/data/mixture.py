"""Which documents a run reads, and in which order: an endless mixture of weighted sources.

`prepare` has already shuffled the documents of a source over all its shards. An epoch therefore
reads a source shard by shard, which touches and hashes one shard at a time. Each epoch has its own
order of shards and, in each shard, of chunks (contiguous documents of about a million tokens).
Memory never grows with the documents of a source or with its chunks: the tables have one entry per
shard, and one per chunk of the current shard.

The orders come from PCG64DXSM with a key of seed, source, epoch and shard (P, C.1: the biased
sampler of another library ruined a run). Only raw words of the generator are used, which NumPy
keeps the same in all versions, so a run also resumes under another NumPy.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

import numpy as np

from modernbert.data.shards import Shard, ShardFolder
from modernbert.errors import SettingsError, ShardError

CHUNK_TOKENS = 1 << 20


class Purpose(IntEnum):
    """The purpose of random numbers; each purpose has its own streams."""

    SHARDS = 0
    CHUNKS = 1
    PIECES = 2
    BINS = 3
    HELD_OUT = 4


def permutation(size: int, *, seed: int, purpose: Purpose, key: Sequence[int] = ()) -> np.ndarray:
    """(size,) int64. The numbers 0 to size - 1 in an order that the arguments alone decide.

    >>> permutation(5, seed=17, purpose=Purpose.BINS, key=(3,)).tolist()
    [1, 3, 4, 0, 2]
    """
    entropy = np.random.SeedSequence(seed, spawn_key=(purpose, *key))
    words: np.ndarray = np.random.PCG64DXSM(entropy).random_raw(size)
    return words.argsort(kind="stable")


@dataclass(frozen=True)
class Documents:
    """Parts of documents in shards, as parallel arrays.

    Attributes:
        shard_ids: (num_documents,) int64 indices into a tuple of shards that the maker names.
        starts: (num_documents,) int64 places in the tokens of that shard.
        stops: As `starts`.
    """

    shard_ids: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    def __len__(self) -> int:
        return len(self.shard_ids)

    def __getitem__(self, choice: np.ndarray) -> "Documents":
        """Return the documents at the indices `choice`, in that order."""
        return Documents(self.shard_ids[choice], self.starts[choice], self.stops[choice])

    @property
    def lengths(self) -> np.ndarray:
        """(num_documents,) int64, in tokens."""
        lengths: np.ndarray = self.stops - self.starts
        return lengths

    @classmethod
    def of_shard(cls, shard: Shard, shard_id: int, first: int, stop: int) -> "Documents":
        """Return the documents `first` to `stop` of a shard as a whole."""
        offsets = shard.offsets[first : stop + 1].astype(np.int64)
        return cls(np.full(stop - first, shard_id), offsets[:-1], offsets[1:])

    @classmethod
    def concatenate(cls, parts: Sequence["Documents"]) -> "Documents":
        """Concatenate several sets of documents."""
        return cls(
            np.concatenate([part.shard_ids for part in parts] or [_NONE]),
            np.concatenate([part.starts for part in parts] or [_NONE]),
            np.concatenate([part.stops for part in parts] or [_NONE]),
        )


_NONE = np.empty(0, dtype=np.int64)


class SourceStream:
    """The documents of one shard folder, by token position, epoch after epoch without end.

    Epoch e has the tokens e x num_tokens to (e + 1) x num_tokens of the stream.
    """

    def __init__(
        self, folder: ShardFolder, *, seed: int, source: int, chunk_tokens: int = CHUNK_TOKENS
    ) -> None:
        self.folder = folder
        self.num_tokens = folder.num_tokens
        self._seed = seed
        self._source = source
        self._chunk_tokens = chunk_tokens
        self._shard_tokens = np.array([s.num_tokens for s in folder.shards], dtype=np.int64)

    def documents(self, first: int, stop: int) -> Documents:
        """Return the whole documents whose first token is in [first, stop) of the stream."""
        return Documents.concatenate(list(self._runs(first, stop)))

    def _runs(self, first: int, stop: int) -> Iterator[Documents]:
        while first < stop:
            epoch = first // self.num_tokens
            base = epoch * self.num_tokens
            key = (self._source, epoch)
            order = permutation(
                len(self._shard_tokens), seed=self._seed, purpose=Purpose.SHARDS, key=key
            )
            ends = self._shard_tokens[order].cumsum()
            place = int(ends.searchsorted(first - base, side="right"))
            shard_id, shard_end = int(order[place]), base + int(ends[place])
            shard_first = shard_end - int(self._shard_tokens[shard_id])
            yield from self._runs_in_shard(
                epoch, shard_id, first - shard_first, min(stop, shard_end) - shard_first
            )
            first = shard_end

    def _runs_in_shard(
        self, epoch: int, shard_id: int, first: int, stop: int
    ) -> Iterator[Documents]:
        """Yield those that start in [first, stop) of the shard's tokens in this epoch's order."""
        shard = self.folder.shards[shard_id]
        starts = shard.offsets[:-1]
        borders = _chunk_borders(shard, self._chunk_tokens)
        tokens = shard.offsets[borders].astype(np.int64)  # where each chunk begins, and the end
        key = (self._source, epoch, shard_id)
        order = permutation(len(borders) - 1, seed=self._seed, purpose=Purpose.CHUNKS, key=key)
        ends = np.diff(tokens)[order].cumsum()
        for place in range(
            int(ends.searchsorted(first, side="right")),
            int(ends.searchsorted(stop, side="left")) + 1,
        ):
            chunk = int(order[place])
            shift = int(tokens[chunk + 1] - ends[place])  # from the epoch's order to the file's
            within = np.array([max(first + shift, 0), max(stop + shift, 0)], dtype=np.uint64)
            low, high = starts.searchsorted(within).clip(borders[chunk], borders[chunk + 1])
            yield Documents.of_shard(shard, shard_id, int(low), int(high))


def _chunk_borders(shard: Shard, chunk_tokens: int) -> np.ndarray:
    """Return (num_chunks + 1,) int64 document indices; chunk i is borders[i] to borders[i + 1]."""
    # In the type of the offsets: another one would have NumPy copy all of them for the search.
    multiples = np.arange(0, shard.num_tokens, chunk_tokens, dtype=np.uint64)
    return np.append(shard.offsets[:-1].searchsorted(multiples), shard.num_documents)


class Mixture:
    """Weighted sources as a sequence of blocks; block b depends on nothing but its number.

    Of source s, a block takes the documents that start in the tokens [b x q, (b + 1) x q) of its
    stream, where q is the source's share of `block_tokens`, as an exact fraction. Shares count the
    tokens of documents. `block_tokens` is chosen so that the source that repeats most often begins
    its epochs at borders of blocks. A small corpus alone has one block per epoch.

    `shards` are those of all sources, which the `shard_ids` of documents index. `block_tokens` is a
    `Fraction`, at most `wanted_block_tokens`, unless the most repeated source would repeat itself
    in fewer than `least_block_tokens`; then a block holds several epochs of it.

    Raises:
        SettingsError: There is no source, a weight is not positive, or the seed is not from 0 to
            2^64 - 1.
        ShardError: A source is empty, or the sources have different tokenizers.
    """

    def __init__(
        self,
        sources: Sequence[tuple[ShardFolder, float]],
        *,
        seed: int,
        wanted_block_tokens: int,
        least_block_tokens: int,
    ) -> None:
        _check_sources(sources, seed)
        total = sum(Fraction(weight) for _, weight in sources)
        self._shares = [Fraction(weight) / total for _, weight in sources]
        self._streams = [
            SourceStream(folder, seed=seed, source=i) for i, (folder, _) in enumerate(sources)
        ]
        self.shards = tuple(shard for folder, _ in sources for shard in folder.shards)
        self.block_tokens = _block_tokens(
            min(
                stream.num_tokens / share
                for stream, share in zip(self._streams, self._shares, strict=True)
            ),
            wanted_block_tokens,
            least_block_tokens,
        )

    def documents(self, block: int) -> Documents:
        """Return the documents of a block, source by source."""
        parts, first_shard = [], 0
        for stream, share in zip(self._streams, self._shares, strict=True):
            quota = share * self.block_tokens
            part = stream.documents(math.floor(block * quota), math.floor((block + 1) * quota))
            parts.append(Documents(part.shard_ids + first_shard, part.starts, part.stops))
            first_shard += len(stream.folder.shards)
        return Documents.concatenate(parts)

    def epochs(self, block: int) -> tuple[float, ...]:
        """Return how many times each source has been read when a block begins."""
        return tuple(
            float(block * share * self.block_tokens / stream.num_tokens)
            for stream, share in zip(self._streams, self._shares, strict=True)
        )


def require_same_tokenizer(folders: Sequence[ShardFolder]) -> None:
    """Refuse shard folders whose token ids have different meanings.

    Raises:
        ShardError: Two folders differ; the message names both.
    """
    for folder in folders[1:]:
        if folder.tokenizer_fingerprint != folders[0].tokenizer_fingerprint:
            raise ShardError(
                f"{folder.path}: made with another tokenizer than {folders[0].path}; "
                "prepare both with the same one"
            )


NUM_SEEDS = 1 << 64  # a seed is a word of the generators


def check_seed(seed: int) -> None:
    """Refuse a seed that does not fit into a word of the generators.

    Raises:
        SettingsError: The seed is not from 0 to 2^64 - 1.
    """
    if not 0 <= seed < NUM_SEEDS:
        raise SettingsError(f"seed: got {seed}, expected 0 to 2^64 - 1")


def _block_tokens(epoch: Fraction, wanted: int, least: int) -> Fraction:
    """Return a divisor of `epoch` at most `wanted`, or a multiple of it if it is below `least`."""
    if epoch >= least:
        return epoch / math.ceil(epoch / wanted)
    return epoch * math.ceil(least / epoch)


def _check_sources(sources: Sequence[tuple[ShardFolder, float]], seed: int) -> None:
    check_seed(seed)
    if not sources:
        raise SettingsError("no sources: a mixture needs at least one shard folder")
    for folder, weight in sources:
        if not (math.isfinite(weight) and weight > 0):
            raise SettingsError(
                f"weight of {folder.path}: got {weight}, expected a number above 0; "
                "remove the source to read nothing of it"
            )
        if folder.num_tokens == 0:
            raise ShardError(f"{folder.path}: holds no documents; prepare a corpus that has some")
    require_same_tokenizer([folder for folder, _ in sources])
