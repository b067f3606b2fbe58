"""Shards to read from: random tokens in documents with the lengths of web text."""

from pathlib import Path

import numpy as np

from modernbert.data.shards import ShardFolder, ShardWriter, SpecialTokens

VOCAB_SIZE = 50_368
SPECIAL = SpecialTokens(cls=50_281, sep=50_282, pad=50_283, mask=50_284, unk=50_280)
_MEDIAN_TOKENS, _SIGMA, _LONGEST_TOKENS = 400, 1.1, 100_000
_DRAWN_TOKENS = 1 << 24


def web_shards(folder: Path, num_tokens: int, *, shard_tokens: int = 250_000_000) -> ShardFolder:
    """A folder of about so many tokens; made once, then read."""
    if (folder / "manifest.json").exists():
        return ShardFolder.open(folder)
    generator = np.random.default_rng(0)
    tokens = generator.integers(1_000, 50_000, _DRAWN_TOKENS, dtype=np.uint16)
    writer = ShardWriter(
        folder,
        vocab_size=VOCAB_SIZE,
        special_token_ids=SPECIAL,
        tokenizer_fingerprint="random",
        shard_tokens=shard_tokens,
    )
    with writer:
        while writer.num_tokens < num_tokens:
            length = int(generator.lognormal(np.log(_MEDIAN_TOKENS), _SIGMA))
            length = min(max(length, 8), _LONGEST_TOKENS)
            start = int(generator.integers(0, len(tokens) - length))
            writer.add(tokens[start : start + length])
    return ShardFolder.open(folder)
