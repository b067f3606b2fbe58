"""All runs of a recipe for labelled rows; see `all_runs` for the folder that comes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from modernbert.inference.loading import folder_fingerprint
from modernbert.model.config_file import find_model
from modernbert.tasks.labels.card import model_card
from modernbert.tasks.labels.job import Job, Verb
from modernbert.tasks.labels.jobs import open_job
from modernbert.tasks.labels.recipe import FineTuningRecipe, FineTuningSettings
from modernbert.tasks.labels.report import write_report
from modernbert.tasks.labels.run import fine_tune
from modernbert.tasks.tuning.outcome import Outcome
from modernbert.tasks.tuning.results import Results
from modernbert.tasks.tuning.run_pool import Train
from modernbert.tasks.tuning.run_settings import Run
from modernbert.tasks.tuning.runs import MODEL_FOLDER, RunObserver, nobody, run_all
from modernbert.training.log import Observer

__all__ = ["MODEL_FOLDER", "fine_tune_all"]


def fine_tune_all(
    verb: Verb,
    recipe: FineTuningRecipe,
    *,
    on_job: Callable[[Job[Any]], None] = lambda _: None,
    on_record: RunObserver = nobody,
) -> Results:
    """Train every run of a recipe, from wherever an earlier start has left off, and deliver.

    on_job: is told what was read, before the training.
    on_record: is told each record of each run.

    Raises:
        Interrupted: a signal came; the same call goes on.
        ModernBertError: something in the recipe, or in what it names, cannot be used.
    """
    job = open_job(verb, recipe)
    on_job(job)
    model = folder_fingerprint(find_model(recipe.model, weights=True))
    work = LabelledRuns(job=job, recipe=recipe, model=model)
    return run_all(work, partial(_reopen, verb, recipe, model), on_record)


@dataclass(frozen=True, kw_only=True)
class LabelledRuns:
    """The `Work` of labelled rows.

    model: the fingerprint of the first model.
    """

    job: Job[Any]
    recipe: FineTuningRecipe
    model: str

    @property
    def verb(self) -> str:
        """Of the command line."""
        return self.job.verb

    @property
    def metric(self) -> str:
        """The score that chooses."""
        return self.recipe.training.metric or self.job.objective.metric

    @property
    def notes(self) -> Sequence[str]:
        """Of the data."""
        return self.job.notes

    @property
    def facts(self) -> Mapping[str, Any]:
        """Of the data."""
        return self.job.facts

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the runs depend on besides the settings."""
        return {"examples": self.job.fingerprint}

    def train(
        self, run: Run[FineTuningSettings], folder: Path, observers: Sequence[Observer]
    ) -> Outcome:
        """Train one run."""
        return fine_tune(self.job, run, folder, model=self.model, observers=observers)

    def complete(self, folder: Path, results: Results) -> None:
        """Add the tokenizer and the card."""
        self.job.tokenizer.save_pretrained(folder, model_max_length=self.job.config.max_seqlen)
        card = model_card(self.job, self.recipe, results)
        (folder / "README.md").write_text(card, encoding="utf-8")

    def report(self, results: Results, best: Path, path: Path) -> None:
        """Write the page."""
        write_report(self.job, self.recipe, results, best, path)


def _reopen(verb: Verb, recipe: FineTuningRecipe, model: str) -> Train:
    """The same in another process."""
    return LabelledRuns(job=open_job(verb, recipe), recipe=recipe, model=model).train
