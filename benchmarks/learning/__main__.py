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
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import results
from benchmarks.command import Job, bare_parser, run_missing
from benchmarks.learning.run import SCORES_FILE, run_folder
from benchmarks.learning.standings import (
    FOLDER,
    RESULT_FILE,
    read_result,
    read_runs,
    report,
    write_result,
)
from benchmarks.learning.text import Text
from benchmarks.models import CACHE


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = bare_parser(
        __doc__,
        names=("adamw-1k", "candidates, by commas"),
        tokens=(400_000, "the budget"),
        seeds=(1, "runs of each candidate"),
        first_seed=(0, "of them"),
        minutes=(60.0, "no run begins after these"),
        threads=(1, "of each run"),
        runs=(CACHE / "learning" / "runs", "folder of the runs"),
        text=(CACHE / "text", "folder of the text"),
        out=(FOLDER / RESULT_FILE, "file of the result"),
        table=(False, "write the result of all runs and stop"),
    )
    made.add_argument("--documents", type=Path, nargs="+", help="of another text, once")
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
    return run_missing(_jobs(options), minutes=options.minutes)


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, seed by seed."""
    start = [sys.executable, "-W", "ignore", "-m", "benchmarks.learning.run"]
    places = ["--text", str(options.text), "--runs", str(options.runs)]
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.names.split(","):
            folder = run_folder(options.runs, options.tokens, name, seed)
            given = ["--tokens", str(options.tokens), "--seed", str(seed)]
            command = [*start, name, *given, *places, "--threads", str(options.threads)]
            yield Job(
                f"{name}, seed {seed}", command, folder / SCORES_FILE, folder.with_suffix(".log")
            )


if __name__ == "__main__":
    sys.exit(main())
