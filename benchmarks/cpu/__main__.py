"""Every row of the comparison, one after the other, the most telling first.

    python -m benchmarks.cpu --minutes 35     what fits; a row that is there is not run again
    python -m benchmarks.cpu --only 512-fixed,memory       these, whether they are there or not
    python -m benchmarks.cpu --restrict avx2 --threads 1 --cpu-time --only 512-fixed
    python -m benchmarks.cpu --list           the rows, their commands and how long each takes
    python -m benchmarks.cpu --prepare        makes models and exports beforehand
    python -m benchmarks.cpu --table          the targets beside what was measured

Each row is a process of its own and writes its result when it ends, so that all can be stopped at
any time and taken up by the same command.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import results
from benchmarks.command import bare_parser
from benchmarks.cpu.targets import table

# A row that takes so many times its estimate is stopped; with --cpu-time others work beside it.
_OVERRUN, _OVERRUN_BESIDE_OTHERS = 2, 20


class Row(NamedTuple):
    """One command.

    minutes: that it takes on a quiet machine of two cores.
    script: and its arguments.
    """

    name: str
    minutes: float
    script: str

    @property
    def out(self) -> Path:
        """The file of its result."""
        return results.on_this_cpu(self.name)

    def is_done(self) -> bool:
        """Whether there is a result, and one of equal outputs."""
        return self.out.exists() and all(results.read(self.out).get("checks", {}).values())

    def command(self, *, threads: str | None = None, cpu_time: bool = False) -> list[str]:
        """What is run."""
        given = ["--threads", threads] if threads else []
        if cpu_time and not self.script.startswith("memory"):  # which counts no seconds
            given.append("--cpu-time")
        return [*_command(self.script), *given, "--out", str(self.out)]


def _command(script: str) -> list[str]:
    name, *arguments = script.split()
    return [sys.executable, "-W", "ignore", "-m", f"benchmarks.cpu.{name}", *arguments]


_BLOCKS = "training_step --batch blocks --update --rounds 5 --seconds 90 --size"
_LONG = "--layers 10 --rounds 2"

ROWS = (
    Row("512-fixed", 4.5, "encoding --workload 512-fixed --rounds 4 --seconds 150"),
    Row("512-ragged", 4.5, "encoding --workload 512-ragged --rounds 4 --seconds 120"),
    Row("uniform-padded", 3.5, "encoding --workload uniform-padded --rounds 3 --seconds 140"),
    Row("8192-fixed", 6, f"encoding --workload 8192-fixed {_LONG} --seconds 300"),
    Row("8192-ragged", 4, f"encoding --workload 8192-ragged {_LONG} --seconds 170"),
    Row("8192-padded", 4, "encoding --workload 8192-padded --layers 5 --rounds 1"),
    Row("memory", 2, "memory --layers 10"),
    Row("training-step-ragged", 3.5, "training_step --batch ragged --rounds 3 --seconds 130"),
    Row("training-step-tiny-blocks", 1, f"{_BLOCKS} tiny"),
    Row("training-step-blocks", 2, f"{_BLOCKS} 384"),
    Row("training-step-base-blocks", 3, f"{_BLOCKS} base"),
    Row("training-step-long", 3.5, "training_step --batch long --layers 4 --rounds 1"),
    Row("request-32", 1.5, "encoding --workload request-32 --rounds 7 --seconds 40"),
    Row("request-8", 1.5, "encoding --workload request-8 --rounds 7 --seconds 40"),
    Row("request-128", 1.5, "encoding --workload request-128 --rounds 7 --seconds 40"),
    Row("request-512", 2, "encoding --workload request-512 --rounds 5 --seconds 60"),
)

# One for each model that the rows measure; long rows have exports of their own.
_PREPARATIONS = (
    "encoding --workload 512-fixed --prepare",
    "encoding --workload 8192-fixed --layers 10 --prepare",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the number of rows that failed."""
    made = bare_parser(
        __doc__,
        minutes=(60.0, "no row that would end later"),
        only=(str, "names of rows, by commas; they are run again"),
        threads=(str, "threads of everyone; all cores when absent"),
        cpu_time=(False, "see the scripts' own --help"),
        list=(False, "show the rows and stop"),
        prepare=(False, "make models and exports and stop"),
        table=(False, "show targets and figures and stop"),
    )
    made.add_argument("--restrict", choices=results.RESTRICTIONS, help="instructions to keep to")
    options = made.parse_args(arguments)
    if options.restrict:  # for this process, whose name of the machine follows, and for the rows
        os.environ |= results.RESTRICTIONS[options.restrict]
    if options.prepare:
        return sum(subprocess.run(_command(each)).returncode != 0 for each in _PREPARATIONS)
    if options.list:
        for row in ROWS:
            print(f"{row.name:26s} {row.minutes:4.1f} min  {row.script}")
    elif options.table:
        print(table(results.on_this_cpu("").parent))
    else:
        return run(options)
    return 0


def run(options: argparse.Namespace) -> int:
    """Rows in their order, as long as each fits into the time that is left."""
    end, failed = time.monotonic() + 60 * options.minutes, 0
    only = options.only.split(",") if options.only else []
    for row in ROWS:
        if row.name not in only if only else row.is_done():
            continue
        left = (end - time.monotonic()) / 60
        if row.minutes > left:
            print(f"== {row.name}: takes {row.minutes} minutes, {left:.1f} are left", flush=True)
            continue
        failed += not _run(row, options)
    return failed


def _run(row: Row, options: argparse.Namespace) -> bool:
    command = row.command(threads=options.threads, cpu_time=options.cpu_time)
    overrun = _OVERRUN_BESIDE_OTHERS if options.cpu_time else _OVERRUN
    print(f"== {row.name}", flush=True)
    begin = time.monotonic()
    try:
        ended = subprocess.run(command, timeout=60 * overrun * row.minutes).returncode
    except subprocess.TimeoutExpired:
        ended = 124
    print(f"== {row.name}: {(time.monotonic() - begin) / 60:.1f} minutes, exit {ended}", flush=True)
    return ended == 0


if __name__ == "__main__":
    sys.exit(main())
