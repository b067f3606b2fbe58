"""Bins: documents split to the longest sequence and packed tightly, from one integer.

No text is lost: a document is cut into as many full pieces as it has and one shorter remainder,
each with its own [CLS] and [SEP].
Deviation: the paper's code truncates a document at the longest sequence.

The pieces of a block are packed in two passes (P section 2.2.1: over 99% full). First, a part of
every bin is filled with pieces in their random order; then the remaining pieces are packed by best
fit, longest first. Best fit alone packs as tightly, but gives bins of nearly one length each, so
that a step of few bins would be a sample of one kind of document.

A bin's `id` is its place in the stream: block x `MAX_BLOCK_BINS` + index in the block. A block
depends only on the seed and its own number. Every process can therefore compute the same bins, go
to any place at once, and read from the shards only its own bins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, NamedTuple

import numpy as np
from annotated_types import Ge

from modernbert.data.mixture import Documents, Mixture, Purpose, permutation
from modernbert.data.shards import Shard, ShardFolder, SpecialTokens
from modernbert.errors import InputError, SettingsError, ShardError
from modernbert.settings import Doc, Settings

# The last bin of a block is half full on average: 0.05% of 1,024 bins, 0.2% of 256.
WANTED_BLOCK_BINS = 1024
LEAST_BLOCK_BINS = 256
MAX_BLOCK_BINS = 1 << 20

# Of what a bin can take besides a longest piece. Measured on books and reviews from 0 to 0.6: bins
# stay as full within 0.2% and become ever more alike; above, books at 8,192 begin to leave gaps.
SCATTERED_SHARE = 0.6

NUM_SPECIAL = 2  # [CLS] and [SEP] of each piece


@dataclass(frozen=True, kw_only=True)
class PackingSettings(Settings):
    """The longest sequence, and the size of a bin.

    Raises:
        SettingsError: A sequence has no room for a token, or a bin none for a sequence.
    """

    max_seqlen: Annotated[
        int,
        Ge(3),
        Doc("The longest sequence in tokens, with [CLS] and [SEP]; longer documents are cut."),
    ] = 1024
    bin_tokens: Annotated[int, Doc("The capacity of a bin in tokens.")] = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bin_tokens < self.max_seqlen:
            raise SettingsError(
                f"bin_tokens: got {self.bin_tokens}, expected at least max_seqlen, "
                f"{self.max_seqlen}"
            )


class Stretch(NamedTuple):
    """A piece of a document: the tokens `start` to `stop` of a shard."""

    shard: Shard
    start: int
    stop: int


@dataclass(frozen=True)
class Bin:
    """Sequences that are processed together; the tokens are read on demand.

    Attributes:
        id: The position of the bin in its stream.
        spans: The pieces of documents, longest first, so that equal lengths are neighbours.
    """

    id: int
    spans: tuple[Stretch, ...]
    special_token_ids: SpecialTokens

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences, [CLS] and [SEP] included."""
        return int(self.lengths.sum())

    @cached_property
    def lengths(self) -> np.ndarray:
        """(num_sequences,) int64. Length of each sequence, [CLS] and [SEP] included."""
        pieces = [span.stop - span.start for span in self.spans]
        return np.array(pieces, dtype=np.int64) + NUM_SPECIAL

    def read(self) -> np.ndarray:
        """(num_tokens,) int64. The ids of all sequences, one after another.

        Raises:
            ShardError: A shard's bytes are not those that were written.
        """
        token_ids = np.empty(self.num_tokens, dtype=np.int64)
        first = 0
        for shard, start, stop in self.spans:
            last = first + 1 + stop - start
            token_ids[first] = self.special_token_ids.cls
            token_ids[first + 1 : last] = shard.tokens[start:stop]
            token_ids[last] = self.special_token_ids.sep
            first = last + 1
        return token_ids

    @property
    def sequences(self) -> list[np.ndarray]:
        """Read each sequence's (length,) int64 ids."""
        return np.split(self.read(), self.lengths.cumsum()[:-1])


