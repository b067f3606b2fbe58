"""One fine-tuning by this package: `python -m benchmarks.finetune.ours`."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.finetune.runs import LEARNING_RATE, Watch, one_run, retrieval_score
from benchmarks.finetune.workloads import Workload
from modernbert.inference.embedder import Embedder
from modernbert.tasks.finetune import finetune

METRICS = {"entity_f1": "f1"}


def run(workload: Workload, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score once."""
    test = {} if workload.verb == "retrieve" else {"test": str(folder / "test.jsonl")}
    watch = Watch()
    results = finetune(
        workload.verb,
        _recipe(workload, folder, options, **test),
        on_record=lambda _, record: watch(record),
    )
    if test:
        score = results.best.test[METRICS.get(workload.metric, workload.metric)]
    else:
        model = options.out.with_suffix("") / "model"
        embedder = Embedder.from_pretrained(model, precision="float32")
        score = retrieval_score(partial(embedder.encode, normalize_embeddings=True), folder)
    return {"score": score, **watch.figures}


def _recipe(
    workload: Workload, folder: Path, options: argparse.Namespace, **data: str
) -> dict[str, Any]:
    """A recipe as the mapping of its file."""
    numbers = {name: getattr(workload, name) for name in ("epochs", "batch_size")}
    chosen = {"learning_rate": LEARNING_RATE, "precision": options.precision}
    train = {"train": str(folder / "train.jsonl"), "max_seqlen": workload.max_tokens}
    return {
        "model": options.model,
        "output": str(options.out.with_suffix("")),
        "data": {**train, **data},
        "training": {**numbers, **chosen},
        "sweep": {"seeds": [options.seed], "processes": 1},
    }


if __name__ == "__main__":
    one_run(__doc__, run, precisions=("auto", "float32", "bfloat16"))
