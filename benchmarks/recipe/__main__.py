"""All runs of the recipe's claims, and what came out of them.

    python -m benchmarks.recipe --corpora FOLDER --runs FOLDER --prepare --data SHARED_DATA
    python -m benchmarks.recipe --corpora FOLDER --runs FOLDER --minutes 60
    python -m benchmarks.recipe --runs FOLDER --table          # writes benchmarks/results/recipe

Runs of different arms go side by side, one thread each: a model this small gains little from a
second thread. All can be stopped at any time and taken up by the same command.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.recipe.arms import ARMS, Arm

VOCAB_SIZE = 8_192
_POLL_SECONDS = 0.5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--corpora", type=Path, help="folder of the tokenizer and the shards")
    made.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    made.add_argument("--data", type=Path, help="folder with books/ and reviews/, to prepare from")
    made.add_argument("--prepare", action="store_true", help="make tokenizer and shards and stop")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--only", help="names of arms, by commas")
    made.add_argument("--minutes", type=float, default=120, help="no run begins after these")
    made.add_argument("--side-by-side", type=int, default=os.cpu_count(), help="runs at once")
    made.add_argument("--scale", type=float, default=1.0, help="of the tokens, for a trial")
    made.add_argument("--table", action="store_true", help="compare what is there and stop")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the number of runs that failed."""
    options = parser().parse_args(arguments)
    if options.prepare:
        prepare(options.data, options.corpora)
        return 0
    if options.table:
        from benchmarks.recipe.comparison import write_results

        print(write_results(options.runs))
        return 0
    return run_all(options)


def prepare(data: Path, corpora: Path) -> None:
    """A tokenizer of books and reviews, and the shards of both."""
    verb = [sys.executable, "-m", "modernbert"]
    texts = {name: data / name for name in ("books", "reviews")}
    train = [str(folder / "train.jsonl.xz") for folder in texts.values()]
    tokenizer = str(corpora / "tokenizer")
    made = [*verb, "tokenizer", "train", *train, tokenizer, "--vocab-size", str(VOCAB_SIZE)]
    subprocess.run(made, check=True)
    for name, folder in texts.items():
        for part in ("train", "dev"):
            text, shards = folder / f"{part}.jsonl.xz", corpora / "shards" / f"{name}-{part}"
            paths = [str(text), str(shards), "--tokenizer", tokenizer, "--held-out", "0"]
            subprocess.run([*verb, "prepare", *paths], check=True)


def run_all(options: argparse.Namespace) -> int:
    """Every run that is not there yet and may begin, seed by seed, as many at once as allowed."""
    end = time.monotonic() + 60 * options.minutes
    waiting = list(_missing(options))
    running: dict[subprocess.Popen[bytes], str] = {}
    failed = 0
    while waiting or running:
        for process in [each for each in running if each.poll() is not None]:
            name = running.pop(process)
            failed += process.returncode != 0
            print(f"{name}: ended with {process.returncode}", flush=True)
        if time.monotonic() > end and not running:
            break
        ready = _next_ready(waiting, options.runs)
        if ready and len(running) < options.side_by_side and time.monotonic() < end:
            waiting.remove(ready)
            running[_start(*ready, options)] = f"{ready[0].name}/{ready[1]}"
        elif waiting and not running and not ready:
            break  # what the others start from has failed
        else:
            time.sleep(_POLL_SECONDS)
    return failed


def _missing(options: argparse.Namespace) -> Iterator[tuple[Arm, int]]:
    names = options.only.split(",") if options.only else [arm.name for arm in ARMS]
    for seed in range(options.seeds):
        for arm in ARMS:
            if arm.name in names and not _scores(options.runs, arm.name, seed).exists():
                yield arm, seed


def _next_ready(waiting: Sequence[tuple[Arm, int]], runs: Path) -> tuple[Arm, int] | None:
    """The first run whose start is there."""
    for arm, seed in waiting:
        if arm.start is None or _scores(runs, arm.start, seed).exists():
            return arm, seed
    return None


def _scores(runs: Path, arm: str, seed: int) -> Path:
    return runs / arm / str(seed) / "scores.json"


def _start(arm: Arm, seed: int, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.recipe.training", arm.name]
    paths = ["--corpora", str(options.corpora), "--runs", str(options.runs)]
    threads = max(1, (os.cpu_count() or 1) // options.side_by_side)
    return subprocess.Popen(
        [*command, str(seed), *paths, "--scale", str(options.scale)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )


if __name__ == "__main__":
    sys.exit(main())
