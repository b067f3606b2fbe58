"""The whole table of fine-tunings, row by row: everybody in turn, three seeds, a process each.

    python -m benchmarks.finetune --data SHARED_DATA --model START --work FOLDER --minutes 90
    python -m benchmarks.finetune --work FOLDER --table        # writes benchmarks/results/finetune

Every run leaves its figures in the work folder, so that all can be stopped at any time and taken
up by the same command.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.command import Job, bare_parser, run_missing
from benchmarks.finetune.comparison import write_results
from benchmarks.finetune.runs import SEEDS, competitors, result_file
from benchmarks.finetune.workloads import WORKLOADS, prepare
from modernbert.files import remove_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the number of runs that failed."""
    made = bare_parser(
        __doc__,
        data=(Path, "folder with a folder for each labelled set"),
        model=(str, "folder to start from"),
        minutes=(90.0, "no run begins after these"),
        only=(str, "names of workloads, by commas"),
        table=(False, "compare what is there and stop"),
    )
    made.add_argument("--work", type=Path, required=True, help="folder of the runs")
    options = made.parse_args(arguments)
    if options.table:
        print(write_results(options.work))
        return 0
    jobs = list(_runs(options))
    for job in jobs:  # of a run that was killed nothing is kept: it is timed whole
        if not job.out.exists() and (left := job.out.with_suffix("")).exists():
            remove_folder(left)
    return run_missing(jobs, minutes=options.minutes)


def _runs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, seed by seed, so that a stopped table has whole rows."""
    names = options.only.split(",") if options.only else [each.name for each in WORKLOADS]
    for workload in (each for each in WORKLOADS if each.name in names):
        folder = prepare(workload, options.data, options.work / "data")
        scripts: list[tuple[str, int | None]] = [("linear", None)]
        scripts += [(script, seed) for seed in SEEDS for script in competitors(workload)]
        for script, seed in scripts:
            out = result_file(options.work, workload, script, seed)
            start = [sys.executable, "-W", "ignore", "-m", f"benchmarks.finetune.{script}"]
            trained = [] if seed is None else ["--model", options.model, "--seed", str(seed)]
            given = [workload.name, str(folder), str(out), *trained]
            yield Job(
                f"{workload.name} {script} {seed}", [*start, *given], out, out.with_suffix(".log")
            )


if __name__ == "__main__":
    sys.exit(main())