def split_documents(documents: Documents, max_seqlen: int) -> Documents:
    """Cut documents into pieces that with [CLS] and [SEP] are at most `max_seqlen` long.

    A document of 2,100 tokens becomes pieces of 1,022, 1,022 and 56 at 1,024.
    """
    longest = max_seqlen - NUM_SPECIAL
    num_pieces = -(-documents.lengths // longest)
    parents = np.repeat(np.arange(len(documents)), num_pieces)
    firsts = num_pieces.cumsum() - num_pieces
    starts = documents.starts[parents] + longest * (np.arange(len(parents)) - firsts[parents])
    stops = np.minimum(starts + longest, documents.stops[parents])
    return Documents(documents.shard_ids[parents], starts, stops)


def best_fit_decreasing(
    lengths: np.ndarray, room: Sequence[int], capacity: int
) -> tuple[np.ndarray, int]:
    """Put items, longest first, each into the fullest bin that has room for it, or into a new one.

    >>> best_fit_decreasing(np.array([6, 5, 4, 3, 2]), [5], 10)
    (array([1, 0, 1, 2, 2]), 3)

    No search is needed, because lengths only fall. Bins with room for the current length are on a
    stack, the fullest on top. A bin that gets an item has less room than all others, so it goes
    back on top, or to the closed bins if it has too little room. When the length falls, the closed
    bins that have room again have less of it than those on the stack. Equal items are put in
    together.

    Args:
        lengths: (num_items,) int64, not ascending, each from 1 to `capacity`.
        room: The free space of each existing bin, from 0 to `capacity`.
        capacity: The capacity of a bin, in tokens.

    Returns:
        (num_items,) int64, the bin of each item, and the number of bins.
    """
    room = list(room)
    closed: dict[int, list[int]] = {}  # bins by their room, all below the present length
    for index, size in enumerate(room):
        closed.setdefault(size, []).append(index)
    fitting: list[int] = []
    runs: list[tuple[int, int]] = []  # bin, number of items
    previous = capacity + 1
    for length, count in _run_lengths(lengths):
        for size in range(previous - 1, length - 1, -1):
            fitting.extend(closed.pop(size, ()))
        previous = length
        while count:
            if fitting:
                target = fitting.pop()
            else:
                target = len(room)
                room.append(capacity)
            num_items = min(count, room[target] // length)
            room[target] -= num_items * length
            count -= num_items
            runs.append((target, num_items))
            if room[target] >= length:
                fitting.append(target)
            else:
                closed.setdefault(room[target], []).append(target)
    bins, repeats = np.array(runs, dtype=np.int64).reshape(-1, 2).T
    return np.repeat(bins, repeats), len(room)


def _run_lengths(row: np.ndarray) -> Iterator[tuple[int, int]]:
    """Return the distinct values of a sorted row of positive numbers, and their counts."""
    starts = np.flatnonzero(np.diff(row, prepend=0))
    counts = np.diff(starts, append=len(row))
    return zip(row[starts].tolist(), counts.tolist(), strict=True)


@dataclass(frozen=True)
class PackedPieces:
    """The bins of one block: bin i holds `pieces` borders[i] to borders[i + 1].

    Attributes:
        borders: (num_bins + 1,) int64.
    """

    pieces: Documents
    borders: np.ndarray

    @property
    def num_bins(self) -> int:
        """The number of bins, none of them empty."""
        return len(self.borders) - 1

    def spans(self, index: int, shards: Sequence[Shard]) -> tuple[Stretch, ...]:
        """Return the pieces of one bin; `shards` are those that their `shard_ids` index."""
        chosen = self.pieces[np.arange(self.borders[index], self.borders[index + 1])]
        rows = np.stack([chosen.shard_ids, chosen.starts, chosen.stops], axis=1).tolist()
        return tuple(Stretch(shards[shard_id], start, stop) for shard_id, start, stop in rows)


def pack(pieces: Documents, bin_tokens: int, *, seed: int, block: int) -> PackedPieces:
    """Pack pieces into bins; choices between equal bins, and the order of the bins, are random."""
    pieces = pieces[permutation(len(pieces), seed=seed, purpose=Purpose.PIECES, key=(block,))]
    lengths = pieces.lengths + NUM_SPECIAL
    scattered, room = _scatter(lengths, bin_tokens)
    num_scattered = len(scattered)
    falling = num_scattered + (-lengths[num_scattered:]).argsort(kind="stable")
    fitted, num_bins = best_fit_decreasing(lengths[falling], room, bin_tokens)
    bins = np.empty(len(pieces), dtype=np.int64)
    bins[:num_scattered], bins[falling] = scattered, fitted
    bins = permutation(num_bins, seed=seed, purpose=Purpose.BINS, key=(block,))[bins]
    borders = np.bincount(bins, minlength=num_bins).cumsum()
    return PackedPieces(pieces[np.lexsort((-lengths, bins))], np.append(0, borders))


def _scatter(lengths: np.ndarray, bin_tokens: int) -> tuple[np.ndarray, list[int]]:
    """Put the first items, in their order, into the least number of bins that could hold all items.

    Returns (num_scattered,) int64, the bin of each of these, and the free space of each bin.
    """
    num_bins = -(-int(lengths.sum()) // bin_tokens)
    each = int(SCATTERED_SHARE * (bin_tokens - lengths.max(initial=0)))
    starts = lengths.cumsum() - lengths
    num_scattered = int(starts.searchsorted(each * num_bins))
    bins = starts[:num_scattered] // max(each, 1)
    used = np.zeros(num_bins, dtype=np.int64)
    np.add.at(used, bins, lengths[:num_scattered])
    return bins, (bin_tokens - used).tolist()


class BinStream:
    """The endless stream of a run's bins; any position is reached at once.

    Args:
        sources: Shard folders and their weights, which are shares of tokens.
        settings: How to pack.
        seed: Decides the order of everything.

    Raises:
        SettingsError: There is no source, a weight is not positive, or the seed is not from 0 to
            2^64 - 1.
        ShardError: A source is empty, or the sources have different tokenizers.
    """

    def __init__(
        self,
        sources: Sequence[tuple[ShardFolder, float]],
        settings: PackingSettings,
        *,
        seed: int,
    ) -> None:
        self._mixture = Mixture(
            sources,
            seed=seed,
            wanted_block_tokens=WANTED_BLOCK_BINS * settings.bin_tokens,
            least_block_tokens=LEAST_BLOCK_BINS * settings.bin_tokens,
        )
        self._settings = settings
        self._seed = seed
        self.special_token_ids = sources[0][0].special_token_ids
        self.vocab_size = sources[0][0].vocab_size
        self._packed = lru_cache(maxsize=2)(self._pack)

    def take(self, position: int, num_bins: int) -> tuple[list[Bin], int]:
        """Return the next `num_bins` bins from a position, and the position after them.

        A stream begins at position 0. Only offsets are read from the shards.

        Raises:
            InputError: The position does not belong to this stream.
            ShardError: The offsets are not those that were written.
        """
        if position < 0 or num_bins < 0:
            raise InputError(f"got position {position} and {num_bins} bins, expected 0 or more")
        bins: list[Bin] = []
        block, index = divmod(position, MAX_BLOCK_BINS)
        while len(bins) < num_bins:
            packed = self._packed(block)
            if index and index >= packed.num_bins:
                raise InputError(
                    f"position {position}: its block has only {packed.num_bins} bins; "
                    "it belongs to other data or other settings"
                )
            stop = min(packed.num_bins, index + num_bins - len(bins))
            bins += [self._bin(packed, block, each) for each in range(index, stop)]
            block, index = (block, stop) if stop < packed.num_bins else (block + 1, 0)
        return bins, block * MAX_BLOCK_BINS + index

    def epochs(self, position: int) -> tuple[float, ...]:
        """Return how many times each source has been read, up to the block of a position."""
        return self._mixture.epochs(position // MAX_BLOCK_BINS)

    def _bin(self, packed: PackedPieces, block: int, index: int) -> Bin:
        spans = packed.spans(index, self._mixture.shards)
        return Bin(block * MAX_BLOCK_BINS + index, spans, self.special_token_ids)

    def _pack(self, block: int) -> PackedPieces:
        pieces = split_documents(self._mixture.documents(block), self._settings.max_seqlen)
        packed = pack(pieces, self._settings.bin_tokens, seed=self._seed, block=block)
        if packed.num_bins > MAX_BLOCK_BINS:
            raise ShardError(
                f"a block of the data makes {packed.num_bins} bins, expected at most "
                f"{MAX_BLOCK_BINS}; raise bin_tokens or cut the longest documents"
            )
        return packed
