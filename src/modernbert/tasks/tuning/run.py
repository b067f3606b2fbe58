"""One run of a fine-tuning, whatever it learns: from its first step to the best weights.

The folder of a run holds

    metrics.jsonl     a line for each step, evaluation and checkpoint
    checkpoints/      what a run that was stopped goes on from, until it is finished
    best/             the model of the best evaluation
    outcome.json      at the end: how good that is
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from modernbert.files import remove_folder
from modernbert.settings import to_mapping
from modernbert.tasks.tuning.best_model import BestModel
from modernbert.tasks.tuning.epochs import Epochs
from modernbert.tasks.tuning.first_model import freeze, layer_groups
from modernbert.tasks.tuning.outcome import Interrupted, Outcome, read_outcome, write_outcome
from modernbert.tasks.tuning.run_settings import Run, S
from modernbert.training import checkpoint
from modernbert.training.log import Observer, read_metrics
from modernbert.training.schedule import ScheduleSettings
from modernbert.training.task import Task
from modernbert.training.trainer import METRICS_FILE, Phase, Trainer, TrainingSettings

Scores = Mapping[str, float]

# These leave the weights as they are, so that a run may go on under others.
FREE_SETTINGS = ("micro_batch_tokens",)

# AdamW with clipped gradients. With what pretraining takes, the small model of
# benchmarks/finetune found entities of CoNLL-2003 with an F1 of 0.783, with clipped gradients
# 0.791, and with all of this 0.802 (means of two seeds).
_OPTIMIZER: dict[str, Any] = {
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "update_clipping": False,
    "gradient_clipping": 1.0,
}


class EpochTask(Task, Protocol):
    """A task over rows that are seen epoch after epoch."""

    @property
    def epochs(self) -> Epochs: ...


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """A run before its first step.

    name: of what is learnt, for the log.
    module: on the device, with its first weights; what is frozen is left out here.
    best: keeps the best weights.
    hidden_size: of the model, by which the rate goes when none is given.
    identity: what else makes the run this run, besides its settings.
    deliver: makes sure that the best weights are kept, and gives their scores on dev and test.
    """

    name: str
    module: nn.Module
    task: EpochTask
    best: BestModel
    hidden_size: int
    device: torch.device
    identity: Mapping[str, Any]
    deliver: Callable[[nn.Module], tuple[Scores, Scores]]


def train_one(
    run: Run[S], folder: Path, begin: Callable[[], Beginning], observers: Sequence[Observer] = ()
) -> Outcome:
    """Train one run, from wherever an earlier start has left off.

    begin: is asked only when there is something to train.

    Raises:
        Interrupted: a signal came; the same call goes on.
        ModernBertError: see `Trainer.run`.
    """
    if (outcome := read_outcome(folder)) is not None:
        return outcome
    beginning = begin()
    trainer = _trainer(run, folder, beginning, observers)
    result = trainer.run()
    if result.status == "interrupted":
        raise Interrupted(result.exit_code)
    dev, test = beginning.deliver(trainer.module)
    outcome = Outcome(
        name=run.name,
        seed=run.seed,
        learning_rate=trainer.settings.schedule.peak_learning_rate,
        weight_decay=run.training.weight_decay,
        epochs=run.training.epochs,
        steps=result.progress.step,
        tokens=result.progress.tokens,
        best_step=beginning.best.best_step or result.progress.step,
        seconds=_seconds(folder),
        dev=dev,
        test=test,
    )
    write_outcome(folder, outcome)
    if (folder / checkpoint.FOLDER).exists():
        remove_folder(folder / checkpoint.FOLDER)
    return outcome


def _trainer(
    run: Run[S], folder: Path, beginning: Beginning, observers: Sequence[Observer]
) -> Trainer:
    settings, best = run.training, beginning.best
    freeze(beginning.module, settings)
    phase = Phase(
        name=beginning.name,
        task=beginning.task,
        settings=_training_settings(run, beginning.task.epochs, beginning.hidden_size),
        groups=lambda module, decay: layer_groups(module, decay, settings.layer_decay),
        evaluates_first=False,
        evaluated=best.evaluated,
        stops=best.out_of_patience,
    )
    values = to_mapping(settings)
    kept = {name: each for name, each in values.items() if name not in FREE_SETTINGS}
    return Trainer(
        beginning.module,
        [phase],
        folder,
        observers=[best, *observers],
        device=beginning.device,
        identity={**beginning.identity, "settings": kept},
    )


def _training_settings(run: Run[S], epochs: Epochs, hidden_size: int) -> TrainingSettings:
    """The numbers of a run, counted in tokens as the trainer counts."""
    settings = run.training
    total = settings.epochs * epochs.num_tokens
    warmup = int(settings.warmup_fraction * total)
    steps_per_epoch = epochs.num_steps(settings.epochs) / settings.epochs
    return TrainingSettings(
        total_tokens=total,
        schedule=ScheduleSettings(
            peak_learning_rate=settings.peak_rate(hidden_size),
            warmup_tokens=warmup,
            decay="linear",
            decay_tokens=total - warmup,
            final_fraction=0.0,
        ),
        weight_decay=settings.weight_decay,
        **_OPTIMIZER,
        precision=settings.precision,
        seed=run.seed,
        evaluate_every_steps=max(1, round(steps_per_epoch / settings.evaluations_per_epoch)),
        keep_checkpoints=1,
    )


def _seconds(folder: Path) -> float:
    rows = read_metrics(folder / METRICS_FILE)
    return sum(float(row["seconds"]) for row in rows if row["kind"] in ("step", "evaluation"))
