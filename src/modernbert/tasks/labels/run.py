"""One run of a fine-tuning on labels: its task, its model, and what is kept of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modernbert.inference.batching import batch_tokens_for
from modernbert.model.heads import SequenceClassifier
from modernbert.model.pretrained import SavedModel
from modernbert.tasks.labels.few_shot import (
    PASSES_PER_EPOCH,
    Likeness,
    TextVectors,
    fit_last_layer,
    require_single_label,
)
from modernbert.tasks.labels.job import Job, Model, Split
from modernbert.tasks.labels.recipe import FineTuningSettings
from modernbert.tasks.tuning.best_model import BestModel
from modernbert.tasks.tuning.epochs import Epochs
from modernbert.tasks.tuning.fine_tuning import FineTuning, Objective, evaluate
from modernbert.tasks.tuning.first_model import training_device
from modernbert.tasks.tuning.outcome import Outcome
from modernbert.tasks.tuning.run import Beginning, train_one
from modernbert.tasks.tuning.run_settings import Run
from modernbert.training.isolation import undisturbed
from modernbert.training.log import Observer
from modernbert.training.precision import autocast


def fine_tune(
    job: Job[Any],
    run: Run[FineTuningSettings],
    folder: Path,
    *,
    model: str,
    observers: Sequence[Observer] = (),
) -> Outcome:
    """Train one run, from wherever an earlier start has left off.

    model: the fingerprint of the first model, which the run depends on.

    Raises:
        Interrupted: a signal came; the same call goes on.
        ModernBertError: see `Trainer.run`.
    """
    return train_one(run, folder, lambda: _beginning(job, run, folder, model), observers)


def _beginning(job: Job[Any], run: Run[FineTuningSettings], folder: Path, start: str) -> Beginning:
    settings, device = run.training, training_device()
    model = job.build(run.seed).to(device)
    task, module = _task(job, run, model, device)
    best = BestModel(folder, settings.metric or job.objective.metric, settings.patience)

    def deliver(trained: nn.Module) -> tuple[Mapping[str, float], Mapping[str, float]]:
        if settings.few_shot:
            best.keep(_with_last_layer(job, settings, trained))
        elif not best.figures:
            best.keep(trained)
        dev = best.best_figures or _scores(job, settings, best.folder, job.dev)
        return dev, _scores(job, settings, best.folder, job.test)

    return Beginning(
        name="fine-tuning",
        module=module,
        task=task,
        best=best,
        hidden_size=job.config.hidden_size,
        device=device,
        identity={"verb": job.verb, "model": start, "examples": job.fingerprint},
        deliver=deliver,
    )


def _task(
    job: Job[Any], run: Run[FineTuningSettings], model: Model, device: torch.device
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
