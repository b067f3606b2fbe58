"""One run of any fine-tuning, from its first step to the scores of its best weights.

The folder of a run holds

    metrics.jsonl     a line for each step, evaluation and checkpoint
    checkpoints/      where a stopped run continues, until it is finished
    best/             the model of the best evaluation
    outcome.json      at the end: how good that model is
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from modernbert.errors import InputError, TrainingError
from modernbert.files import remove_folder
from modernbert.model.encoder import encoder_of
from modernbert.model.native.functions import update
from modernbert.settings import to_mapping
from modernbert.tasks.tuning.job import (
    HeldOutSplit,
    Outcome,
    TuningJob,
    goodness,
    read_outcome,
    write_outcome,
)
from modernbert.tasks.tuning.recipe import RunSettings, TuningRun
from modernbert.tasks.tuning.task import Tuning
from modernbert.training import checkpoint
from modernbert.training.computation import autocast, prepare, undisturbed
from modernbert.training.distributed import ALONE, Group
from modernbert.training.interruption import Interrupted
from modernbert.training.log import Observer, read_evaluations, read_metrics
from modernbert.training.optimizer import parameter_groups
from modernbert.training.tensors import gathered, is_sharded
from modernbert.training.trackers import tracking
from modernbert.training.trainer import METRICS_FILE, Phase, Trainer

# These leave the weights as they are, so that a run may go on under others.
FREE_SETTINGS = ("micro_batch_tokens",)


def train_run(
    job: TuningJob,
    run: TuningRun,
    folder: Path,
    *,
    start: str,
    observers: Sequence[Observer] = (),
    group: Group = ALONE,
) -> Outcome:
    """Train one run, starting where an earlier start has stopped.

    Args:
        job: The fine-tuning, with its data.
        run: The seed and the settings of the run.
        folder: The folder of the run, which process 0 writes.
        start: The fingerprint of the model that the run starts from.
        observers: Called with each record of the run, in process 0.
        group: The processes that train together; all of them call this.

    Raises:
        Interrupted: A signal arrived; the same call continues.
        ModernBertError: See `Trainer.run`.
    """
    if (finished := group.first(lambda: _plain(read_outcome(folder)))) is not None:
        return Outcome(**finished)
    module = job.first(run.seed).to(group.device)
    freeze(module, run.training)
    best = BestModel(
        folder,
        job.metric,
        run.training.patience,
        lambda trained: _keep(job, run, trained, folder / "best", group),
        group,
    )
    config = {"recipe": to_mapping(job.recipe), "run": to_mapping(run.training)}
    name = f"{job.recipe.output.name}-{run.name}"
    with tracking(job.recipe.log, folder, name, config, is_first=group.is_first) as trackers:
        heard = [*trackers, *observers]
        trainer = _trainer(job, run, folder, module, best, heard, start, group)
        result = trainer.run()
        if result.status == "interrupted":
            raise Interrupted(result.exit_code)
        _finish(job, run, trainer.module, best, group)
        dev, test = _scores_of_best(job, run, best, group)
        for tracker in trackers if test else ():
            tracker({"kind": "test", "step": result.progress.step, **test})
    outcome = Outcome(
        name=run.name,
        seed=run.seed,
        learning_rate=trainer.settings.schedule.peak_learning_rate,
        weight_decay=run.training.weight_decay,
        epochs=run.training.epochs,
        steps=result.progress.step,
        tokens=result.progress.tokens,
        best_step=best.best_step or result.progress.step,
        seconds=group.first(lambda: _seconds(folder)),
        dev=dev,
        test=test,
    )
    group.first(lambda: _close(folder, outcome))
    return outcome


class BestModel:
    """Follows the evaluations and keeps the model of the best one; of equal ones, the first.

    Every process of a group has one, with the same figures, so that they agree on when to stop.

    Args:
        run_folder: The folder of the run's log; the model is written to its folder `best`.
        metric: The score that should be high, or, for `loss`, low.
        patience: The number of evaluations without a better one after which to stop; None for
            never.
        keep: Writes a model into the folder, in place of the previous best.
        group: The processes that train together.
    """

    def __init__(
        self,
        run_folder: Path,
        metric: str,
        patience: int | None,
        keep: Callable[[nn.Module], None],
        group: Group = ALONE,
    ) -> None:
        self.folder = run_folder / "best"
        self.metric, self.patience, self.keep = metric, patience, keep
        self.figures: list[tuple[int, Mapping[str, float]]] = []
        self._log, self._group = run_folder / METRICS_FILE, group

    def restore(self, evaluated_step: int) -> None:
        """Restore what a resumed run had found up to the evaluation of a step."""
        rows = self._group.first(lambda: read_evaluations(self._log))
        self.figures = [(step, figures) for step, figures in rows if step <= evaluated_step]

    def evaluated(self, model: nn.Module, step: int, figures: Mapping[str, float]) -> None:
        """Take one evaluation; the model is kept if it is the best so far.

        Raises:
            InputError: There is no score of that name.
            TrainingError: The score is NaN.
        """
        if self.metric not in figures:
            raise InputError(
                f"metric: got {self.metric!r}, expected one of {', '.join(sorted(figures))}"
            )
        if math.isnan(figures[self.metric]):
            raise TrainingError(f"step {step}: {self.metric} is NaN; use a lower learning rate")
        self.figures.append((step, dict(figures)))
        if self.best_step == step:
            self.keep(model)

    @property
    def best_step(self) -> int | None:
        """The step of the best evaluation; None before the first."""
        return self.figures[self._best][0] if self.figures else None

    @property
    def best_figures(self) -> Mapping[str, float]:
        """The figures of the best evaluation; empty before the first."""
        return self.figures[self._best][1] if self.figures else {}

    def out_of_patience(self) -> bool:
        """Return whether too many evaluations in a row were no better."""
        if self.patience is None or not self.figures:
            return False
        return len(self.figures) - 1 - self._best >= self.patience

    @property
    def _best(self) -> int:
        """The index of the best evaluation."""
        scores = [goodness(figures, self.metric) for _, figures in self.figures]
        return scores.index(max(scores))


def best_module(job: TuningJob, seed: int, folder: Path, group: Group) -> nn.Module:
    """Load the module of a folder in all processes; process 0 reads it for them."""
    like = job.kept or job.first
    module = job.load(folder) if group.is_first else like(seed)
    return _shared(module.to(group.device), group)


def _shared(module: nn.Module, group: Group) -> nn.Module:
    """Return the module with the values of process 0."""
    for tensor in module.state_dict().values():
        group.broadcast(tensor)
    return module


def _whole(job: TuningJob, seed: int, module: nn.Module, group: Group) -> nn.Module:
    """Return the module, or, if it is sharded, a whole copy of it in process 0."""
    if not any(is_sharded(parameter) for parameter in module.parameters()):
        return module
    tensors = gathered(checkpoint.module_tensors(module), group)
    copy = job.first(seed)
    if group.is_first:
        copy.load_state_dict({**copy.state_dict(), **tensors})
    return copy


def _keep(job: TuningJob, run: TuningRun, module: nn.Module, folder: Path, group: Group) -> None:
    """Write a model in place of the previous best."""
    whole = _whole(job, run.seed, module, group)

    def write() -> None:
        if folder.exists():
            remove_folder(folder)
        job.save(whole, folder)

    group.first(write)


def _finish(
    job: TuningJob, run: TuningRun, trained: nn.Module, best: BestModel, group: Group
) -> None:
    """Make sure that a model is kept if no evaluation has chosen one."""
    if best.figures:
        return
    whole = _whole(job, run.seed, trained, group)
    if whole is not trained:
        whole = _shared(whole.to(group.device), group)
    with undisturbed(whole, group.device), autocast(group.device, run.training.precision):
        finished = job.finish(whole, group)
    _keep(job, run, finished, best.folder, group)


def _scores_of_best(
    job: TuningJob, run: TuningRun, best: BestModel, group: Group
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Compute the scores of the kept weights on dev and test; empty without such rows."""
    dev, test = best.best_figures, dict[str, float]()
    splits: list[HeldOutSplit] = [*(() if dev else ("dev",)), "test"]
    if not any(split in job.splits for split in splits):
        return dev, test
    module, device = best_module(job, run.seed, best.folder, group), group.device
    with undisturbed(module, device), autocast(device, run.training.precision):
        dev = dev or job.objective.evaluate(module, "dev", group)
        return dev, job.objective.evaluate(module, "test", group)


