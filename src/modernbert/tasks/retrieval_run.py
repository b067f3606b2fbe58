"""Training retrievers and rerankers from a recipe to a model folder.

The folder, `output` of the recipe, holds

    recipe.toml       the recipe with all its values
    metrics.jsonl     a line for each step, evaluation and checkpoint
    checkpoints/      what a run that was stopped goes on from, until it is finished
    best/             the model of the best evaluation, until it is finished
    model/            at the end: the model, as sentence-transformers loads it too
    results.json      how good it is

Stopped at any moment, the same call goes on where it was.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

from torch import nn

from modernbert.data.judged_texts import is_judged_folder, read_judged_texts
from modernbert.errors import InputError, RunError
from modernbert.files import remove_folder, write_whole
from modernbert.inference.inputs import TextEncoder
from modernbert.inference.loading import folder_fingerprint, longest_sequence
from modernbert.model.config import EncoderConfig
from modernbert.model.config_file import find_model
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.settings import to_mapping, to_toml
from modernbert.tasks.best_model import BestModel
from modernbert.tasks.first_model import first_model, training_device
from modernbert.tasks.learners import Learner, text_learner, token_learner
from modernbert.tasks.reranker_folder import save_reranker
from modernbert.tasks.reranking import Reranking
from modernbert.tasks.retrieval import Retrieval
from modernbert.tasks.retrieval_card import retrieval_card
from modernbert.tasks.retrieval_data import (
    RetrievalData,
    as_judged_texts,
    read_retrieval_data,
)
from modernbert.tasks.retrieval_examples import Kind, prepared
from modernbert.tasks.retrieval_recipe import RetrievalRecipe, RetrievalTrainingSettings
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training import checkpoint, run_folder
from modernbert.training.log import Observer
from modernbert.training.schedule import ScheduleSettings
from modernbert.training.trainer import Phase, Result, Trainer, TrainingSettings

MODEL_FOLDER = "model"
RESULTS_FILE = "results.json"
_FREE_SETTINGS = ("micro_batch_tokens",)


@dataclass(frozen=True, kw_only=True)
class RankingJob:
    """A recipe with its model and data opened.

    notes: what a user should know of the data, a line each.
    save: writes the model into a folder.
    """

    kind: Kind
    recipe: RetrievalRecipe
    module: nn.Module
    task: Retrieval | Reranking
    config: EncoderConfig
    notes: Sequence[str]
    fingerprint: str
    save: Callable[[Path], None]


def open_ranking_job(kind: Kind, recipe: RetrievalRecipe) -> RankingJob:
    """Read all that a recipe names, and check it.

    Raises:
        ModernBertError: the model or the data cannot be used.
    """
    data, loss, notes = prepared(kind, recipe)
    settings = replace(recipe.training, loss=loss)
    if kind == "rerank":
        return _rerank_job(recipe, settings, data, notes)
    learner = (text_learner if kind == "retrieve" else token_learner)(recipe)
    if settings.matryoshka_dims and kind != "retrieve":
        raise InputError("matryoshka_dims: are for one vector a text")
    device = training_device()
    task = Retrieval(cast(Learner, learner.to(device)), data, settings, _dev(recipe), device=device)
    return RankingJob(
        kind=kind,
        recipe=replace(recipe, training=settings),
        module=learner,
        task=task,
        config=learner.embedder.model.config,
        notes=notes,
        fingerprint=_fingerprint(data),
        save=learner.save,
    )


def train_ranking(
    job: RankingJob, observers: Sequence[Observer] = ()
) -> tuple[Result, dict[str, Any]]:
    """Train, from wherever an earlier start has left off, and deliver the model.

    Returns how the run ended, and, unless a signal came, its results as JSON values.

    Raises:
        ModernBertError: see `Trainer.run`.
    """
    output = job.recipe.output
    if (output / MODEL_FOLDER).exists() and not (output / run_folder.RUN_FILE).exists():
        raise RunError(f"{output / MODEL_FOLDER}: is there and of no run; take another output")
    best = _Best(job)
    trainer = Trainer(
        job.module,
        [
            Phase(
                name=job.kind,
                task=job.task,
                settings=_training_settings(job),
                evaluates_first=False,
                evaluated=best.evaluated,
                stops=best.out_of_patience,
            )
        ],
        output,
        observers=[best, _RecipeFile(job.recipe), *observers],
        device=job.task.device,
        identity=_identity(job),
    )
    if (output / RESULTS_FILE).exists():  # its checkpoints are gone
        run_folder.claim(output, trainer.identity)
        done = Result(status="already_finished", progress=trainer.progress, evaluation={})
        return done, _deliver(job, best, done)
    result = trainer.run()
    if result.status == "interrupted":
        return result, {}
    return result, _deliver(job, best, result)


def _rerank_job(
    recipe: RetrievalRecipe,
    settings: RetrievalTrainingSettings,
    data: RetrievalData,
    notes: list[str],
) -> RankingJob:
    head = ClassifierSettings(labels=("LABEL_0",), pooling=settings.pooling, problem="regression")
    model = first_model(SequenceClassifier, head, recipe.model, seed=settings.seed)
    tokenizer = Tokenizer.from_pretrained(recipe.model)
    max_seqlen = longest_sequence(model.config, tokenizer, recipe.data.max_seqlen)
    dev = recipe.data.dev
    device = training_device()
    task = Reranking(
        TextEncoder(tokenizer, max_seqlen),
        data,
        settings,
        None if dev is None else read_retrieval_data(dev, recipe.data.dev_split),
        device=device,
    )
    activation: Literal["Sigmoid", "Identity"] = (
        "Sigmoid" if settings.loss == "binary" else "Identity"
    )
    return RankingJob(
        kind="rerank",
        recipe=replace(recipe, training=settings),
        module=model.to(device),
        task=task,
        config=model.config,
        notes=notes,
        fingerprint=_fingerprint(data),
        save=lambda folder: save_reranker(
            model, tokenizer, folder, activation=activation, max_seqlen=max_seqlen
        ),
    )


def _dev(recipe: RetrievalRecipe) -> Any:
    dev, split = recipe.data.dev, recipe.data.dev_split
    if dev is None:
        return None
    if is_judged_folder(Path(dev)):
        return read_judged_texts(dev, split)
    return as_judged_texts(read_retrieval_data(dev, split), dev)


class _Best(BestModel):
    """Keeps the best model by the job's own way of writing it."""

    def __init__(self, job: RankingJob) -> None:
        settings = job.recipe.training
        super().__init__(job.recipe.output, settings.metric, settings.patience)
        self._save = job.save

    def keep(self, model: nn.Module) -> None:  # noqa: ARG002
        """Write the model in place of the one that was the best."""
        if self.folder.exists():
            remove_folder(self.folder)
        self._save(self.folder)


