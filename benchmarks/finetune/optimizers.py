"""Which optimizer fine-tuning should have: each at its best rate of three, three seeds.

    python -m benchmarks.finetune.optimizers --data SHARED_DATA --model START --work FOLDER

On a few rows of two sets. Every rate is tried with one seed; the best then has two more. The rate
is chosen on the rows that are scored, for all optimizers alike. The command can be stopped, and the
same one goes on; with all runs there it writes benchmarks/results/finetune/optimizers.json,
which docs/learning.md shows (`python -m docs.tables`).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks import results
from benchmarks.command import bare_parser
from benchmarks.finetune.ours import METRICS
from benchmarks.finetune.workloads import WORKLOADS, Workload, prepare
from modernbert.tasks.finetune import finetune
from modernbert.tasks.tuning.job import Outcome

OPTIMIZERS = ("adamw", "stable-adamw", "muon")
RATES = (2e-4, 4.5e-4, 1e-3)  # around what `modernbert finetune` takes for this width
NUM_ROWS = {"sst2": 1_000, "conll2003": 600}
SEEDS = (0, 1, 2)
RESULT = results.FOLDER / "finetune" / "optimizers.json"


def scores(
    workload: Workload, folder: Path, options: argparse.Namespace, optimizer: str
) -> dict[str, Any]:
    """An optimizer on a set: the score of each rate with one seed, and of the best with all."""
    output = options.work / "optimizers" / workload.name / optimizer

    def run(name: str, seeds: Sequence[int], rates: Sequence[float]) -> list[Outcome]:
        training = {"epochs": workload.epochs, "batch_size": workload.batch_size}
        mapping = {
            "model": options.model,
            "output": str(output / name),
            "data": {each: str(folder / f"{each}.jsonl") for each in ("train", "test")},
            "training": {**training, "optimizer": optimizer},
            "sweep": {"seeds": list(seeds), "learning_rates": list(rates), "processes": 1},
        }
        found = finetune(workload.verb, mapping).combinations
        return [outcome for each in found for outcome in each.outcomes]

    metric = METRICS.get(workload.metric, workload.metric)
    tried = {each.learning_rate: each.test[metric] for each in run("rates", SEEDS[:1], RATES)}
    best = max(tried, key=lambda rate: tried[rate])
    more = [each.test[metric] for each in run("seeds", SEEDS[1:], [best])]
    return {"rates": tried, "best": best, "scores": [tried[best], *more]}


def table(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A line for each set, a column for each optimizer, in Markdown.

    >>> each = {"scores": [0.5, 0.7], "best": 9e-4}
    >>> table({"sst2": dict.fromkeys(OPTIMIZERS, each)}).splitlines()[-1][:32]
    '| sst2 | 0.600 ± 0.141 at 0.0009'
    """
    lines = ["| set | " + " | ".join(OPTIMIZERS) + " |", "|---" * (1 + len(OPTIMIZERS)) + "|"]
    for name, row in rows.items():
        cells = [
            f"{mean(each['scores']):.3f} ± {stdev(each['scores']):.3f} at {each['best']:g}"
            for each in (row[optimizer] for optimizer in OPTIMIZERS)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the runs that are missing, write the result and print the table."""
    made = bare_parser(__doc__)
    made.add_argument("--data", type=Path, required=True, help="folder with the labelled sets")
    made.add_argument("--model", required=True, help="folder to start from")
    made.add_argument("--work", type=Path, required=True, help="folder of the runs")
    options = made.parse_args(arguments)
    around = results.surroundings(num_threads=1)
    rows: dict[str, dict[str, Any]] = {}
    for workload in WORKLOADS:
        if workload.name in NUM_ROWS:
            fewer = replace(workload, num_train=NUM_ROWS[workload.name])
            folder = prepare(fewer, options.data, options.work / "few")
            rows[workload.name] = {
                each: scores(fewer, folder, options, each) for each in OPTIMIZERS
            }
    results.write(RESULT, {"benchmark": "finetune.optimizers", **around, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
