"""One retriever by sentence-transformers.

    python -m benchmarks.finetune.peer_sentence_transformers

Its trainer with in-batch negatives (MultipleNegativesRankingLoss), means of tokens, AdamW with a
linear warm-up and decay.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.losses import MultipleNegativesRankingLoss
from sentence_transformers.models import Pooling, Transformer
from sentence_transformers.training_args import SentenceTransformerTrainingArguments

from benchmarks.finetune.peer_transformers import arguments
from benchmarks.finetune.ranking import ndcg_at_10
from benchmarks.finetune.workloads import WORKLOADS, Workload, read
from modernbert.files import write_whole
from modernbert.training.machine import peak_memory_bytes


def run(workload: Workload, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score once."""
    transformer = Transformer(options.model, max_seq_length=workload.max_tokens)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu").to(torch.float32)
    rows = read(folder / "train.jsonl")
    before = peak_memory_bytes(torch.device("cpu"))
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**arguments(workload, options, len(rows))),
        train_dataset=Dataset.from_list(
            [{k: row[k] for k in ("query", "positive")} for row in rows]
        ),
        loss=MultipleNegativesRankingLoss(model),
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    peak = peak_memory_bytes(torch.device("cpu"))
    return {
        "score": _score(model, folder),
        "seconds": seconds,
        "steps": trainer.state.global_step,
        "peak_bytes": peak,
        "peak_bytes_above_start": peak - before,
    }


def _score(model: SentenceTransformer, folder: Path) -> float:
    corpus, queries = read(folder / "corpus.jsonl"), read(folder / "queries.jsonl")
    vectors = [
        model.encode([row["text"] for row in rows], normalize_embeddings=True)
        for rows in (queries, corpus)
    ]
    ids = [[row["_id"] for row in rows] for rows in (queries, corpus)]
    return ndcg_at_10(vectors[0] @ vectors[1].T, *ids, read(folder / "qrels.jsonl"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train once and write the figures."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("workload", choices=[each.name for each in WORKLOADS])
    made.add_argument("folder", type=Path, help="of its files")
    made.add_argument("out", type=Path)
    made.add_argument("--model", required=True, help="folder to start from")
    made.add_argument("--learning-rate", type=float, required=True)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    options = made.parse_args(arguments)
    workload = next(each for each in WORKLOADS if each.name == options.workload)
    write_whole(options.out, json.dumps(run(workload, options.folder, options)).encode())


if __name__ == "__main__":
    main()
