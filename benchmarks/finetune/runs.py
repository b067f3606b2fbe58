"""Who takes part in a workload, where a run's figures are, and the command line of one run."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.finetune.workloads import WORKLOADS, Workload
from modernbert.files import write_whole

LEARNING_RATE = 4.5e-4  # what `modernbert finetune` takes for a width of 256
SEEDS = (0, 1, 2)

Run = Callable[[Workload, Path, argparse.Namespace], dict[str, Any]]


def competitors(workload: Workload) -> list[str]:
    """The scripts that take part in a workload, in their order."""
    peer = "peer_sentence_transformers" if workload.verb == "retrieve" else "peer_transformers"
    return ["ours", peer]


def result_file(work: Path, workload: Workload, script: str, seed: int | None) -> Path:
    """Where a run's figures are."""
    return work / "runs" / workload.name / f"{script}-{seed or 0}.json"


def one_run(
    description: str | None,
    run: Run,
    arguments: Sequence[str] | None = None,
    *,
    precisions: Sequence[str] = ("bfloat16", "float32"),
) -> None:
    """Train once, as the command line says, and write the figures.

    precisions: to choose from, the usual one first; none for a model that is not trained by torch.
    """
    made = argparse.ArgumentParser(description=description)
    made.add_argument("workload", choices=[each.name for each in WORKLOADS])
    made.add_argument("folder", type=Path, help="of its files")
    made.add_argument("out", type=Path)
    if precisions:
        made.add_argument("--model", required=True, help="folder to start from")
        made.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
        made.add_argument("--seed", type=int, default=0)
        made.add_argument("--precision", choices=precisions, default=precisions[0])
        made.add_argument("--grouped", action="store_true", help="batches of similar lengths")
    options = made.parse_args(arguments)
    workload = next(each for each in WORKLOADS if each.name == options.workload)
    write_whole(options.out, json.dumps(run(workload, options.folder, options)).encode())
