"""What is encoded: lists of lengths as they come in practice, and token ids of these lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

# Ids that every vocabulary here has, BERT's of 30,522 entries too, and none of them special.
_LOWEST_ID, _HIGHEST_ID = 1_000, 30_000
_SEED = 20_261_124


@dataclass(frozen=True)
class Workload:
    """Lengths in tokens, and how a peer that pads may batch them.

    batching: `best` lets each peer take the batch size that it is fastest with, after sorting by
        length; `one` gives all sequences in one padded batch, as a server without sorting does.
    """

    name: str
    description: str
    lengths: tuple[int, ...]
    batching: Literal["best", "one"] = "best"

    @property
    def total_tokens(self) -> int:
        """Real tokens, of all sequences together."""
        return sum(self.lengths)

    def first(self, number: int | None) -> "Workload":
        """The same with its first sequences only, for a quick look; with all of them for None."""
        if number is None or number >= len(self.lengths):
            return self
        description = f"{self.description}, the first {number}"
        return replace(self, lengths=self.lengths[:number], description=description)

    @property
    def is_long(self) -> bool:
        """Whether a pass takes so long that each is dear."""
        return max(self.lengths) > 2_048

    def batch_sizes(self) -> tuple[int | None, ...]:
        """What a peer that pads may choose from; None is everything at once, unsorted."""
        if self.batching == "one" or len(self.lengths) == 1:
            return (None,)
        if self.is_long:
            return (1,)
        return tuple(size for size in (1, 4, 16) if size <= len(self.lengths))


def token_ids(lengths: Sequence[int], *, seed: int = 0) -> list[list[int]]:
    """Random ids of the given lengths."""
    generator = np.random.default_rng(seed)
    return [generator.integers(_LOWEST_ID, _HIGHEST_ID, length).tolist() for length in lengths]


def _normal(mean: float, deviation: float, longest: int, count: int) -> tuple[int, ...]:
    """Lengths of N(mean, deviation) within 16 to `longest`, as in the paper (P section 4)."""
    drawn = np.random.default_rng(_SEED).normal(mean, deviation, count)
    return tuple(int(length) for length in drawn.round().clip(16, longest))


def _lognormal(median: float, sigma: float, longest: int, count: int) -> tuple[int, ...]:
    drawn = np.random.default_rng(_SEED).lognormal(np.log(median), sigma, count)
    return tuple(int(length) for length in drawn.round().clip(8, longest))


def _uniform(low: int, high: int, count: int) -> tuple[int, ...]:
    drawn = np.random.default_rng(_SEED).integers(low, high + 1, count)
    return tuple(int(length) for length in drawn)


_WORKLOADS = (
    Workload("512-fixed", "8 sequences of 512 tokens", (512,) * 8),
    Workload("8192-fixed", "one sequence of 8,192 tokens", (8_192,)),
    *(Workload(f"request-{n}", f"one request of {n} tokens", (n,)) for n in (8, 32, 128, 512)),
    Workload("512-ragged", "16 lengths of N(256, 64) within 16 to 512", _normal(256, 64, 512, 16)),
    Workload(
        "8192-ragged",
        "2 lengths of N(4096, 1024) within 16 to 8,192",
        _normal(4_096, 1_024, 8_192, 2),
    ),
    Workload(
        "web",
        "24 lognormal lengths of median 120 within 8 to 1,024",
        _lognormal(120, 1.0, 1_024, 24),
    ),
    Workload(
        "uniform-padded",
        "16 uniform lengths from 16 to 512 in one padded batch",
        _uniform(16, 512, 16),
        batching="one",
    ),
    Workload(
        "8192-padded",
        "8,192 + 3,000 + 1,200 + 500 tokens in one padded batch",
        (8_192, 3_000, 1_200, 500),
        batching="one",
    ),
)
WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in _WORKLOADS}
