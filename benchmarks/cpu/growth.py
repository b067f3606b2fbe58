"""Claim: the cost of a token grows slowly with the length of its text.

    python -m benchmarks.cpu.growth

One sequence of each length from 128 to 32,768 tokens, a pass each; above 8,192 ours alone.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from benchmarks import command, peers, results
from benchmarks.engines import Engine
from benchmarks.models import Model
from benchmarks.timing import interleave
from benchmarks.workloads import token_ids

LENGTHS = (128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768)
NAMES = ("ours float32", "ours bfloat16", "transformers float32", "transformers bfloat16")
_LONGEST_OF_PEERS = 8_192


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = command.parser(__doc__ or "", rounds=3, seconds=240)
    made.add_argument("--peers", default=",".join(NAMES), help="names of engines, by commas")
    made.add_argument("--longest", type=int, default=LENGTHS[-1], help="tokens, at most")
    command.add_model(made, layers=5)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write."""
    options = parser().parse_args(arguments)
    command.use_threads(options)
    around = results.surroundings(num_threads=options.threads)
    model = command.model_of(options)
    result = {
        "benchmark": "growth",
        **around,
        "model": model.description,
        "seconds": _measure(model, options),
    }
    results.write(options.out or results.on_this_cpu("growth"), result)
    _tell(result)
    return 0


def _measure(model: Model, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """{name: {length: seconds}}; the time that is left is divided among the lengths."""
    engines = {name: peers.build(name, model, options.threads) for name in options.peers.split(",")}
    lengths = [length for length in LENGTHS if length <= options.longest]
    found: dict[str, dict[str, float]] = {name: {} for name in engines}
    for engine in engines.values():
        engine.encode(token_ids([lengths[0]]), None)
    for length in lengths:
        turns = _turns(engines, length)
        seconds = interleave(
            turns,
            rounds=options.rounds,
            budget_seconds=options.seconds / len(lengths),
            min_turn_seconds=0.1,
            clock=command.clock(options),
        )
        for name, times in seconds.items():
            found[name][str(length)] = median(times)
    return found


def _turns(engines: Mapping[str, Engine], length: int) -> dict[str, Callable[[], object]]:
    sequences = token_ids([length])
    return {
        name: partial(engine.encode, sequences, None)
        for name, engine in engines.items()
        if length <= _LONGEST_OF_PEERS or name.startswith("ours")
    }


def _tell(result: Mapping[str, Any]) -> None:
    print(f"milliseconds a thousand tokens; {result['model']}")
    for name, times in result["seconds"].items():
        line = "  ".join(f"{n}: {1e6 * each / int(n):.0f}" for n, each in times.items())
        print(f"  {name:24s} {line}")


if __name__ == "__main__":
    sys.exit(main())
