"""Count what is lost or wrong after kills, flipped bits, crafted folders and hostile corpora.

    python -m benchmarks.reliability                      # all of it
    python -m benchmarks.reliability --only flips corpora
    python -m benchmarks.reliability --verbs embed --places 1000

Everything is made from nothing in a temporary folder, and no network is used. Ends with exit code 1
where anything was lost, not found, or ended in a traceback.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULT = Path("benchmarks/results/reliability.json")
_SHORT_VALUES = (None, 5, -1, 10**30, "x", [], [5], {"x": 5})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--only", nargs="+", choices=("kills", "flips", "crafted", "corpora"))
    made.add_argument("--verbs", nargs="+", default=[], help="of the kills; parts of their names")
    made.add_argument("--places", type=int, default=20, help="the most places of a verb")
    made.add_argument("--random", type=int, default=3, help="kills of a verb at random times")
    made.add_argument("--flips", type=int, default=1, help="bits that are flipped in each file")
    made.add_argument("--all-values", action="store_true", help="put 23 values into each place")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--output", type=Path, default=RESULT)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; 0 where nothing was lost."""
    # Children are forked, so nothing here may begin threads that they would miss.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    from benchmarks import results
    from benchmarks.reliability.samples import write_samples

    torch.set_num_threads(1)
    options = parser().parse_args(arguments)
    result: dict[str, Any] = {**results.surroundings(num_threads=1), "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        (home / "samples").mkdir()
        samples = write_samples(home / "samples")
        for name, part in _parts(options, samples, home).items():
            if options.only and name not in options.only:
                continue
            began = time.monotonic()
            outcome = part()
            seconds = round(time.monotonic() - began, 1)
            result["parts"][name] = {**outcome, "seconds": seconds}
            _tell(name, outcome, seconds)
    results.write(options.output, result)
    return int(any(part["faults"] for part in result["parts"].values()))


def _parts(
    options: argparse.Namespace, samples: dict[str, Path], home: Path
) -> dict[str, Callable[[], dict[str, Any]]]:
    from benchmarks.reliability import corpora, crafted, flips

    values = crafted.VALUES if options.all_values else _SHORT_VALUES
    return {
        "flips": lambda: vars(flips.run(samples, flips_each=options.flips, seed=options.seed)),
        "corpora": lambda: vars(corpora.run(samples, home / "corpora")),
        "kills": lambda: _kills(options, samples, home / "kills" / "trial"),
        "crafted": lambda: vars(crafted.run(samples, values)),
    }


def _kills(options: argparse.Namespace, samples: dict[str, Path], home: Path) -> dict[str, Any]:
    from benchmarks.reliability import kills, verbs

    total: dict[str, Any] = {"kills": 0, "verbs": {}, "faults": []}
    for verb in verbs.all_verbs(samples):
        if options.verbs and not any(part in verb.name for part in options.verbs):
            continue
        outcome = kills.run_verb(
            verb,
            home,
            most_places=options.places,
            random_kills=options.random,
            seed=options.seed,
        )
        counts = {name: value for name, value in vars(outcome).items() if name != "faults"}
        total["verbs"][verb.name] = counts
        total["kills"] += outcome.chosen + outcome.random
        total["faults"] += outcome.faults
        _tell(f"  {verb.name}", vars(outcome), None)
    return total


def _tell(name: str, outcome: dict[str, Any], seconds: float | None) -> None:
    counts = ", ".join(f"{value} {key}" for key, value in outcome.items() if isinstance(value, int))
    took = "" if seconds is None else f"  ({seconds:.0f} s)"
    print(f"{name}: {counts}, {len(outcome['faults'])} faults{took}", flush=True)
    for fault in outcome["faults"]:
        print(f"    {fault}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
