"""All runs of the recipe's claims, and what came out of them.

    python -m benchmarks.recipe --corpora FOLDER --runs FOLDER --prepare --data SHARED_DATA
    python -m benchmarks.recipe --corpora FOLDER --runs FOLDER --minutes 60
    python -m benchmarks.recipe --runs FOLDER --table          # writes benchmarks/results/recipe

Runs of different arms go side by side, one thread each: a model this small gains little from a
second thread. All can be stopped at any time and taken up by the same command.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.command import Job, bare_parser, run_missing, run_module
from benchmarks.recipe.arms import ARMS

VOCAB_SIZE = 8_192


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the number of runs that failed."""
    made = bare_parser(
        __doc__,
        corpora=(Path, "folder of the tokenizer and the shards"),
        data=(Path, "folder with books/ and reviews/, to prepare from"),
        prepare=(False, "make tokenizer and shards and stop"),
        seeds=(3, "of every arm"),
        only=(str, "names of arms, by commas"),
        minutes=(120.0, "no run begins after these"),
        side_by_side=(os.cpu_count(), "runs at once"),
        scale=(1.0, "of the tokens, for a trial"),
        table=(False, "compare what is there and stop"),
    )
    made.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    options = made.parse_args(arguments)
    if options.prepare:
        prepare(options.data, options.corpora)
        return 0
    if options.table:
        from benchmarks.recipe.comparison import write_results

        print(write_results(options.runs))
        return 0
    return run_missing(_runs(options), minutes=options.minutes, side_by_side=options.side_by_side)


def prepare(data: Path, corpora: Path) -> None:
    """A tokenizer of books and reviews, and the shards of both."""
    texts = {name: data / name for name in ("books", "reviews")}
    train = [folder / "train.jsonl.xz" for folder in texts.values()]
    tokenizer = corpora / "tokenizer"
    run_module("modernbert", "tokenizer", "train", *train, tokenizer, "--vocab-size", VOCAB_SIZE)
    for name, folder in texts.items():
        for part in ("train", "dev"):
            paths = (folder / f"{part}.jsonl.xz", corpora / "shards" / f"{name}-{part}")
            options = ("--tokenizer", tokenizer, "--held-out", "0")
            run_module("modernbert", "prepare", *paths, *options)


def _runs(options: argparse.Namespace) -> Iterator[Job]:
    """Every run, seed by seed; some need the scores of the one that they start from."""
    start = [sys.executable, "-W", "ignore", "-m", "benchmarks.recipe.training"]
    paths = ["--corpora", str(options.corpora), "--runs", str(options.runs)]

    def scores(arm: str, seed: int) -> Path:
        return Path(options.runs / arm / str(seed) / "scores.json")

    names = options.only.split(",") if options.only else [arm.name for arm in ARMS]
    for seed in range(options.seeds):
        for arm in (each for each in ARMS if each.name in names):
            yield Job(
                f"{arm.name}/{seed}",
                [*start, arm.name, str(seed), *paths, "--scale", str(options.scale)],
                scores(arm.name, seed),
                options.runs / arm.name / f"{seed}.log",
                (scores(arm.start, seed),) if arm.start else (),
            )


if __name__ == "__main__":
    sys.exit(main())
