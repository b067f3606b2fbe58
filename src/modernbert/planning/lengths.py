"""The lengths of documents, and the data that a training on such documents needs.

The cost of attention depends on them: that of a global layer grows with the length of the sequence,
which is at most the length of its document.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np

from modernbert.data.packing import NUM_SPECIAL
from modernbert.data.settings import DEFAULT_SHARD_TOKENS
from modernbert.data.shard_files import token_dtype
from modernbert.errors import InputError

# Assumed wherever lengths are lognormal: with it about a third of a web corpus's tokens stand in
# documents above 4,096 tokens.
SIGMA = 1.2

_POINTS = 1201
_LOWEST_DEVIATIONS, _HIGHEST_DEVIATIONS = -5.0, 7.0


class Pieces(NamedTuple):
    """The sequences that packing makes of documents.

    Attributes:
        lengths: (n,) int64 ascending, [CLS] and [SEP] included.
        shares: (n,) float64 that sum to 1. The fraction of all tokens in pieces of each length.
    """

    lengths: np.ndarray
    shares: np.ndarray

    @property
    def content_share(self) -> float:
        """The fraction of the tokens that come from documents, and are not [CLS] or [SEP]."""
        return float((self.shares * (self.lengths - NUM_SPECIAL) / self.lengths).sum())

    def sample(self, num_tokens: int) -> tuple[int, ...]:
        """Choose a few sequences with the lengths in which most tokens are.

        A long sequence is rare and holds many tokens, so that a fair draw of a few sequences would
        often hold none; the lengths are therefore quantiles over the tokens.

        Args:
            num_tokens: How many tokens the sequences have together, roughly.

        Returns:
            Ascending lengths, always the same; at least one.

        >>> Pieces(np.array([10, 100]), np.array([0.5, 0.5])).sample(220)
        (10, 10, 100, 100)
        """
        chosen = self._quantiles(1)
        while sum(more := self._quantiles(len(chosen) + 1)) <= num_tokens:
            chosen = more
        return chosen

    def _quantiles(self, number: int) -> tuple[int, ...]:
        """Return lengths that each represent the same number of tokens."""
        places = np.searchsorted(self.shares.cumsum(), (np.arange(number) + 0.5) / number)
        return tuple(self.lengths[places.clip(max=len(self.lengths) - 1)].tolist())


@dataclass(frozen=True, eq=False)
class DocumentLengths:
    """Lengths of documents in tokens, without special tokens.

    Attributes:
        lengths: (n,) int64, each 1 or more.
        shares: (n,) float64 that sum to 1. The fraction of the documents of each length.
        source: Where they come from, in a few words.
    """

    lengths: np.ndarray
    shares: np.ndarray
    source: str

    @classmethod
    def lognormal(cls, mean: float, sigma: float = SIGMA, *, source: str) -> Self:
        """Make lengths whose logarithms are normally distributed.

        Args:
            mean: The mean length in tokens.
            sigma: The standard deviation of the natural logarithm.
            source: Where the numbers come from.

        Raises:
            InputError: The mean is below 1, or sigma below 0.
        """
        if not 1 <= mean < math.inf or not 0 <= sigma < math.inf:
            raise InputError(
                f"document lengths: got a mean of {mean} tokens and a sigma of {sigma}, expected "
                "1 or more and 0 or more"
            )
        deviations = np.linspace(_LOWEST_DEVIATIONS, _HIGHEST_DEVIATIONS, _POINTS)
        densities = np.exp(-(deviations**2) / 2)
        lengths = np.exp(math.log(mean) - sigma**2 / 2 + sigma * deviations)
        return cls(np.maximum(1, lengths.round()).astype(np.int64), _normed(densities), source)

    @classmethod
    def measured(cls, lengths: np.ndarray, *, source: str) -> Self:
        """Take the lengths of given documents.

        Args:
            lengths: (num_documents,) whole numbers.
            source: Where they come from.

        Raises:
            InputError: There is no document.
        """
        if not len(lengths):
            raise InputError(f"{source}: has no documents")
        values, counts = np.unique(lengths.astype(np.int64), return_counts=True)
        return cls(values, _normed(counts), source)

    @classmethod
    def mixed(cls, parts: Sequence[Self], weights: Sequence[float], *, source: str) -> Self:
        """Mix several distributions; the weights are shares of the tokens, as in a recipe."""
        rates = [weight / part.mean for part, weight in zip(parts, weights, strict=True)]
        shares = [rate * part.shares for part, rate in zip(parts, rates, strict=True)]
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(lengths, _normed(np.concatenate(shares)), source)

    @property
    def mean(self) -> float:
        return float((self.lengths * self.shares).sum())

    def share_of_tokens_above(self, length: int) -> float:
        """Return the fraction of the tokens that are in longer documents than this."""
        tokens = self.lengths * self.shares
        return float(tokens[self.lengths > length].sum() / tokens.sum())

    @lru_cache(maxsize=16)  # noqa: B019 - few, and as long-lived as a plan
    def pieces(self, max_seqlen: int) -> Pieces:
        """Cut documents as `data.packing` does: into full pieces and a rest."""
        longest = max_seqlen - NUM_SPECIAL
        num_full, rests = np.divmod(self.lengths, longest)
        lengths = np.where(rests > 0, rests + NUM_SPECIAL, 0)
        every = np.append(lengths, max_seqlen)
        tokens = np.append(lengths * self.shares, (num_full * self.shares).sum() * max_seqlen)
        values, places = np.unique(every, return_inverse=True)
        shares = _normed(np.bincount(places, weights=tokens))
        present = shares > 0
        return Pieces(values[present], shares[present])


def _normed(weights: np.ndarray) -> np.ndarray:
    """Return weights as fractions of their sum."""
    fractions: np.ndarray = weights / weights.sum()
    return fractions


# DCLM-baseline, the web part of the open mixture that Ettin used (arXiv 2507.11412), says of
# itself that it has 4T tokens in 3B documents. That the lengths are lognormal is an assumption.
WEB = DocumentLengths.lognormal(1_300, source=f"web-like: lognormal, mean 1,300, sigma {SIGMA}")

# The same after long documents were sampled more often: Fu et al. (arXiv 2402.10171) bring the
# tokens in documents above 4,096 from about 30% to about 70%, as this does.
LONG = DocumentLengths.lognormal(
    3_800, source=f"web-like, long documents more often: lognormal, mean 3,800, sigma {SIGMA}"
)


# Measured in 2026-11 on one core of an AMD EPYC (Zen 5), other work running beside it:
# `Tokenizer.encode_batch` with ModernBERT's tokenizer on 1.3 MB of film reviews and 3.1 MB of
# books, 350,000 to 560,000 tokens a second and 4.3 to 4.4 bytes a token.
TOKENS_PER_SECOND_AND_CORE = 400_000.0
TEXT_BYTES_PER_TOKEN = 4.3

_OFFSET_BYTES = 8
# Beside its tokens, a document has a key and a length while the corpus is being shuffled.
_SPILL_BYTES = 12
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """A corpus that is seen once.

    Attributes:
        tokens: Tokens without special ones, as shards hold them.
        documents: The number of documents.
        text_bytes: Bytes of UTF-8, before any compression.
        dtype: The format of the ids in the shards.
        shards: The number of shards.
        shard_bytes: The size of all shards together.
        scratch_bytes: What is needed besides while the corpus is being shuffled.
        core_hours: Hours of one core to tokenize.
        hours: Hours of all cores together, by the clock.
    """

    tokens: int
    documents: int
    text_bytes: int
    dtype: str
    shards: int
    shard_bytes: int
    scratch_bytes: int
    core_hours: float
    hours: float


def plan_data(
    tokens: int,
    *,
    lengths: DocumentLengths,
    vocab_size: int,
    shard_tokens: int = DEFAULT_SHARD_TOKENS,
    tokens_per_second_and_core: float = TOKENS_PER_SECOND_AND_CORE,
    num_cores: int = 1,
) -> DataPlan:
    """Compute the sizes of a corpus and the time to tokenize it.

    Args:
        tokens: Its tokens, special ones not counted.
        lengths: How long its documents are.
        vocab_size: The number of entries of the tokenizer.
        shard_tokens: Tokens of a shard.
        tokens_per_second_and_core: The speed of the tokenizer.
        num_cores: The cores that tokenize.

    >>> from modernbert.planning.lengths import WEB
    >>> plan = plan_data(2_000_000_000_000, lengths=WEB, vocab_size=50_368)
    >>> plan.shards, plan.dtype, round(plan.shard_bytes / 1e12, 1)
    (8000, 'uint16', 4.0)

    Raises:
        InputError: A number is not above 0.
    """
    numbers = {
        "tokens": tokens,
        "tokens a second": tokens_per_second_and_core,
        "cores": num_cores,
    }
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise InputError(f"{name}: got {value}, expected above 0")
    documents = max(1, round(tokens / lengths.mean))
    dtype = token_dtype(vocab_size)
    token_bytes = tokens * (2 if dtype == "uint16" else 4)
    shards = -(-tokens // shard_tokens)
    core_hours = tokens / tokens_per_second_and_core / _SECONDS_PER_HOUR
    return DataPlan(
        tokens=tokens,
        documents=documents,
        text_bytes=round(tokens * TEXT_BYTES_PER_TOKEN),
        dtype=dtype,
        shards=shards,
        shard_bytes=token_bytes + _OFFSET_BYTES * (documents + shards),
        scratch_bytes=token_bytes + _SPILL_BYTES * documents,
        core_hours=core_hours,
        hours=core_hours / num_cores,
    )
