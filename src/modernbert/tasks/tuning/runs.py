"""All runs of a fine-tuning's recipe, whatever it learns, and the folder that comes of them.

The folder, `output` of the recipe, holds

    recipe.toml       the recipe with all its values
    runs/             a folder for each run: see `one_run`
    results.json      every run's scores, their means and their spread over the seeds
    model/            the best model with its tokenizer and its card
    report.html       curves, scores, and what the model is most wrong about

Stopped at any moment, the same call goes on where it was.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from modernbert.errors import RunError
from modernbert.files import new_folder, remove_folder, write_whole
from modernbert.settings import to_mapping, to_toml
from modernbert.tasks.tuning.outcome import Outcome
from modernbert.tasks.tuning.results import Results
from modernbert.tasks.tuning.run_pool import Train, num_processes, run_together
from modernbert.tasks.tuning.run_settings import Run, SweepSettings
from modernbert.training import run_folder
from modernbert.training.log import Observer, Record

MODEL_FOLDER = "model"
RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"

RunObserver = Callable[[str, Record], None]
"""Hears of each record of each run, by the name of the run."""


def nobody(_run: str, _record: Record) -> None:
    """Hears of nothing."""


class Recipe(Protocol):
    """What all recipes of fine-tunings have."""

    @property
    def model(self) -> str: ...

    @property
    def output(self) -> Path: ...

    @property
    def sweep(self) -> SweepSettings: ...

    def runs(self) -> Sequence[Run[Any]]: ...


class Work(Protocol):
    """A recipe with all that it names opened, for any number of runs.

    verb: its name on the command line.
    metric: the score that chooses.
    notes: what a user should know of the data, a line each.
    facts: more of the data, by name.
    identity: what the runs depend on besides the recipe's settings, as JSON values.
    """

    @property
    def verb(self) -> str: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def metric(self) -> str: ...

    @property
    def notes(self) -> Sequence[str]: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def train(self, run: Run[Any], folder: Path, observers: Sequence[Observer]) -> Outcome:
        """Train one run into its folder, from wherever it is."""

    def complete(self, folder: Path, results: Results) -> None:
        """Add to a folder with the best model what makes it whole: tokenizer, card."""

    def report(self, results: Results, best: Path, path: Path) -> None:
        """Write the page; `best` is the folder of the best model."""


def run_all(work: Work, reopen: Callable[[], Train], on_record: RunObserver = nobody) -> Results:
    """Train every run of a recipe, from wherever an earlier start has left off, and deliver.

    reopen: opens the same in another process, so it can be pickled; gives its `train`.
    on_record: is told each record of each run.

    Raises:
        Interrupted: a signal came; the same call goes on.
        RunError: the folder is another recipe's, or has a model of no run.
        ModernBertError: something in the recipe, or in what it names, cannot be used.
    """
    output = work.recipe.output
    if (output / MODEL_FOLDER).exists() and not (output / run_folder.RUN_FILE).exists():
        raise RunError(f"{output / MODEL_FOLDER}: is there and of no run; take another output")
    with run_folder.locked(output):
        run_folder.claim(output, run_folder.plain(_identity(work)))
        write_whole(output / "recipe.toml", to_toml(work.recipe).encode())
        results = Results.of(
            _outcomes(work, reopen, on_record),
            verb=work.verb,
            metric=work.metric,
            notes=work.notes,
            facts=work.facts,
        )
        _deliver(work, results)
    return results


def place_of(recipe: Recipe, name: str) -> Path:
    """The folder of a run."""
    return recipe.output / "runs" / name


def _outcomes(work: Work, reopen: Callable[[], Train], on_record: RunObserver) -> list[Outcome]:
    """Of all runs, in their order; one after another, or several at once."""
    runs = [(run, place_of(work.recipe, run.name)) for run in work.recipe.runs()]
    together = num_processes(work.recipe.sweep.processes, len(runs))
    if together > 1:
        return run_together(reopen, runs, together, on_record)
    return [work.train(run, folder, [partial(on_record, run.name)]) for run, folder in runs]


def _deliver(work: Work, results: Results) -> None:
    """Write the results, the report and the model; the other runs' models are let go."""
    output = work.recipe.output
    best = place_of(work.recipe, results.best.name) / "best"
    folder = output / MODEL_FOLDER
    content = json.dumps(results.to_mapping(), indent=1, ensure_ascii=False) + "\n"
    write_whole(output / RESULTS_FILE, content.encode())
    if not folder.exists():
        work.report(results, best, output / REPORT_FILE)
        try:
            with new_folder(folder) as partial:
                shutil.copytree(best, partial, dirs_exist_ok=True)
                work.complete(partial, results)
        except OSError as error:
            raise RunError(
                f"{folder}: could not be written: {error}; the training is saved: free some "
                "space and run the same command again"
            ) from None
    for outcome in results.outcomes:
        if (left := place_of(work.recipe, outcome.name) / "best").exists():
            remove_folder(left)


def _identity(work: Work) -> dict[str, Any]:
    """What the results depend on: the same folder is not for another recipe."""
    values = to_mapping(work.recipe)
    values["sweep"].pop("processes", None)
    values["training"].pop("micro_batch_tokens", None)
    for name in ("output", "data"):
        values.pop(name)
    return {"verb": work.verb, **values, **work.identity}
