"""The pretrainings that are compared, each behind one call.

Everyone begins with the same weights, on the same text, with 30% of the tokens masked, and is
evaluated with 15% masked on the same batches by the same code. Only training counts as time: the
start, evaluations and saving do not.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from torch import Tensor

from benchmarks.python_text import MASKED_SHARE, Text
from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.tasks.pretraining.recipe import PretrainingRecipe

_WARMUP, _DECAY = 0.1, 0.7  # ours: shares of the tokens
_TRAINER_WARMUP = 0.06
_TRIAL_STEPS, _TRIAL_WARMUP_STEPS = 20, 4


class Point(NamedTuple):
    """Where a run stands: training alone counts as time, by the clock and of the CPU."""

    seconds: float
    tokens: int
    loss: float
    cpu_seconds: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to train: so many tokens, or so many seconds; the schedule ends there.

    rate: the highest learning rate.
    tokens_a_step: real tokens before an update, about.
    evaluations: of a run, the last included.
    seed: of the order of the data and of the masks; of transformers' trainers alone.
    """

    rate: float
    tokens_a_step: int = 2_048
    tokens: int | None = None
    seconds: float | None = None
    evaluations: int = 1
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that has come to its end.

    points: held-out losses, the last one after its last step.
    precision: that it computed in.
    """

    points: tuple[Point, ...]
    precision: str

    @property
    def end(self) -> Point:
        """After the last step."""
        return self.points[-1]


def train_ours(text: Text, budget: Budget) -> Trained:
    """Our trainer with its own optimizer and schedule."""
    with TemporaryDirectory() as folder:
        tokens = budget.tokens or _tokens_of(text, budget, Path(folder) / "trial")
        steps = tokens // budget.tokens_a_step
        schedule = {
            "peak_learning_rate": budget.rate,
            "warmup_tokens": int(_WARMUP * tokens),
            "decay": "1-sqrt",
            "decay_tokens": int(_DECAY * tokens),
        }
        recipe = text.recipe(
            Path(folder) / "run",
            budget.tokens_a_step,
            total_tokens=tokens,
            schedule=schedule,
            evaluate_every_steps=max(1, -(-steps // budget.evaluations)),
            checkpoint_every_seconds=3_600.0,
        )
        return _run_ours(recipe)


def _run_ours(recipe: PretrainingRecipe) -> Trained:
    points: list[Point] = []
    seconds = 0.0

    def watch(record: dict[str, Any]) -> None:
        nonlocal seconds
        if record["kind"] == "step":
            seconds += record["seconds"]
        elif record["kind"] == "evaluation":
            points.append(Point(seconds, record["tokens"], record["held_out_loss"]))

    pretrain(recipe, [watch])
    return Trained(points=tuple(points), precision="auto")


def _tokens_of(text: Text, budget: Budget, output: Path) -> int:
    """How many tokens our trainer will see in the seconds of a budget, by a short trial."""
    speeds: list[float] = []

    def watch(record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] > _TRIAL_WARMUP_STEPS:
            speeds.append(budget.tokens_a_step / record["seconds"])

    schedule = {"peak_learning_rate": budget.rate}
    total = _TRIAL_STEPS * budget.tokens_a_step
    size = budget.tokens_a_step
    pretrain(text.recipe(output, size, total_tokens=total, schedule=schedule), [watch])
    assert budget.seconds is not None, "a budget has tokens or seconds"
    return int(median(speeds) * budget.seconds)


def train_padded(text: Text, budget: Budget) -> Trained:
    """transformers.Trainer on rows padded to the longest, with all logits, as it comes."""
    # By tokens it is the loss that counts, which is the same without the logits of other rows.
    sparse = budget.tokens is not None
    return _train_theirs(text, text.pieces(), budget, sparse_prediction=sparse)


def train_blocks(text: Text, budget: Budget) -> Trained:
    """transformers.Trainer on blocks of 512 without padding, with the masked rows' logits."""
    return _train_theirs(text, text.blocks(), budget, sparse_prediction=True)


SYSTEMS: Mapping[str, Callable[[Text, Budget], Trained]] = {
    "ours": train_ours,
    "transformers padded": train_padded,
    "transformers blocks": train_blocks,
}


def _train_theirs(
    text: Text, rows: Iterable[list[int]], budget: Budget, **settings: bool
) -> Trained:
    dataset = [{"input_ids": row} for row in rows]
    precision = "bfloat16"
    if budget.seconds is not None:
        precision = _fastest_precision(text, dataset, budget, **settings)
    run = _Run(text, dataset, budget, precision, **settings)
    run.trainer.train()
    return Trained(points=tuple(run.points), precision=precision)


