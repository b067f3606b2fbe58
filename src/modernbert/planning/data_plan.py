"""The data of a training: what must be collected, tokenised and stored."""

import math
from dataclasses import dataclass

from modernbert.data.prepare_settings import DEFAULT_SHARD_TOKENS
from modernbert.data.shard_manifest import token_dtype
from modernbert.errors import InputError
from modernbert.planning.lengths import DocumentLengths

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
    """Work out what a corpus takes.

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
