"""Every row of the comparison, one after the other, the most telling first.

    python -m benchmarks.cpu --minutes 35     what fits; a row that is there is not run again
    python -m benchmarks.cpu --only 512-fixed,memory       these, whether they are there or not
    python -m benchmarks.cpu --restrict avx2 --threads 1 --cpu-time --only 512-fixed
    python -m benchmarks.cpu --list           the rows, their commands and how long each takes
    python -m benchmarks.cpu --prepare        makes models and exports beforehand
    python -m benchmarks.cpu --table          the targets beside what was measured

Each row is a process of its own and writes its result when it ends, so that all can be stopped at
any time and taken up by the same command. `time-to-loss` takes several calls: it keeps each of its
runs, and does as many as fit into its 24 minutes.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import results
from benchmarks.command import bare_parser

# A row that takes so many times its estimate is stopped; with --cpu-time others work beside it.
_OVERRUN, _OVERRUN_BESIDE_OTHERS = 2, 20


@dataclass(frozen=True, kw_only=True)
class Row:
    """One command.

    minutes: that it takes on a quiet machine of two cores.
    """

    name: str
    script: str
    arguments: str
    minutes: float

    @property
    def out(self) -> Path:
        """The file of its result."""
        return results.on_this_cpu(self.name)

    def is_done(self) -> bool:
        """Whether there is a result, and one of equal outputs."""
        return self.out.exists() and all(results.read(self.out).get("checks", {}).values())

    def command(self, *more: str) -> list[str]:
        """What is run."""
        module = f"benchmarks.cpu.{self.script}"
        start = [sys.executable, "-W", "ignore", "-m", module]
        return [*start, *self.arguments.split(), *more, "--out", str(self.out)]


def _row(name: str, script: str, arguments: str, minutes: float) -> Row:
    return Row(name=name, script=script, arguments=arguments, minutes=minutes)


def _encoding(name: str, arguments: str, minutes: float) -> Row:
    return _row(name, "encoding", f"--workload {arguments}", minutes)


def _blocks(name: str, size: str, minutes: float) -> Row:
    arguments = f"--batch blocks --update --size {size} --rounds 5 --seconds 90"
    return _row(f"training-step-{name}", "training_step", arguments, minutes)


LONG = "--layers 10 --rounds 2"
SMALL = "--size 32m --layers 10 --rounds 5"

ROWS = (
    _encoding("512-fixed", "512-fixed --rounds 4 --seconds 150", 4.5),
    _encoding("512-ragged", "512-ragged --rounds 4 --seconds 120", 4.5),
    _encoding("uniform-padded", "uniform-padded --rounds 3 --seconds 140", 3.5),
    _encoding("8192-fixed", f"8192-fixed {LONG} --seconds 300", 6),
    _encoding("8192-ragged", f"8192-ragged {LONG} --seconds 170", 4),
    _encoding("8192-padded", "8192-padded --layers 5 --rounds 1", 4),
    _row("ceiling", "ceiling", "--rounds 5 --seconds 60", 1.5),
    _row("memory", "memory", "--layers 10", 2),
    _row("training-step-ragged", "training_step", "--batch ragged --rounds 3 --seconds 130", 3.5),
    _blocks("tiny-blocks", "tiny", 1),
    _blocks("blocks", "384", 2),
    _blocks("base-blocks", "base", 3),
    _row("training-step-long", "training_step", "--batch long --layers 4 --rounds 1", 3.5),
    _encoding("request-32", "request-32 --rounds 7 --seconds 40", 1.5),
    _encoding("request-8", "request-8 --rounds 7 --seconds 40", 1.5),
    _encoding("request-128", "request-128 --rounds 7 --seconds 40", 1.5),
    _encoding("request-512", "request-512 --rounds 5 --seconds 60", 2),
    _encoding("web", "web --rounds 3 --seconds 130", 5),
    _row("time-to-loss", "time_to_loss", "", 24),
    _encoding("32m-512-fixed", f"512-fixed {SMALL} --seconds 60", 2),
    _encoding("32m-512-ragged", f"512-ragged {SMALL} --seconds 60", 2.5),
)

# One for each model that the rows measure; long rows have exports of their own.
_PREPARATIONS = (
    "--workload 512-fixed --prepare",
    "--workload 8192-fixed --layers 10 --prepare",
    "--workload 512-fixed --size 32m --layers 10 --prepare",
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = bare_parser(
        __doc__,
        minutes=(60.0, "no row that would end later"),
        only=(str, "names of rows, by commas; they are run again"),
        again=(False, "also rows that are there already"),
        threads=(str, "threads of everyone; all cores when absent"),
        cpu_time=(False, "see the scripts' own --help"),
        list=(False, "show the rows and stop"),
        prepare=(False, "make models and exports and stop"),
        table=(False, "show targets and figures and stop"),
    )
    made.add_argument("--restrict", choices=results.RESTRICTIONS, help="instructions to keep to")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the number of rows that failed."""
    options = parser().parse_args(arguments)
    if options.restrict:  # for this process, whose name of the machine follows, and for the rows
        os.environ |= results.RESTRICTIONS[options.restrict]
    if options.list:
        for row in ROWS:
            print(f"{row.name:22s} {row.minutes:4.1f} min  {' '.join(row.command()[3:])}")
        return 0
    if options.table:
        from benchmarks.cpu.targets import table

        print(table(results.on_this_cpu("").parent))
        return 0
    if options.prepare:
        commands = [[*ROWS[0].command()[:5], *each.split()] for each in _PREPARATIONS]
        return sum(subprocess.run(command).returncode != 0 for command in commands)
    return run(options)


def run(options: argparse.Namespace) -> int:
    """Rows in their order, as long as each fits into the time that is left."""
    end = time.monotonic() + 60 * options.minutes
    names = options.only.split(",") if options.only else [row.name for row in ROWS]
    failed = 0
    for row in ROWS:
        again = options.again or (options.only and row.name != "time-to-loss")
        if row.name not in names or (row.is_done() and not again):
            continue
        left = (end - time.monotonic()) / 60
        if row.minutes > left:
            print(f"== {row.name}: takes {row.minutes} minutes, {left:.1f} are left", flush=True)
            continue
        failed += not _run(row, options)
    return failed


def _passed_on(options: argparse.Namespace) -> list[str]:
    """What the scripts are told besides a row's own arguments."""
    threads = ["--threads", options.threads] if options.threads else []
    return [*threads, *(["--cpu-time"] if options.cpu_time else [])]


def _run(row: Row, options: argparse.Namespace) -> bool:
    overrun = _OVERRUN_BESIDE_OTHERS if options.cpu_time else _OVERRUN
    print(f"== {row.name}", flush=True)
    begin = time.monotonic()
    try:
        command = row.command(*_passed_on(options))
        ended = subprocess.run(command, timeout=60 * overrun * row.minutes).returncode
    except subprocess.TimeoutExpired:
        ended = 124
    print(f"== {row.name}: {(time.monotonic() - begin) / 60:.1f} minutes, exit {ended}", flush=True)
    return ended == 0


if __name__ == "__main__":
    sys.exit(main())