def freeze(model: nn.Module, settings: RunSettings) -> None:
    """Exclude from training what the settings freeze.

    Raises:
        SettingsError: There are fewer layers.
    """
    encoder = encoder_of(model)
    settings.require_layers(encoder.config.num_layers)
    if settings.freeze_embeddings:
        encoder.embeddings.requires_grad_(False)
    for layer in encoder.layers[: settings.freeze_layers]:
        layer.requires_grad_(False)


def layer_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Return the groups of `parameter_groups` for each depth, with the factor of its learning rate.

    The head has the full rate, and each layer that of the layer above times `layer_decay`.
    """
    if layer_decay == 1:
        return parameter_groups(model, weight_decay)
    encoder = encoder_of(model)
    lower: list[nn.Module] = [encoder.embeddings, *encoder.layers]
    below = {id(parameter) for part in lower for parameter in part.parameters()}
    top = nn.ParameterList(each for each in model.parameters() if id(each) not in below)
    return [
        {**group, "rate_factor": layer_decay**distance}
        for distance, part in enumerate([top, *reversed(lower)])
        for group in parameter_groups(part, weight_decay)
    ]


def _trainer(
    job: TuningJob,
    run: TuningRun,
    folder: Path,
    module: nn.Module,
    best: BestModel,
    observers: Sequence[Observer],
    start: str,
    group: Group,
) -> Trainer:
    settings = run.training
    task = Tuning(job, settings, run.seed, group)
    computation = prepare(module, list(encoder_of(module).layers), job.recipe.computation, group)
    values = settings.identity
    kept = {name: each for name, each in values.items() if name not in FREE_SETTINGS}
    phase = Phase(
        name=job.phase,
        task=task,
        settings=run.trainer_settings(
            job.config.hidden_size,
            num_tokens=task.epochs.num_tokens(settings.epochs),
            num_steps=task.epochs.num_steps(settings.epochs),
        ),
        groups=lambda module, decay: layer_groups(module, decay, settings.layer_decay),
        evaluates_first=False,
        # The trainer has its state by then, so it knows which evaluation was the last one.
        begin=lambda _: best.restore(trainer.state.evaluated_step),
        evaluated=best.evaluated,
        stops=best.out_of_patience,
    )
    trainer = Trainer(
        module,
        [phase],
        folder,
        observers=observers,
        device=group.device,
        computation=computation,
        identity={
            "verb": job.verb,
            "model": start,
            "examples": job.fingerprint,
            "settings": kept,
        },
        update=update,
    )
    return trainer


def _close(folder: Path, outcome: Outcome) -> None:
    """Record how the run ended; its checkpoints are not needed any more."""
    write_outcome(folder, outcome)
    if (folder / checkpoint.FOLDER).exists():
        remove_folder(folder / checkpoint.FOLDER)


def _plain(outcome: Outcome | None) -> dict[str, Any] | None:
    return None if outcome is None else asdict(outcome)


def _seconds(folder: Path) -> float:
    rows = read_metrics(folder / METRICS_FILE)
    return sum(
        float(row.get("seconds", 0)) for row in rows if row["kind"] in ("step", "evaluation")
    )
