"""One retriever by sentence-transformers.

    python -m benchmarks.finetune.peer_sentence_transformers

Its trainer with in-batch negatives (MultipleNegativesRankingLoss), means of tokens, AdamW with a
linear warm-up and decay.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.losses import MultipleNegativesRankingLoss
from sentence_transformers.models import Pooling, Transformer
from sentence_transformers.training_args import SentenceTransformerTrainingArguments

from benchmarks.finetune.peer_transformers import arguments
from benchmarks.finetune.runs import Watch, one_run, retrieval_score
from benchmarks.finetune.workloads import Workload, read


def run(workload: Workload, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score once."""
    transformer = Transformer(options.model, max_seq_length=workload.max_tokens)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu").to(torch.float32)
    rows = read(folder / "train.jsonl")
    watch = Watch()
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**arguments(workload, options, len(rows))),
        train_dataset=Dataset.from_list(
            [{k: row[k] for k in ("query", "positive")} for row in rows]
        ),
        loss=MultipleNegativesRankingLoss(model),
    )
    with watch:
        trainer.train()
    watch.steps = trainer.state.global_step
    score = retrieval_score(partial(model.encode, normalize_embeddings=True), folder)
    return {"score": score, **watch.figures}


if __name__ == "__main__":
    one_run(__doc__, run)
