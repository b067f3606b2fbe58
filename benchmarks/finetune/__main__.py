"""The whole table of fine-tunings, row by row: everybody in turn, three seeds, a process each.

    python -m benchmarks.finetune --data SHARED_DATA --model START --work FOLDER --minutes 90
    python -m benchmarks.finetune --work FOLDER --table        # writes benchmarks/results/finetune

Every run leaves its figures in the work folder, so that all can be stopped at any time and taken
up by the same command.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.finetune.comparison import write_results
from benchmarks.finetune.runs import SEEDS, competitors, result_file
from benchmarks.finetune.workloads import WORKLOADS, Workload, prepare
from modernbert.files import remove_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the number of runs that failed."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", type=Path, help="folder with a folder for each labelled set")
    made.add_argument("--model", help="folder to start from")
    made.add_argument("--work", type=Path, required=True, help="folder of the runs")
    made.add_argument("--minutes", type=float, default=90, help="no run begins after these")
    made.add_argument("--only", help="names of workloads, by commas")
    made.add_argument("--table", action="store_true", help="compare what is there and stop")
    options = made.parse_args(arguments)
    if options.table:
        print(write_results(options.work))
        return 0
    return run_all(options)


def run_all(options: argparse.Namespace) -> int:
    """All runs that are missing, seed by seed, so that a stopped table has whole rows."""
    end = time.monotonic() + 60 * options.minutes
    names = options.only.split(",") if options.only else [each.name for each in WORKLOADS]
    failed = 0
    for workload in WORKLOADS:
        if workload.name not in names:
            continue
        folder = prepare(workload, options.data, options.work / "data")
        commands = [("linear", None)]
        commands += [(script, seed) for seed in SEEDS for script in competitors(workload)]
        for script, seed in commands:
            out = result_file(options.work, workload, script, seed)
            if not out.exists() and time.monotonic() < end:
                failed += not _run(script, seed, workload, folder, out, options.model)
    return failed


def _run(
    script: str, seed: int | None, workload: Workload, folder: Path, out: Path, model: str
) -> bool:
    out.parent.mkdir(parents=True, exist_ok=True)
    if (left := out.with_suffix("")).exists():  # of a run that was killed: it is timed whole
        remove_folder(left)
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.finetune.{script}"]
    command += [workload.name, str(folder), str(out)]
    if seed is not None:
        command += ["--model", model, "--seed", str(seed)]
    begin = time.monotonic()
    with out.with_suffix(".log").open("wb") as log:
        ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    seconds = time.monotonic() - begin
    print(f"{workload.name} {script} {seed}: {seconds:.0f} s, exit {ended}", flush=True)
    return ended == 0


if __name__ == "__main__":
    sys.exit(main())