class _RecipeFile:
    """Writes the recipe into the run's folder, once that is known to be this run's."""

    def __init__(self, recipe: RetrievalRecipe) -> None:
        self.recipe = recipe

    def __call__(self, record: Mapping[str, Any]) -> None:
        if record["kind"] in ("start", "resume"):
            write_whole(self.recipe.output / "recipe.toml", to_toml(self.recipe).encode())


def _training_settings(job: RankingJob) -> TrainingSettings:
    settings, epochs = job.recipe.training, job.task.epochs
    total = settings.epochs * epochs.num_tokens
    warmup = int(settings.warmup_fraction * total)
    rate = settings.learning_rate or 5e-5 * 768 / job.config.hidden_size
    return TrainingSettings(
        total_tokens=total,
        schedule=ScheduleSettings(
            peak_learning_rate=rate,
            warmup_tokens=warmup,
            decay="linear",
            decay_tokens=total - warmup,
            final_fraction=0.0,
        ),
        weight_decay=settings.weight_decay,
        precision=settings.precision,
        seed=settings.seed,
        evaluate_every_steps=max(1, round(epochs.num_steps(1) / settings.evaluations_per_epoch)),
        keep_checkpoints=1,
    )


def _deliver(job: RankingJob, best: BestModel, result: Result) -> dict[str, Any]:
    """Write the model's folder and the results, unless they are there."""
    output = job.recipe.output
    if (output / RESULTS_FILE).exists():
        found: dict[str, Any] = json.loads((output / RESULTS_FILE).read_text(encoding="utf-8"))
        return found
    if not (output / MODEL_FOLDER).exists():
        if not best.folder.exists():
            best.keep(job.module)
        results = {
            "kind": job.kind,
            "steps": result.progress.step,
            "tokens": result.progress.tokens,
            "best_step": best.best_step or result.progress.step,
            "dev": dict(best.best_figures),
        }
        card = retrieval_card(job.kind, job.recipe, results, job.notes)
        write_whole(best.folder / "README.md", card.encode())
        write_whole(best.folder / RESULTS_FILE, json.dumps(results, indent=1).encode() + b"\n")
        best.folder.rename(output / MODEL_FOLDER)
    text = (output / MODEL_FOLDER / RESULTS_FILE).read_text(encoding="utf-8")
    write_whole(output / RESULTS_FILE, text.encode())
    if (output / checkpoint.FOLDER).exists():
        remove_folder(output / checkpoint.FOLDER)
    delivered: dict[str, Any] = json.loads(text)
    return delivered


def _identity(job: RankingJob) -> dict[str, Any]:
    values, data = to_mapping(job.recipe.training), to_mapping(job.recipe.data)
    return {
        "task": job.kind,
        "model": folder_fingerprint(find_model(job.recipe.model, weights=True)),
        "examples": job.fingerprint,
        "lengths": {name: data.get(name) for name in ("max_seqlen", "query_max_seqlen")},
        "settings": {name: each for name, each in values.items() if name not in _FREE_SETTINGS},
    }


def _fingerprint(data: RetrievalData) -> str:
    digest = sha256()
    for example in data.examples:
        digest.update(json.dumps(asdict(example)).encode())
    return digest.hexdigest()
