"""One fine-tuning by this package: `python -m benchmarks.finetune.ours`."""

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.finetune.ranking import ndcg_at_10
from benchmarks.finetune.runs import one_run
from benchmarks.finetune.workloads import Workload, read
from modernbert.training.log import peak_memory_bytes


def run(workload: Workload, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score once."""
    return (_retrieve if workload.verb == "retrieve" else _fine_tune)(workload, folder, options)


def _fine_tune(workload: Workload, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from modernbert.tasks.finetune import finetune

    test = {"test": str(folder / "test.jsonl")}
    mapping = _recipe(workload, folder, options, **test)
    watch = _Watch()
    results = finetune(workload.verb, mapping, on_record=lambda _, record: watch(record))
    (combination,) = results.combinations
    (outcome,) = combination.outcomes
    return {"score": outcome.test[METRICS.get(workload.metric, workload.metric)], **watch.figures}


def _retrieve(workload: Workload, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from modernbert.inference.embedder import Embedder
    from modernbert.tasks.finetune import finetune

    mapping = _recipe(workload, folder, options)
    watch = _Watch()
    finetune("retrieve", mapping, on_record=lambda _, record: watch(record))
    embedder = Embedder.from_pretrained(options.out.with_suffix("") / "model", precision="float32")
    corpus, queries = read(folder / "corpus.jsonl"), read(folder / "queries.jsonl")
    vectors = [
        embedder.encode([row["text"] for row in rows], normalize_embeddings=True)
        for rows in (queries, corpus)
    ]
    ids = [[row["_id"] for row in rows] for rows in (queries, corpus)]
    score = ndcg_at_10(vectors[0] @ vectors[1].T, *ids, read(folder / "qrels.jsonl"))
    return {"score": score, **watch.figures}


def _recipe(
    workload: Workload, folder: Path, options: argparse.Namespace, **data: str
) -> dict[str, Any]:
    """A recipe as the mapping of its file."""
    numbers = {name: getattr(workload, name) for name in ("epochs", "batch_size")}
    chosen = {name: getattr(options, name) for name in ("learning_rate", "precision")}
    train = {"train": str(folder / "train.jsonl"), "max_seqlen": workload.max_tokens}
    return {
        "model": options.model,
        "output": str(options.out.with_suffix("")),
        "data": {**train, **data},
        "training": {**numbers, **chosen},
        "sweep": {"seeds": [options.seed], "processes": 1},
    }


class _Watch:
    """Adds up the seconds of the steps; the memory as the first began and after the last."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0
        self.before = self.peak = 0

    def __call__(self, record: dict[str, Any]) -> None:
        """One record of the run."""
        if record["kind"] in ("start", "resume"):
            self.before = peak_memory_bytes(torch.device("cpu"))
        elif record["kind"] == "step":
            self.seconds += record["seconds"]
            self.steps += 1
            self.peak = peak_memory_bytes(torch.device("cpu"))

    @property
    def figures(self) -> dict[str, Any]:
        """As the peers give them."""
        return {
            "seconds": self.seconds,
            "steps": self.steps,
            "peak_bytes": self.peak,
            "peak_bytes_above_start": self.peak - self.before,
        }


METRICS = {"entity_f1": "f1"}


if __name__ == "__main__":
    one_run(__doc__, run, precisions=("auto", "float32", "bfloat16"))
