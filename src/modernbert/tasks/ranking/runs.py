"""Training retrievers and rerankers; see `all_runs` for the folder that comes of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from modernbert.files import remove_folder
from modernbert.inference.loading import folder_fingerprint
from modernbert.model.config_file import find_model
from modernbert.tasks.ranking.card import retrieval_card
from modernbert.tasks.ranking.examples import Kind
from modernbert.tasks.ranking.job import Ranker, RankingJob, open_ranking_job
from modernbert.tasks.ranking.recipe import RetrievalRecipe, RetrievalTrainingSettings
from modernbert.tasks.ranking.report import write_ranking_report
from modernbert.tasks.tuning.best_model import BestModel
from modernbert.tasks.tuning.outcome import Outcome
from modernbert.tasks.tuning.results import Results
from modernbert.tasks.tuning.run import Beginning, Scores, train_one
from modernbert.tasks.tuning.run_pool import Train
from modernbert.tasks.tuning.run_settings import Run
from modernbert.tasks.tuning.runs import MODEL_FOLDER, RunObserver, nobody, run_all
from modernbert.training.log import Observer

__all__ = ["MODEL_FOLDER", "RankingJob", "open_ranking_job", "train_ranking"]


def train_ranking(
    kind: Kind,
    recipe: RetrievalRecipe,
    *,
    on_job: Callable[[RankingJob], None] = lambda _: None,
    on_record: RunObserver = nobody,
) -> Results:
    """Train every run of a recipe, from wherever an earlier start has left off, and deliver.

    on_job: is told what was read, before the training.
    on_record: is told each record of each run.

    Raises:
        Interrupted: a signal came; the same call goes on.
        ModernBertError: something in the recipe, or in what it names, cannot be used.
    """
    job = open_ranking_job(kind, recipe)
    on_job(job)
    model = folder_fingerprint(find_model(recipe.model, weights=True))
    return run_all(RankingRuns(job, model), partial(_reopen, kind, recipe, model), on_record)


@dataclass(frozen=True)
class RankingRuns:
    """The `Work` of rankings.

    model: the fingerprint of the first model.
    """

    job: RankingJob
    model: str

    @property
    def verb(self) -> str:
        """Of the command line."""
        return self.job.kind

    @property
    def recipe(self) -> RetrievalRecipe:
        """All that decides it."""
        return self.job.recipe

    @property
    def metric(self) -> str:
        """The score that chooses."""
        return self.recipe.training.metric

    @property
    def notes(self) -> Sequence[str]:
        """Of the data."""
        return self.job.notes

    @property
    def facts(self) -> Mapping[str, object]:
        """Of the data."""
        data = self.job.task.data
        return {"examples": len(data.examples), "loss": self.recipe.training.loss}

    @property
    def identity(self) -> Mapping[str, object]:
        """What the runs depend on besides the settings."""
        return {"examples": self.job.fingerprint}

    def train(
        self, run: Run[RetrievalTrainingSettings], folder: Path, observers: Sequence[Observer]
    ) -> Outcome:
        """Train one run."""
        return train_one(run, folder, lambda: self._beginning(run, folder), observers)

    def complete(self, folder: Path, results: Results) -> None:
        """Add the card."""
        card = retrieval_card(self.job.kind, self.recipe, results)
        (folder / "README.md").write_text(card, encoding="utf-8")

    def report(self, results: Results, best: Path, path: Path) -> None:
        """Write the page."""
        write_ranking_report(self.job, results, best, path)

    def _beginning(self, run: Run[RetrievalTrainingSettings], folder: Path) -> Beginning:
        job, settings = self.job, run.training
        ranker = job.first(run.seed)
        best = _Best(folder, settings, ranker)

        def deliver(trained: nn.Module) -> tuple[Scores, Scores]:
            if not best.figures:
                best.keep(trained)
            if job.test is None:
                return best.best_figures, {}
            with job.reading(run.seed, best.folder) as kept:
                return best.best_figures, job.test.evaluate(kept)

        return Beginning(
            name=job.kind,
            module=ranker.module,
            task=job.task.seeded(run.seed),
            best=best,
            hidden_size=job.config.hidden_size,
            device=job.task.device,
            identity={"verb": job.kind, "model": self.model, "examples": job.fingerprint},
            deliver=deliver,
        )


class _Best(BestModel):
    """Keeps the best model by its own way of writing it."""

    def __init__(
        self, run_folder: Path, settings: RetrievalTrainingSettings, ranker: Ranker
    ) -> None:
        super().__init__(run_folder, settings.metric, settings.patience)
        self._save = ranker.save

    def keep(self, model: nn.Module) -> None:  # noqa: ARG002
        """Write the model in place of the one that was the best."""
        if self.folder.exists():
            remove_folder(self.folder)
        self._save(self.folder)


def _reopen(kind: Kind, recipe: RetrievalRecipe, model: str) -> Train:
    """The same in another process."""
    return RankingRuns(open_ranking_job(kind, recipe), model).train
