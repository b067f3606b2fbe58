"""Claim: opening a run at its billionth token takes under a second.

    python -m benchmarks.data.opening

A process of its own for each round opens the shards, goes to the place, and makes the first batch.
The shards hold random tokens; their pages are in the memory of the system if they fit there. The
time includes hashing the files that the batch is from, but no imports.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import command, results
from benchmarks.data.shards import web_shards

WANTED_SECONDS = 1.0
PLACE_TOKENS = 1_000_000_000


def seconds_to_first_batch(folder: Path, place_tokens: int) -> dict[str, float]:
    """Open, go there, make a batch; the seconds until each is done."""
    from modernbert.data.collate import collate
    from modernbert.data.packing import MAX_BLOCK_BINS, BinStream, PackingSettings
    from modernbert.data.shards import ShardFolder

    began = time.perf_counter()
    shards = ShardFolder.open(folder)
    stream = BinStream([(shards, 1.0)], PackingSettings(), seed=0)
    opened = time.perf_counter() - began
    block_tokens = stream.epochs(MAX_BLOCK_BINS)[0] * shards.num_tokens
    block = int(place_tokens / block_tokens)
    bins, _ = stream.take(block * MAX_BLOCK_BINS, 1)
    found = time.perf_counter() - began
    collate(bins, vocab_size=shards.vocab_size, rate=0.3, seed=0)
    return {"opened": opened, "found": found, "first_batch": time.perf_counter() - began}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The seconds of every round, and their medians."""
    web_shards(options.cache / f"web-{options.tokens}", options.tokens)
    given = ["--cache", options.cache, "--tokens", options.tokens, "--place", options.place]
    rounds = [
        command.in_a_process("benchmarks.data.opening", "--once", *given)
        for _ in range(options.rounds)
    ]
    return {
        "shard_tokens": options.tokens,
        "place_tokens": options.place,
        "rounds": rounds,
        "seconds": {name: median(each[name] for each in rounds) for name in rounds[0]},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if it takes longer."""
    options = command.parser(
        __doc__,
        rounds=5,
        tokens=(PLACE_TOKENS + 200_000_000, "of the shards"),
        place=(PLACE_TOKENS, "the token to begin at"),
        once=(False, "measure once, here, and print"),
    ).parse_args(arguments)
    if options.once:
        folder = options.cache / f"web-{options.tokens}"
        print(json.dumps(seconds_to_first_batch(folder, options.place)))
        return 0
    path = results.FOLDER / "data" / "opening.json"
    seconds = command.measured("opening", measure, options, path)["seconds"]
    for name, each in seconds.items():
        print(f"{name.replace('_', ' '):12s} after {each:.3f} s")
    return int(seconds["first_batch"] > WANTED_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
