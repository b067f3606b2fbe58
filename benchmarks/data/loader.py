"""Claim: the loader keeps ahead of training by ten times, and opens a run anywhere within a second.

    python -m benchmarks.data.loader

- The loader works in one thread, with everything that it does: mixture, packing, masking, joining,
  and reading from the mapped shards. In turn with it are training steps of the sizes with all
  threads: forward and backward of the loss of the loader's own batches. Between two rounds the
  place in the data moves on, over borders of blocks too.
- A run at its billionth token opens the shards, goes to the place and makes the first batch, which
  includes hashing the files that the batch is from.

The shards hold random tokens; their pages are in the memory of the system if they fit there.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import command, results
from benchmarks.data.shards import web_shards
from benchmarks.masked_step import masked_batch, masked_step
from benchmarks.timing import interleave
from modernbert.data.collate import MaskedBatch, collate
from modernbert.data.packing import MAX_BLOCK_BINS, BinStream, PackingSettings
from modernbert.data.shards import ShardFolder
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.training.computation import compute_dtype

WANTED_TIMES, WANTED_SECONDS = 10.0, 1.0
PLACE_TOKENS = 1_000_000_000
_RATE = 0.3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if something is not fast enough."""
    options = command.parser(
        __doc__,
        rounds=3,
        sizes=("tiny,32m,base", "by commas"),
        tokens=(PLACE_TOKENS + 200_000_000, "of the shards"),
        place=(PLACE_TOKENS, "the token to begin at"),
        batches=(400, "of the loader in a round"),
        bin_tokens=(8192, "of a batch"),
    ).parse_args(arguments)
    result = command.measured("loader", measure, options, results.FOLDER / "data" / "loader.json")
    print(f"loader: {median(result['loader_tokens_per_second']):,.0f} tokens/s in one thread")
    for size, each in result["sizes"].items():
        speed = median(each["training_tokens_per_second"])
        print(f"  {size:5s} {speed:10,.0f} tokens/s of training: {each['times']:.0f} times")
    for name, seconds in result["opening_seconds"].items():
        print(f"{name.replace('_', ' '):12s} after {seconds:.3f} s")
    times = min(each["times"] for each in result["sizes"].values())
    is_slow = result["opening_seconds"]["first_batch"] > WANTED_SECONDS
    return int(times < WANTED_TIMES or is_slow)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """How fast a run opens, and the loader's speed beside that of training each size."""
    place = options.cache / f"web-{options.tokens}"
    folder = web_shards(place, options.tokens)
    opened = [seconds_to_first_batch(place, options.place) for _ in range(options.rounds)]
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
        "place_tokens": options.place,
        "opening_seconds": {name: median(each[name] for each in opened) for name in opened[0]},
        "loader_tokens_per_second": loading,
        "sizes": {
            size: {"training_tokens_per_second": speeds, "times": median(loading) / median(speeds)}
            for size, speeds in training.items()
        },
    }


def batches(stream: BinStream, position: int = 0) -> Iterator[MaskedBatch]:
    """Micro-batches of one bin, without end."""
    while True:
        bins, position = stream.take(position, 1)
        yield collate(bins, vocab_size=stream.vocab_size, rate=_RATE, seed=0)


def seconds_to_first_batch(folder: Path, place_tokens: int) -> dict[str, float]:
    """Open, go there, make a batch; the seconds until each is done."""
    began = time.perf_counter()
    shards = ShardFolder.open(folder)
    stream = BinStream([(shards, 1.0)], PackingSettings(), seed=0)
    opened = time.perf_counter() - began
    block = int(place_tokens / (stream.epochs(MAX_BLOCK_BINS)[0] * shards.num_tokens))
    bins, _ = stream.take(block * MAX_BLOCK_BINS, 1)
    found = time.perf_counter() - began
    collate(bins, vocab_size=shards.vocab_size, rate=_RATE, seed=0)
    return {"opened": opened, "found": found, "first_batch": time.perf_counter() - began}


if __name__ == "__main__":
    sys.exit(main())
