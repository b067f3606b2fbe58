"""A trial of a pretraining: a few real steps on random tokens, timed.

It tells how fast this machine trains a model, as busy as it is now, before there are shards or a
tokenizer. The steps are those of `Trainer` with the loss of a pretraining, so that products,
attention, vocabulary, optimizer and log all count.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.data.collate import MaskedBatch
from modernbert.data.packing import NUM_SPECIAL
from modernbert.model.config import EncoderConfig, flops_per_token
from modernbert.model.dropout import Dropout
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.model.native.functions import update
from modernbert.settings import TrainingPrecision
from modernbert.tasks.pretraining.pretrain import masked_token_loss
from modernbert.tasks.pretraining.vocabulary_loss import MAX_LOGITS_BYTES
from modernbert.training.task import Progress, Step
from modernbert.training.trainer import Phase, Trainer, TrainingSettings
from modernbert.training.training_settings import ScheduleSettings

_WARM_UP_STEPS, _WARM_UP_SECONDS = 3, 2.0
_MIN_STEPS = 3
_MAX_SECONDS = 20.0
_PART_SECONDS = 1.0
# A step of more operations is tried with fewer layers: on a slow core it would take a minute.
_MAX_STEP_FLOPS = 1e12
_MIN_LAYERS = 3  # a global one and two local ones
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """What is tried.

    Attributes:
        config: The model; of a large one fewer layers are tried.
        lengths: Lengths in tokens of the sequences of one micro-batch.
        micro_batches: How many of these make a step; of many fewer are tried.
        mask_rate: The share of the tokens that are predicted.
        dropout: That of the attention outputs.
        max_logits_bytes: As in a recipe.
        precision: As in a recipe.
        seconds: How long to measure at least.
    """

    config: EncoderConfig
    lengths: tuple[int, ...]
    micro_batches: int = 1
    mask_rate: float = 0.3
    dropout: float = 0.0
    max_logits_bytes: int = MAX_LOGITS_BYTES
    precision: TrainingPrecision = "auto"
    seconds: float = 6.0

    @property
    def flops_per_step(self) -> float:
        """Operations of a step, forward and backward."""
        forward = sum(
            length * flops_per_token(self.config, length, masked_share=self._masked_share(length))
            for length in self.lengths
        )
        return 3 * self.micro_batches * forward

    def _masked_share(self, length: int) -> float:
        """The share of a sequence's tokens that are predicted: never [CLS] and [SEP]."""
        return self.mask_rate * max(0, length - NUM_SPECIAL) / length


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the steps of a trial have reached.

    Attributes:
        flops_per_second: Floating-point operations of training, counted as `model.flops` counts.
        num_steps: The steps that were measured.
        seconds: How long these took together.
        core_share: How much of the time of its threads' cores they have used, from 0 to 1. Other
            programs had the rest, apart from moments in which one thread waits for another.
    """

    flops_per_second: float
    num_steps: int
    seconds: float
    core_share: float = 1.0


@lru_cache(maxsize=8)
def try_training(settings: TrialSettings) -> Trial:
    """Train for a few seconds in a temporary folder; once in a process for equal settings.

    Args:
        settings: What is tried.

    Returns:
        The speed that was reached.
    """
    settings = _affordable(settings)
    model = initialize(MaskedLanguageModel(settings.config), seed=_SEED)
    watch = _Watch(settings.seconds)
    endless = TrainingSettings(
        total_tokens=1 << 60,
        schedule=ScheduleSettings(peak_learning_rate=1e-5),
        precision=settings.precision,
        checkpoint_every_seconds=None,
    )
    phase = Phase(name="trial", task=_RandomText(settings), settings=endless, evaluates_first=False)
    with TemporaryDirectory() as folder:
        trainer = Trainer(model, [phase], Path(folder) / "run", observers=[watch], update=update)
        try:
            trainer.run()
        except _Enough:
            return watch.result()
    raise KeyboardInterrupt  # nothing else ends it


def robust_rate(amounts: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the rate of most of the time: the median over parts of a second or more.

    A pause of the machine spoils one part and not the rate; steps much shorter than a part are
    averaged within it.

    Args:
        amounts: What was done in each step.
        seconds: How long each step took.

    Returns:
        Amount per second.

    >>> robust_rate([1, 1, 1, 1], [1.0, 1.0, 9.0, 1.0])
    1.0
    """
    rates, amount, spent = [], 0.0, 0.0
    for each, took in zip(amounts, seconds, strict=True):
        amount, spent = amount + each, spent + took
        if spent >= _PART_SECONDS:
            rates.append(amount / spent)
            amount = spent = 0.0
    return median(rates) if rates else amount / max(spent, 1e-9)


