"""One run of a fine-tuning: from its first model to the best weights and their scores.

The folder of a run holds

    metrics.jsonl     a line for each step, evaluation and checkpoint
    checkpoints/      what a run that was stopped goes on from, until it is finished
    best/             the model of the best evaluation
    outcome.json      at the end: how good that is
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modernbert.errors import RunError
from modernbert.files import remove_folder, write_whole
from modernbert.inference.batching import batch_tokens_for
from modernbert.model.heads import SequenceClassifier
from modernbert.model.pretrained import SavedModel
from modernbert.settings import to_mapping
from modernbert.tasks.best_model import BestModel
from modernbert.tasks.epochs import Epochs
from modernbert.tasks.few_shot import (
    PASSES_PER_EPOCH,
    Likeness,
    TextVectors,
    fit_last_layer,
    require_single_label,
)
from modernbert.tasks.fine_tuning import FineTuning, Objective, evaluate
from modernbert.tasks.fine_tuning_recipe import FineTuningSettings, Run
from modernbert.tasks.first_model import freeze, layer_groups, training_device
from modernbert.tasks.job import Job, Model, Split
from modernbert.training import checkpoint
from modernbert.training.isolation import undisturbed
from modernbert.training.log import Observer, read_metrics
from modernbert.training.precision import autocast
from modernbert.training.schedule import ScheduleSettings
from modernbert.training.trainer import METRICS_FILE, Phase, Trainer, TrainingSettings

OUTCOME_FILE = "outcome.json"

# These leave the weights as they are, so that a run may go on under others.
_FREE_SETTINGS = ("micro_batch_tokens",)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    name: of the run.
    best_step: after how many steps the weights were taken.
    seconds: of training and evaluating, without pauses.
    dev, test: scores of those weights; empty without such rows.
    """

    name: str
    seed: int
    learning_rate: float
    weight_decay: float
    epochs: int
    steps: int
    tokens: int
    best_step: int
    seconds: float
    dev: Mapping[str, float]
    test: Mapping[str, float]


class Interrupted(Exception):
    """A signal has stopped a run; all of it is saved.

    exit_code: what a shell expects then.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"stopped by signal {exit_code - 128}")
        self.exit_code = exit_code


def fine_tune(
    job: Job[Any], run: Run, folder: Path, *, model: str, observers: Sequence[Observer] = ()
) -> Outcome:
    """Train one run, from wherever an earlier start has left off.

    model: the fingerprint of the first model, which the run depends on.

    Raises:
        Interrupted: a signal came; the same call goes on.
        ModernBertError: see `Trainer.run`.
    """
    if (outcome := read_outcome(folder)) is not None:
        return outcome
    trainer, best = _trainer(job, run, folder, model, observers)
    result = trainer.run()
    if result.status == "interrupted":
        raise Interrupted(result.exit_code)
    if run.training.few_shot:
        best.keep(_with_last_layer(job, run.training, trainer.module))
    elif not best.figures:
        best.keep(trainer.module)
    outcome = Outcome(
        name=run.name,
        seed=run.seed,
        learning_rate=trainer.settings.schedule.peak_learning_rate,
        weight_decay=run.training.weight_decay,
        epochs=run.training.epochs,
        steps=result.progress.step,
        tokens=result.progress.tokens,
        best_step=best.best_step or result.progress.step,
        seconds=_seconds(folder),
        dev=best.best_figures or _scores(job, run.training, best.folder, job.dev),
        test=_scores(job, run.training, best.folder, job.test),
    )
    write_whole(folder / OUTCOME_FILE, json.dumps(asdict(outcome), indent=1).encode() + b"\n")
    if (folder / checkpoint.FOLDER).exists():
        remove_folder(folder / checkpoint.FOLDER)
    return outcome


def read_outcome(folder: Path) -> Outcome | None:
    """The outcome of a run that is finished; None before.

    Raises:
        RunError: a file that is no outcome.
    """
    path = folder / OUTCOME_FILE
    if not path.exists():
        return None
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path}: not the outcome of a run: {error}; delete it") from None


def _trainer(
    job: Job[Any], run: Run, folder: Path, start: str, observers: Sequence[Observer]
) -> tuple[Trainer, BestModel]:
    settings, device = run.training, training_device()
    model = job.build(run.seed).to(device)
    freeze(model, settings)
    task, module = _task(job, run, model, device)
    best = BestModel(folder, settings.metric or job.objective.metric, settings.patience)
    phase = Phase(
        name="fine-tuning",
        task=task,
        settings=_training_settings(run, task.epochs, job.config.hidden_size),
        groups=lambda module, decay: layer_groups(module, decay, settings.layer_decay),
        evaluates_first=False,
        evaluated=best.evaluated,
        stops=best.out_of_patience,
    )
    values = to_mapping(settings)
    identity = {
        "verb": job.verb,
        "model": start,
        "examples": job.fingerprint,
        "settings": {name: each for name, each in values.items() if name not in _FREE_SETTINGS},
    }
    trainer = Trainer(
        module, [phase], folder, observers=[best, *observers], device=device, identity=identity
    )
    return trainer, best


def _task(
    job: Job[Any], run: Run, model: Model, device: torch.device
) -> tuple[FineTuning[Any], nn.Module]:
    """What is learnt from which examples, and the module that learns it."""
    settings, train = run.training, job.train.examples
    objective: Objective[Any] = job.objective
    module: nn.Module = model
    dev: Sequence[Any] = job.dev.examples if job.dev else ()
    if settings.few_shot:
        require_single_label(objective)
        assert isinstance(model, SequenceClassifier)
        objective, module, dev = Likeness(), TextVectors(model), ()
        train = [example for example in train for _ in range(PASSES_PER_EPOCH)]
    epochs = Epochs(
        lengths=[len(example.token_ids) for example in train],
        batch_size=settings.batch_size,
        batch_tokens=settings.batch_tokens,
        seed=run.seed,
    )
    task = FineTuning(
        objective,
        train,
        dev,
        epochs,
        device=device,
        micro_batch_tokens=settings.micro_batch_tokens,
    )
    return task, module


def _training_settings(run: Run, epochs: Epochs, hidden_size: int) -> TrainingSettings:
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
        precision=settings.precision,
        seed=run.seed,
        evaluate_every_steps=max(1, round(steps_per_epoch / settings.evaluations_per_epoch)),
        keep_checkpoints=1,
    )


def _with_last_layer(job: Job[Any], settings: FineTuningSettings, module: nn.Module) -> SavedModel:
    """The classifier of a few-shot run."""
    assert isinstance(module, TextVectors)
    device = training_device()
    tokens = batch_tokens_for(device, settings.micro_batch_tokens)
    with undisturbed(module, device), autocast(device, settings.precision):
        return fit_last_layer(module, job.train.examples, device, tokens)


def _scores(
    job: Job[Any], settings: FineTuningSettings, folder: Path, split: Split[Any] | None
) -> dict[str, float]:
    """The scores of the weights that are kept; none without rows."""
    if split is None:
        return {}
    device = training_device()
    model = job.load(str(folder)).to(device)
    tokens = batch_tokens_for(device, settings.micro_batch_tokens)
    with undisturbed(model, device), autocast(device, settings.precision):
        return evaluate(model, job.objective, split.examples, device, tokens)


def _seconds(folder: Path) -> float:
    rows = read_metrics(folder / METRICS_FILE)
    return sum(float(row["seconds"]) for row in rows if row["kind"] in ("step", "evaluation"))
