"""Shard folders that exist in memory only, for tests of what reads them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from modernbert.data.mixture import Documents
from modernbert.data.shards import ShardFolder, SpecialTokens

SPECIAL = SpecialTokens(cls=1, sep=2, pad=3, mask=4, unk=0)
FIRST_ID = 5


@dataclass(frozen=True)
class MemoryShard:
    offsets: np.ndarray = field(repr=False, compare=False)
    tokens: np.ndarray = field(repr=False, compare=False)

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class MemoryFolder:
    shards: tuple[MemoryShard, ...]
    tokenizer_fingerprint: str = "one"
    path: Path = Path("memory")
    special_token_ids: SpecialTokens = SPECIAL
    vocab_size: int = 1 << 20

    @property
    def num_documents(self) -> int:
        return sum(shard.num_documents for shard in self.shards)

    @property
    def num_tokens(self) -> int:
        return sum(shard.num_tokens for shard in self.shards)


def memory_folder(
    lengths: Sequence[Sequence[int]], *, first_id: int = FIRST_ID, fingerprint: str = "one"
) -> ShardFolder:
    """A folder of shards with documents of these lengths; no two of its tokens are the same."""
    shards = []
    for shard in lengths:
        offsets = np.cumsum([0, *shard]).astype(np.uint64)
        size = int(offsets[-1])
        shards.append(MemoryShard(offsets, np.arange(first_id, first_id + size, dtype=np.uint32)))
        first_id += size
    return cast(ShardFolder, MemoryFolder(tuple(shards), fingerprint))


def random_folder(num_tokens: int, *, seed: int = 0, first_id: int = FIRST_ID) -> ShardFolder:
    """About so many tokens in three shards, in documents of web-like lengths."""
    random = np.random.default_rng(seed)
    lengths = random.lognormal(5, 1, size=num_tokens // 200).astype(int).clip(1, 5000)
    return memory_folder([part.tolist() for part in np.array_split(lengths, 3)], first_id=first_id)


def as_rows(documents: Documents) -> list[tuple[int, int, int]]:
    """(shard, start, stop) of each."""
    rows = (documents.shard_ids, documents.starts, documents.stops)
    return list(zip(*(row.tolist() for row in rows), strict=True))
