"""Claim: two workers of Ray embed at 0.9 of the speed of two processes that share the texts.

    python -m benchmarks.inference.ray_workers TEXTS.parquet MODEL

Both sides run `examples/ray_embed.py`'s worker, one thread each, in turn, and write the vectors as
Parquet. A side's speed is the sum of its workers' texts a second, each from the end of its first
batch to the end of its last: starting Ray or Python is not part of it, and is reported as the whole
time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import command, results

SCRIPT = Path(__file__).parents[2] / "examples" / "ray_embed.py"

# The example's worker, which notes when each of its batches ended.
WORKER = """
import importlib.util, os, sys, time
os.environ["OMP_NUM_THREADS"] = "1"
script, notes, side, *arguments = sys.argv[1:]
spec = importlib.util.spec_from_file_location("ray_embed", script)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)

class Embed(example.Embed):
    def __call__(self, batch):
        found = super().__call__(batch)
        with open(os.path.join(notes, str(os.getpid())), "a") as file:
            file.write(f"{time.time()} {len(found['vector'])}\\n")
        return found

Embed.__module__ = "__main__"
"""
RAY = """
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=side)
ray.data.DataContext.get_current().enable_progress_bars = False
example.Embed = Embed
example.main(arguments)
"""
ALONE = """
import pyarrow.parquet as parquet
path, model, output, size = arguments
worker = Embed(model, "text", 1)
table = parquet.read_table(path)
share = table.take(list(range(int(side), len(table), 2)))
writer = None
for begin in range(0, len(share), int(size)):
    found = worker(share.slice(begin, int(size)))
    writer = writer or parquet.ParquetWriter(output + side, found.schema)
    writer.write_table(found)
writer.close()
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both sides in turn and write the result."""
    made = command.bare_parser(
        __doc__,
        rounds=(3, "turns of both sides"),
        batch_size=(512, "texts that a worker is given"),
        out=(results.on_this_cpu("ray-workers"), "file of the result"),
    )
    made.set_defaults(threads=1)  # of each worker
    made.add_argument("texts", type=Path)
    made.add_argument("model", type=Path)
    options = made.parse_args(arguments)
    found = command.measured("ray_workers", measure, options)
    print(f"Ray's two workers have {found['ratio']:.2f} of the speed of two processes")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides in every round, and the median of their ratios."""
    given = [str(options.texts.resolve()), str(options.model.resolve())]
    rounds = []
    for _ in range(options.rounds):
        rounds.append({side: _run(side, given, options.batch_size) for side in ("ray", "alone")})
        print(json.dumps(rounds[-1]), flush=True)
    ratio = median(each["ray"]["texts_per_s"] / each["alone"]["texts_per_s"] for each in rounds)
    return {"ratio": round(ratio, 3), "rounds": rounds}


def _run(side: str, given: Sequence[str], size: int) -> dict[str, float]:
    """One side's speed: texts a second of its workers together, and its whole time."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        notes, output = Path(folder) / "notes", Path(folder) / "out"
        notes.mkdir()
        begin = time.time()
        if side == "ray":
            tail = [*given, str(output), "--batch-size", str(size)]
            running = [_start(RAY, notes, f"{folder}/r", tail)]
        else:
            tail = [*given, str(output), str(size)]
            running = [_start(ALONE, notes, share, tail) for share in ("0", "1")]
        codes = [process.wait() for process in running]
        if any(codes):
            raise SystemExit(f"{side}: a process ended with {codes}")
        speeds = [_speed(file.read_text()) for file in notes.iterdir()]
        return {"texts_per_s": round(sum(speeds), 1), "seconds": round(time.time() - begin, 1)}


def _start(program: str, notes: Path, side: str, tail: Sequence[str]) -> "subprocess.Popen[bytes]":
    """A process that runs the worker with the program's reading and sharing."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER + program, str(SCRIPT), str(notes), side, *tail],
        env={**os.environ, **quiet, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def _speed(notes: str) -> float:
    """Texts a second of a worker, from the end of its first batch on."""
    rows = [line.split() for line in notes.splitlines()]
    first, *others = [(float(when), int(number)) for when, number in rows]
    if not others:
        raise SystemExit("a worker had one batch only: give more texts or a smaller --batch-size")
    return sum(number for _, number in others) / (others[-1][0] - first[0])


if __name__ == "__main__":
    main()
