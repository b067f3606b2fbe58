"""One retriever by sentence-transformers.

    python -m benchmarks.finetune.peer_sentence_transformers

Its trainer with in-batch negatives (MultipleNegativesRankingLoss), means of tokens, AdamW with a
linear warm-up and decay.
"""

import argparse
import time
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
from benchmarks.finetune.runs import one_run
from benchmarks.finetune.workloads import Workload, read
from modernbert.training.log import peak_memory_bytes


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


if __name__ == "__main__":
    one_run(__doc__, run)
