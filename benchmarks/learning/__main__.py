"""Claim: nobody learns more from so many tokens than the record, from the same first weights.

    python -m benchmarks.learning --names adamw-1k,paper --tokens 400000 --seeds 3
    python -m benchmarks.learning --names my-recipe.toml --tokens 1000000
    python -m benchmarks.learning --names transformers-blocks@1e-3 --tokens 400000
    python -m benchmarks.learning --table           # the result, its curves and a table

Candidates are tables of `candidates.toml`, recipe files, or peers with a rate: transformers'
Trainer on padded rows (`transformers-padded@RATE`) and in blocks (`transformers-blocks@RATE`), with
2,048 tokens a step or as many as follow (`transformers-blocks@1e-3@1024`).
Everyone trains from one first model on one text, in a process of its own, one after another, and is
scored on the same held-out batches. The command can be stopped; the same one goes on with the runs
that are missing. The text is that of the Python installation, or with `--documents` any other.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import results
from benchmarks.learning.run import SCORES_FILE, run_folder
from benchmarks.learning.standings import (
    FOLDER,
    RESULT_FILE,
    read_result,
    read_runs,
    report,
    write_result,
)
from benchmarks.models import CACHE
from benchmarks.python_text import Text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--names", default="adamw-1k", help="candidates, by commas")
    made.add_argument("--tokens", type=int, default=400_000, help="the budget")
    made.add_argument("--seeds", type=int, default=1, help="runs of each candidate")
    made.add_argument("--first-seed", type=int, default=0)
    made.add_argument("--minutes", type=float, default=60, help="no run begins after these")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--runs", type=Path, default=CACHE / "learning" / "runs")
    made.add_argument("--text", type=Path, default=CACHE / "text", help="folder of the text")
    made.add_argument("--documents", type=Path, nargs="+", help="of another text, once")
    made.add_argument("--out", type=Path, default=FOLDER / RESULT_FILE)
    made.add_argument("--table", action="store_true", help="write the result of all runs and stop")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the missing runs, or write what came out of all; the number of runs that failed."""
    options = parser().parse_args(arguments)
    if options.table:
        around = results.surroundings(num_threads=options.threads)
        write_result(read_runs(options.runs), options.out, around)
        print(report(*read_result(options.out)))
        return 0
    if not Text(options.text).first_model.exists():  # made last
        Text.prepare(options.text, options.documents)
    return sum(_run(options, name, seed) for seed, name in _missing(options))


def _missing(options: argparse.Namespace) -> Sequence[tuple[int, str]]:
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    wanted = [(seed, name) for seed in seeds for name in options.names.split(",")]
    return [
        (seed, name)
        for seed, name in wanted
        if not (run_folder(options.runs, options.tokens, name, seed) / SCORES_FILE).exists()
    ]


_BEGUN = time.monotonic()


def _run(options: argparse.Namespace, name: str, seed: int) -> bool:
    """One run, if there is still time; whether it failed."""
    if time.monotonic() - _BEGUN > 60 * options.minutes:
        return False
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.learning.run", name]
    places = ["--text", str(options.text), "--runs", str(options.runs)]
    numbers = ["--tokens", str(options.tokens), "--seed", str(seed)]
    ended = subprocess.run([*command, *numbers, *places, "--threads", str(options.threads)])
    print(f"{name}, seed {seed}: {'failed' if ended.returncode else 'done'}", flush=True)
    return ended.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
