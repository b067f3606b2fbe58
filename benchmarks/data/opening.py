"""Claim: opening a run at its billionth token takes under a second.

    python -m benchmarks.data.opening

A process of its own for each round opens the shards, goes to the place, and makes the first batch.
The shards hold random tokens; their pages are in the memory of the system if they fit there. The
time includes hashing the files that the batch is from, but no imports.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import results
from benchmarks.command import parser
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if it takes longer."""
    made = parser(__doc__ or "", rounds=5)
    made.add_argument(
        "--tokens", type=int, default=PLACE_TOKENS + 200_000_000, help="of the shards"
    )
    made.add_argument("--place", type=int, default=PLACE_TOKENS, help="the token to begin at")
    made.add_argument("--once", action="store_true", help="measure once, here, and print")
    options = made.parse_args(arguments)
    folder = options.cache / f"web-{options.tokens}"
    if options.once:
        print(json.dumps(seconds_to_first_batch(folder, options.place)))
        return 0
    web_shards(folder, options.tokens)
    command = [sys.executable, "-m", "benchmarks.data.opening", "--once"]
    command += ["--cache", str(options.cache), "--tokens", str(options.tokens)]
    command += ["--place", str(options.place)]
    rounds = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(options.rounds)
    ]
    result = {
        "benchmark": "opening",
        **results.surroundings(num_threads=options.threads),
        "shard_tokens": options.tokens,
        "place_tokens": options.place,
        "rounds": rounds,
        "seconds": {name: median(each[name] for each in rounds) for name in rounds[0]},
    }
    results.write(options.out or results.FOLDER / "data" / "opening.json", result)
    for name, seconds in result["seconds"].items():
        print(f"{name.replace('_', ' '):12s} after {seconds:.3f} s")
    return int(result["seconds"]["first_batch"] > WANTED_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
