"""What the runs share: who takes part, the command line, seconds and memory, and the judge."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from benchmarks.command import add, bare_parser
from benchmarks.finetune.workloads import WORKLOADS, Row, Workload, read
from modernbert.files import write_whole
from modernbert.training.log import peak_memory_bytes

LEARNING_RATE = 4.5e-4  # what `modernbert finetune` takes for a width of 256
SEEDS = (0, 1, 2)
_CPU = torch.device("cpu")

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
    made = bare_parser(description)
    made.add_argument("workload", choices=[each.name for each in WORKLOADS])
    made.add_argument("folder", type=Path, help="of its files")
    made.add_argument("out", type=Path)
    if precisions:
        made.add_argument("--model", required=True, help="folder to start from")
        made.add_argument("--precision", choices=precisions, default=precisions[0])
        add(made, seed=(0, "of the order of the rows"))
    options = made.parse_args(arguments)
    workload = next(each for each in WORKLOADS if each.name == options.workload)
    write_whole(options.out, json.dumps(run(workload, options.folder, options)).encode())


class Watch:
    """What a training took: seconds, steps, and the memory before and after.

    With `with`, the seconds of a whole block; else each record of our trainer counts its own.
    """

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0
        self.before = self.peak = peak_memory_bytes(_CPU)

    def __enter__(self) -> Self:
        self.seconds -= time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.peak = peak_memory_bytes(_CPU)

    def __call__(self, record: dict[str, Any]) -> None:
        """One record of our trainer."""
        if record["kind"] in ("start", "resume"):
            self.before = peak_memory_bytes(_CPU)
        elif record["kind"] == "step":
            self.seconds += record["seconds"]
            self.steps += 1
            self.peak = peak_memory_bytes(_CPU)

    @property
    def figures(self) -> dict[str, Any]:
        """As `comparison` reads them."""
        return {
            "seconds": self.seconds,
            "steps": self.steps,
            "peak_bytes": self.peak,
            "peak_bytes_above_start": self.peak - self.before,
        }


def agreement(metric: str, wanted: Sequence[Any], found: Sequence[Any]) -> float:
    """Accuracy, or the correlation of Matthews or of ranks: the judge of everybody's outputs."""
    from scipy.stats import spearmanr
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    if metric == "spearman":
        return float(spearmanr(wanted, found).statistic)
    return float((matthews_corrcoef if metric == "matthews" else accuracy_score)(wanted, found))


def retrieval_score(encode: Callable[[list[str]], np.ndarray], folder: Path) -> float:
    """nDCG@10 of unit vectors, by ir-measures, the one judge of everybody's rankings."""
    corpus, queries = read(folder / "corpus.jsonl"), read(folder / "queries.jsonl")
    vectors = [encode([row["text"] for row in rows]) for rows in (queries, corpus)]
    return ndcg_at_10(vectors[0] @ vectors[1].T, queries, corpus, folder)


def ndcg_at_10(
    scores: np.ndarray, queries: Sequence[Row], documents: Sequence[Row], folder: Path
) -> float:
    """scores: (num_queries, num_documents), higher is better."""
    import ir_measures

    run = [
        ir_measures.ScoredDoc(query["_id"], documents[index]["_id"], float(row[index]))
        for query, row in zip(queries, scores, strict=True)
        for index in np.argsort(-row, kind="stable")[:10]
    ]
    wanted = [
        ir_measures.Qrel(str(row["query-id"]), str(row["corpus-id"]), int(row["score"]))
        for row in read(folder / "qrels.jsonl")
    ]
    measure = ir_measures.nDCG @ 10
    return float(ir_measures.calc_aggregate([measure], wanted, run)[measure])
