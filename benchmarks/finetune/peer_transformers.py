"""One fine-tuning by transformers.Trainer: `python -m benchmarks.finetune.peer_transformers`.

What its documentation shows: padding to the longest text of a batch, AdamW with a linear warm-up
and decay. Precision bfloat16 by autocast where the CPU has it, its faster one here.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from benchmarks.finetune.runs import LEARNING_RATE, Watch, agreement, one_run
from benchmarks.finetune.workloads import Row, Workload, read
from modernbert.metrics.spans import overlap_f1

WARMUP_SHARE = 0.1
_STRIDE = 128
_ANSWER_TOKENS = 30


def run(workload: Workload, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score once."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    train, test = read(folder / "train.jsonl"), read(folder / "test.jsonl")
    model, collate, encode, score = _SETUPS[workload.verb](
        workload, options.model, tokenizer, train
    )
    encoded = [each for row in train for each in encode(row)]
    watch = Watch()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            **arguments(workload, options, len(encoded)),
            per_device_eval_batch_size=workload.batch_size,
        ),
        train_dataset=encoded,
        data_collator=collate,
    )
    with watch:
        trainer.train()
    watch.steps = trainer.state.global_step
    return {"score": score(trainer, test), **watch.figures}


def arguments(workload: Workload, options: argparse.Namespace, num_rows: int) -> dict[str, Any]:
    """What a trainer of transformers' kind is told."""
    num_steps = workload.epochs * -(-num_rows // workload.batch_size)
    return {
        "output_dir": str(options.out.with_suffix("")),
        "num_train_epochs": workload.epochs,
        "per_device_train_batch_size": workload.batch_size,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "linear",
        "warmup_steps": int(WARMUP_SHARE * num_steps),
        "weight_decay": 0.01,
        "seed": options.seed,
        "bf16": options.precision == "bfloat16",
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "logging_steps": 1000,
    }


def _sequence_setup(workload: Workload, model: str, tokenizer: Any, train: Sequence[Row]) -> tuple:
    labels = sorted({row["label"] for row in train}, key=str) if workload.verb == "classify" else []

    def encode(row: Row) -> list[dict[str, Any]]:
        texts = (row["text"], row["text_pair"]) if "text_pair" in row else (row["text"],)
        target = labels.index(row["label"]) if labels else float(row["score"])
        return [
            {
                **tokenizer(*texts, truncation=True, max_length=workload.max_tokens),
                "labels": target,
            }
        ]

    def score(trainer: Trainer, test: Sequence[Row]) -> float:
        rows = [each for row in test for each in encode(row)]
        found = trainer.predict(rows).predictions
        found = found.argmax(-1) if labels else found[:, 0]
        return agreement(workload.metric, [row["labels"] for row in rows], found)

    network = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=max(1, len(labels)), classifier_pooling="mean", dtype=torch.float32
    )
    return network, DataCollatorWithPadding(tokenizer), encode, score


def _tagging_setup(workload: Workload, model: str, tokenizer: Any, train: Sequence[Row]) -> tuple:
    tags = sorted({tag for row in train for tag in row["tags"]})

    def encode(row: Row) -> list[dict[str, Any]]:
        words = [" " + word for word in row["tokens"]]
        encoded = tokenizer(
            words, is_split_into_words=True, truncation=True, max_length=workload.max_tokens
        )
        labels, previous = [], None
        for word in encoded.word_ids():
            first = word is not None and word != previous
            labels.append(tags.index(row["tags"][word]) if first else -100)
            previous = word
        return [{**encoded, "labels": labels}]

    def score(trainer: Trainer, test: Sequence[Row]) -> float:
        from seqeval.metrics import f1_score

        rows = [each for row in test for each in encode(row)]
        found = trainer.predict(rows).predictions.argmax(-1)
        pairs = [
            [
                (tags[label], tags[tag])
                for label, tag in zip(row["labels"], tagged, strict=False)
                if label != -100
            ]
            for row, tagged in zip(rows, found, strict=True)
        ]
        wanted = [[tag for tag, _ in each] for each in pairs]
        return float(f1_score(wanted, [[tag for _, tag in each] for each in pairs]))

    network = AutoModelForTokenClassification.from_pretrained(
        model, num_labels=len(tags), dtype=torch.float32
    )
    return network, DataCollatorForTokenClassification(tokenizer), encode, score


