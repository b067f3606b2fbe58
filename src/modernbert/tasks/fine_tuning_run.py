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

from modernbert.errors import RunError
from modernbert.files import remove_folder, write_whole
from modernbert.inference.batching import batch_tokens_for
from modernbert.settings import to_mapping
from modernbert.tasks.best_model import BestModel
from modernbert.tasks.epochs import Epochs
from modernbert.tasks.fine_tuning import FineTuning, evaluate
from modernbert.tasks.fine_tuning_recipe import FineTuningSettings, Run
from modernbert.tasks.first_model import freeze, layer_groups, training_device
from modernbert.tasks.job import Job
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
    if not best.figures:
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
        dev=best.best_figures,
        test=_test_scores(job, run.training, best.folder),
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
    job: Job[Any], run: Run, folder: Path, model: str, observers: Sequence[Observer]
) -> tuple[Trainer, BestModel]:
    settings, device = run.training, training_device()
    module = job.build(run.seed).to(device)
    freeze(module, settings)
    epochs = Epochs(
        lengths=[len(example.token_ids) for example in job.train.examples],
        batch_size=settings.batch_size,
        batch_tokens=settings.batch_tokens,
        seed=run.seed,
    )
    best = BestModel(folder, settings.metric or job.objective.metric, settings.patience)
    task = FineTuning(
        job.objective,
        job.train.examples,
        job.dev.examples if job.dev else (),
        epochs,
        device=device,
        micro_batch_tokens=settings.micro_batch_tokens,
    )
    phase = Phase(
        name="fine-tuning",
        task=task,
        settings=_training_settings(run, epochs, job.config.hidden_size),
        groups=lambda module, decay: layer_groups(module, decay, settings.layer_decay),
        evaluates_first=False,
        evaluated=best.evaluated,
        stops=best.out_of_patience,
    )
    values = to_mapping(settings)
    identity = {
        "verb": job.verb,
        "model": model,
        "examples": job.fingerprint,
        "settings": {name: each for name, each in values.items() if name not in _FREE_SETTINGS},
    }
    trainer = Trainer(
        module, [phase], folder, observers=[best, *observers], device=device, identity=identity
    )
    return trainer, best


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


def _test_scores(job: Job[Any], settings: FineTuningSettings, folder: Path) -> dict[str, float]:
    """The scores of the best weights on rows that nothing was chosen by."""
    if job.test is None:
        return {}
    device = training_device()
    model = job.load(str(folder)).to(device)
    tokens = batch_tokens_for(device, settings.micro_batch_tokens)
    with undisturbed(model, device), autocast(device, settings.precision):
        return evaluate(model, job.objective, job.test.examples, device, tokens)


def _seconds(folder: Path) -> float:
    rows = read_metrics(folder / METRICS_FILE)
    return sum(float(row["seconds"]) for row in rows if row["kind"] in ("step", "evaluation"))