def _fastest_precision(
    text: Text, dataset: Sequence[dict[str, list[int]]], budget: Budget, **settings: bool
) -> str:
    speeds = {}
    few = replace(budget, seconds=None, tokens=_TRIAL_STEPS * budget.tokens_a_step, evaluations=1)
    for precision in ("float32", "bfloat16"):
        run = _Run(text, dataset, few, precision, **settings)
        run.trainer.train()
        speeds[precision] = run.end.tokens / run.end.seconds
    return max(speeds, key=lambda name: speeds[name])


@dataclass
class _Clock:
    """Seconds since it was started, those of pauses not counted; those of the CPU as well."""

    elapsed: float = 0.0
    cpu: float = 0.0
    _since: float = 0.0
    _cpu_since: float = 0.0

    def start(self) -> None:
        self._since, self._cpu_since = time.perf_counter(), time.process_time()

    def pause(self) -> None:
        self.elapsed += time.perf_counter() - self._since
        self.cpu += time.process_time() - self._cpu_since


class _Run:
    """One `transformers.Trainer`, stopped when its budget is used up.

    Its own usual optimizer and schedule: AdamW, clipped gradients, a linear warm-up and a linear
    decay to zero, here over the budget whether that counts tokens or seconds.
    """

    def __init__(
        self,
        text: Text,
        dataset: Sequence[dict[str, list[int]]],
        budget: Budget,
        precision: str,
        **settings: bool,
    ) -> None:
        from transformers import AutoModelForMaskedLM, AutoTokenizer
        from transformers import DataCollatorForLanguageModeling as Collator

        self.text, self.budget = text, budget
        self.points: list[Point] = []
        self.tokens = 0
        self.clock = _Clock()
        self.model = AutoModelForMaskedLM.from_pretrained(
            text.first_model, attn_implementation="sdpa", **settings
        )
        tokenizer = AutoTokenizer.from_pretrained(text.first_model)
        collator = Collator(tokenizer=tokenizer, mlm_probability=MASKED_SHARE)
        mean_length = sum(len(row["input_ids"]) for row in dataset) / len(dataset)
        arguments = {
            "per_device_train_batch_size": max(1, round(budget.tokens_a_step / mean_length)),
            "learning_rate": budget.rate,
        }
        self.trainer = _trainer(self, dataset, collator, arguments, precision)

    @property
    def end(self) -> Point:
        """After the last step."""
        return self.points[-1]

    @property
    def progress(self) -> float:
        """The share of the budget that is used up."""
        if self.budget.tokens is not None:
            return self.tokens / self.budget.tokens
        assert self.budget.seconds is not None, "a budget has tokens or seconds"
        running = self.clock.elapsed + time.perf_counter() - self.clock._since
        return running / self.budget.seconds

    def factor(self) -> float:
        """Of the learning rate: up to 1 and down to 0."""
        progress = min(1.0, self.progress)
        return min(progress / _TRAINER_WARMUP, (1 - progress) / (1 - _TRAINER_WARMUP))

    def after_step(self) -> bool:
        """Evaluate when it is time to; whether the budget is used up."""
        progress = self.progress
        if progress >= 1 or progress >= (len(self.points) + 1) / self.budget.evaluations:
            self.clock.pause()
            figures = self.text.held_out_figures(self.model.state_dict())
            loss, accuracy = figures["held_out_loss"], figures["held_out_accuracy"]
            at = (self.clock.elapsed, self.tokens, loss, self.clock.cpu, accuracy)
            self.points.append(Point(*at))
            self.clock.start()
        return progress >= 1


def _trainer(
    run: _Run,
    dataset: Any,
    collator: Any,
    arguments: Mapping[str, Any],
    precision: str,
) -> Any:
    """A Trainer that tells `run` of its steps and takes its learning rate from there."""
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Scheduled(Trainer):
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
            del num_training_steps
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda _: run.factor())
            return self.lr_scheduler

        def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Tensor:
            run.tokens += int(inputs["attention_mask"].sum())
            loss: Tensor = super().training_step(model, inputs, *rest, **named)
            return loss

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            run.clock.start()

        def on_step_end(self, _: Any, __: Any, control: Any, **___: Any) -> None:
            control.should_training_stop = run.after_step()

    with TemporaryDirectory() as folder:  # nothing is saved
        settings = TrainingArguments(
            folder,
            use_cpu=True,
            bf16=precision == "bfloat16",
            max_steps=10**7,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=run.budget.seed,
            **arguments,
        )
    trainer = Scheduled(
        model=run.model, args=settings, train_dataset=dataset, data_collator=collator
    )
    trainer.add_callback(Watch())
    return trainer