class _Enough(Exception):
    """The trial has measured long enough."""


class _Watch:
    """Collects the times of the steps after the first ones, until there are enough."""

    def __init__(self, seconds: float) -> None:
        self._wanted = seconds
        self._flops: list[float] = []
        self._seconds: list[float] = []
        self._warm_up = 0.0
        self._begin = time.process_time()

    def __call__(self, record: dict[str, Any]) -> None:
        if record["kind"] != "step":
            return
        if record["step"] <= _WARM_UP_STEPS and self._warm_up < _WARM_UP_SECONDS:
            self._warm_up += record["seconds"]
            self._begin = time.process_time()
            return
        self._flops.append(record["flops"])
        self._seconds.append(record["seconds"])
        spent = sum(self._seconds)
        enough = len(self._seconds) >= _MIN_STEPS and spent >= self._wanted
        if enough or spent + self._warm_up >= _MAX_SECONDS:
            raise _Enough

    def result(self) -> Trial:
        """Return the speed of the steps that were measured."""
        used = time.process_time() - self._begin
        seconds = sum(self._seconds)
        return Trial(
            flops_per_second=robust_rate(self._flops, self._seconds),
            num_steps=len(self._seconds),
            seconds=seconds,
            core_share=min(1.0, used / max(seconds * torch.get_num_threads(), 1e-9)),
        )


class _RandomText:
    """The `Task` of a trial: one micro-batch of random tokens, again and again."""

    def __init__(self, settings: TrialSettings) -> None:
        self._settings = settings
        self._batch = _random_batch(settings)

    def steps(self, progress: Progress) -> Iterator[Step]:
        """Yield steps without end, all of them alike."""
        count = self._settings.micro_batches
        num_tokens = count * self._batch.batch.total_tokens
        while True:
            progress = replace(
                progress, step=progress.step + 1, tokens=progress.tokens + num_tokens
            )
            yield Step(
                micro_batches=[self._batch] * count,
                progress=progress,
                num_targets=count * self._batch.num_masked,
                num_tokens=num_tokens,
                fill=1.0,
                figures={"flops": self._settings.flops_per_step},
            )

    def loss(self, module: nn.Module, micro_batch: MaskedBatch, *, step: int) -> Tensor:
        """Return the sum of the losses of the masked tokens."""
        assert isinstance(module, MaskedLanguageModel)
        dropout = None
        if self._settings.dropout:
            dropout = Dropout(
                self._settings.dropout,
                keys=[(_SEED, step, 0)],
                num_tokens_each=micro_batch.bin_tokens_each,
            )
        return masked_token_loss(
            module, micro_batch, dropout, max_logits_bytes=self._settings.max_logits_bytes
        )

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Return nothing, as a trial is not about quality."""
        del module
        return {}


def _random_batch(settings: TrialSettings) -> MaskedBatch:
    """Random tokens of the wanted lengths, with a share of them to predict."""
    generator = torch.Generator().manual_seed(_SEED)
    vocab_size = settings.config.vocab_size
    batch = PackedBatch.from_sequences(
        [
            torch.randint(vocab_size, (length,), generator=generator).tolist()
            for length in settings.lengths
        ]
    )
    drawn = torch.rand(batch.total_tokens, generator=generator) < settings.mask_rate
    rows = drawn.nonzero().flatten()
    return MaskedBatch(
        batch=batch,
        masked_indices=rows,
        labels=batch.token_ids[rows],
        bin_ids=(0,),
        bin_tokens_each=(batch.total_tokens,),
    )


def _affordable(settings: TrialSettings) -> TrialSettings:
    """The same with fewer micro-batches, then fewer layers, where a step would take too long."""
    while settings.flops_per_step > _MAX_STEP_FLOPS:
        kinds = settings.config.layer_kinds
        if settings.micro_batches > 1:
            settings = replace(settings, micro_batches=settings.micro_batches // 2)
        elif len(kinds) > _MIN_LAYERS:
            kinds = kinds[: max(_MIN_LAYERS, len(kinds) // 2)]
            settings = replace(settings, config=replace(settings.config, layer_kinds=kinds))
        else:
            break
    return settings
