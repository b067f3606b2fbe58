"""transformers' Trainer as a peer of the race: from the same first weights, on the same text.

It has its own usual optimizer and schedule: AdamW, clipped gradients, a linear warm-up and a linear
decay to zero. Only training counts as time: the start, evaluations and saving do not.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from benchmarks.learning.text import MASKED_SHARE, Text

NUM_POINTS = 8
_TOKENS_A_STEP = 2_048
_WARMUP = 0.06


@dataclass(frozen=True, kw_only=True)
class Score:
    """A state of a run; seconds are those of training alone, by the clock and of the CPU."""

    tokens: int
    seconds: float
    cpu_seconds: float | None
    loss: float
    accuracy: float | None = None


def train_peer(name: str, tokens: int, seed: int, text: Text) -> list[Score]:
    """Train in padded rows or in blocks, and score the states at even distances.

    name: PEER@RATE or PEER@RATE@TOKENS_A_STEP.
    seed: of the order of the data and of the masks.
    """
    peer, rate, *size = name.split("@")
    rows = text.blocks() if peer == "transformers-blocks" else text.pieces()
    run = _Run(text, tokens)
    step = int(*size) if size else _TOKENS_A_STEP
    run.trainer(rows, tokens_a_step=step, learning_rate=float(rate), seed=seed).train()
    return run.scores


class _Run:
    """One Trainer's run, stopped when its tokens are used up."""

    def __init__(self, text: Text, tokens: int) -> None:
        from transformers import AutoModelForMaskedLM

        self.text, self.budget = text, tokens
        self.scores: list[Score] = []
        self.tokens, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        # The loss is the same without the logits of other rows.
        self.model = AutoModelForMaskedLM.from_pretrained(
            text.first_model, attn_implementation="sdpa", sparse_prediction=True
        )

    def begin(self) -> None:
        """Count the seconds from now on."""
        self._since, self._cpu_since = time.perf_counter(), time.process_time()

    def factor(self) -> float:
        """Of the learning rate: up to 1 and down to 0."""
        progress = min(1.0, self.tokens / self.budget)
        return min(progress / _WARMUP, (1 - progress) / (1 - _WARMUP))

    def after_step(self) -> bool:
        """Score when it is time to; whether the tokens are used up."""
        progress = self.tokens / self.budget
        if progress >= min(1.0, (len(self.scores) + 1) / NUM_POINTS):
            self.seconds += time.perf_counter() - self._since
            self.cpu_seconds += time.process_time() - self._cpu_since
            self.scores.append(self._score())
            self.begin()
        return progress >= 1

    def _score(self) -> Score:
        figures = self.text.held_out_figures(self.model.state_dict())
        return Score(
            tokens=self.tokens,
            seconds=self.seconds,
            cpu_seconds=self.cpu_seconds,
            loss=figures["held_out_loss"],
            accuracy=figures["held_out_accuracy"],
        )

    def trainer(self, rows: Iterable[list[int]], *, tokens_a_step: int, **arguments: Any) -> Any:
        """A Trainer that tells of its steps and takes its learning rate from here."""
        from torch.optim.lr_scheduler import LambdaLR
        from transformers import (
            AutoTokenizer,
            DataCollatorForLanguageModeling,
            Trainer,
            TrainerCallback,
            TrainingArguments,
        )

        run, dataset = self, [{"input_ids": row} for row in rows]
        mean_length = sum(len(row["input_ids"]) for row in dataset) / len(dataset)

        class Scheduled(Trainer):
            def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
                del num_training_steps
                self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda _: run.factor())
                return self.lr_scheduler

            def training_step(
                self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any
            ) -> Tensor:
                run.tokens += int(inputs["attention_mask"].sum())
                loss: Tensor = super().training_step(model, inputs, *rest, **named)
                return loss

        class Watch(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                run.begin()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                del args, state
                control.should_training_stop = run.after_step()

        with TemporaryDirectory() as folder:  # nothing is saved
            settings = TrainingArguments(
                folder,
                per_device_train_batch_size=max(1, round(tokens_a_step / mean_length)),
                use_cpu=True,
                bf16=True,
                max_steps=10**7,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **arguments,
            )
        tokenizer = AutoTokenizer.from_pretrained(self.text.first_model)
        collator = DataCollatorForLanguageModeling(
            tokenizer=tokenizer, mlm_probability=MASKED_SHARE
        )
        return Scheduled(
            model=self.model,
            args=settings,
            train_dataset=dataset,
            data_collator=collator,
            callbacks=[Watch()],
        )
