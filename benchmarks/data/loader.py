"""Claim: the loader keeps ahead of training by at least ten times on two cores.

    python -m benchmarks.data.loader

Both are measured one after the other, in rounds: the loader in one thread, with everything that it
does (mixture, packing, masking, joining, reading from the mapped shards); and training steps of
the sizes with all threads, forward and backward of the loss of the loader's own batches. Between
two rounds the place in the data moves on, over borders of blocks too.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

from benchmarks import command, results
from benchmarks.data.shards import web_shards
from benchmarks.masked_step import masked_batch, masked_step
from benchmarks.timing import interleave
from modernbert.data.collate import MaskedBatch, collate
from modernbert.data.packing import BinStream, PackingSettings
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.training.computation import compute_dtype

WANTED = 10.0
_RATE = 0.3


def batches(stream: BinStream, position: int = 0) -> Iterator[MaskedBatch]:
    """Micro-batches of one bin, without end."""
    while True:
        bins, position = stream.take(position, 1)
        yield collate(bins, vocab_size=stream.vocab_size, rate=_RATE, seed=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if the loader is not fast enough for a size."""
    options = command.parser(
        __doc__,
        rounds=3,
        sizes=("tiny,32m,base", "by commas"),
        tokens=(40_000_000, "of the shards"),
        batches=(400, "of the loader in a round"),
        bin_tokens=(8192, "of a batch"),
    ).parse_args(arguments)
    result = command.measured("loader", measure, options, results.FOLDER / "data" / "loader.json")
    print(f"loader: {median(result['loader_tokens_per_second']):,.0f} tokens/s in one thread")
    for size, each in result["sizes"].items():
        speed = median(each["training_tokens_per_second"])
        print(f"  {size:5s} {speed:10,.0f} tokens/s of training: {each['times']:.0f} times")
    return int(min(each["times"] for each in result["sizes"].values()) < WANTED)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The loader's speed, and beside it that of each size."""
    folder = web_shards(options.cache / f"web-{options.tokens}", options.tokens)
    packing = PackingSettings(
        bin_tokens=options.bin_tokens, max_seqlen=min(1024, options.bin_tokens)
    )
    source = batches(BinStream([(folder, 1.0)], packing, seed=0))
    loaded: list[int] = []

    def load() -> None:
        loaded.append(sum(next(source).batch.total_tokens for _ in range(options.batches)))

    batch, dtype = next(source), compute_dtype("cpu", "auto")
    turns: dict[str, Callable[[], object]] = {"loader": load}
    for size in options.sizes.split(","):
        config = EncoderConfig.preset(size, vocab_size=folder.vocab_size)
        model = initialize(MaskedLanguageModel(config), seed=0)
        masked_step(model, masked_batch([128]), dtype)  # to warm up
        turns[size] = partial(masked_step, model, batch, dtype)
    seconds = interleave(turns, rounds=options.rounds, budget_seconds=math.inf)
    loading = [tokens / each for tokens, each in zip(loaded, seconds.pop("loader"), strict=True)]
    training = {
        size: [batch.batch.total_tokens / each for each in times] for size, times in seconds.items()
    }
    return {
        "batch_tokens": options.bin_tokens,
        "shard_tokens": options.tokens,
        "loader_tokens_per_second": loading,
        "sizes": {
            size: {"training_tokens_per_second": speeds, "times": median(loading) / median(speeds)}
            for size, speeds in training.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