def _answering_setup(workload: Workload, model: str, tokenizer: Any, train: Sequence[Row]) -> tuple:
    """Windows with a stride, padded to one length, as in transformers' own example."""
    del train

    def windows(row: Row) -> Any:
        return tokenizer(
            row["question"].strip(),
            row["context"],
            truncation="only_second",
            max_length=workload.max_tokens,
            stride=_STRIDE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=False,
        )

    def encode(row: Row) -> list[dict[str, Any]]:
        encoded = windows(row)
        return [
            {
                "input_ids": encoded["input_ids"][index],
                "attention_mask": encoded["attention_mask"][index],
                **_answer_place(row, encoded, index),
            }
            for index in range(len(encoded["input_ids"]))
        ]

    padding = DataCollatorWithPadding(tokenizer)

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        places = ("start_positions", "end_positions")
        batch = padding([{k: v for k, v in row.items() if k not in places} for row in rows])
        return {
            **batch,
            **default_data_collator([{k: row[k] for k in places} for row in rows]),
        }

    def score(trainer: Trainer, test: Sequence[Row]) -> float:
        model = trainer.model.eval()
        answers = [[answer["text"] for answer in row["answers"]] for row in test]
        found = [_best_answer(model, row, windows(row)) for row in test]
        return float(np.mean(list(map(overlap_f1, found, answers))))

    network = AutoModelForQuestionAnswering.from_pretrained(model, dtype=torch.float32)
    return network, collate, encode, score


def _answer_place(row: Row, encoded: Any, index: int) -> dict[str, int]:
    """The first answer's first and last token; [CLS] where the window does not hold it."""
    if row["answers"]:
        answer = row["answers"][0]
        first, last = answer["start"], answer["start"] + len(answer["text"])
        tokens = [
            place
            for place, (begin, end) in enumerate(encoded["offset_mapping"][index])
            if encoded.sequence_ids(index)[place] == 1 and begin < last and end > first
        ]
        offsets = encoded["offset_mapping"][index]
        if tokens and offsets[tokens[0]][0] <= first and offsets[tokens[-1]][1] >= last:
            return {"start_positions": tokens[0], "end_positions": tokens[-1]}
    return {"start_positions": 0, "end_positions": 0}


@torch.no_grad()
def _best_answer(model: Any, row: Row, encoded: Any) -> str:
    """The best span over all windows, or nothing where [CLS] has the higher sum."""
    best, nothing, text = -np.inf, np.inf, ""
    for index, ids in enumerate(encoded["input_ids"]):
        output = model(input_ids=torch.tensor([ids]))
        start, end = output.start_logits[0].float().numpy(), output.end_logits[0].float().numpy()
        nothing = min(nothing, start[0] + end[0])
        allowed = [place for place, kind in enumerate(encoded.sequence_ids(index)) if kind == 1]
        for first in allowed:
            stop = min(first + _ANSWER_TOKENS, allowed[-1] + 1)
            last = first + int(end[first:stop].argmax())
            if start[first] + end[last] > best:
                best = start[first] + end[last]
                offsets = encoded["offset_mapping"][index]
                text = row["context"][offsets[first][0] : offsets[last][1]]
    return text.strip() if best > nothing else ""


_SETUPS = {
    "classify": _sequence_setup,
    "regress": _sequence_setup,
    "tag": _tagging_setup,
    "answer": _answering_setup,
}


if __name__ == "__main__":
    one_run(__doc__, run)
