"""All runs of a fine-tuning recipe, and the folder that comes of them.

The folder, `output` of the recipe, holds

    recipe.toml       the recipe with all its values
    runs/             a folder for each run: see `fine_tuning_run`
    results.json      every run's scores, their means and their spread over the seeds
    model/            the best model with its tokenizer, as transformers loads it too
    report.html       curves, figures of each label, and what the model is most wrong about

Stopped at any moment, the same call goes on where it was.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modernbert.errors import RunError
from modernbert.files import new_folder, remove_folder, write_whole
from modernbert.inference.loading import folder_fingerprint
from modernbert.model.config_file import find_model
from modernbert.settings import to_mapping, to_toml
from modernbert.tasks.fine_tuning_recipe import FineTuningRecipe, Run
from modernbert.tasks.fine_tuning_report import write_report
from modernbert.tasks.fine_tuning_results import Results
from modernbert.tasks.fine_tuning_run import Outcome, fine_tune
from modernbert.tasks.job import Job, Verb
from modernbert.tasks.jobs import open_job
from modernbert.tasks.model_card import model_card
from modernbert.tasks.run_pool import RunPool, num_processes
from modernbert.training import run_folder
from modernbert.training.log import Record

MODEL_FOLDER = "model"
RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"

RunObserver = Callable[[str, Record], None]
"""Hears of each record of each run, by the name of the run."""


def nobody(_run: str, _record: Record) -> None:
    """Hears of nothing."""


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
    with run_folder.locked(recipe.output):
        run_folder.claim(recipe.output, _identity(job, recipe))
        write_whole(recipe.output / "recipe.toml", to_toml(recipe).encode())
        outcomes = _outcomes(job, recipe, on_record)
        results = Results.of(
            outcomes,
            verb=verb,
            metric=recipe.training.metric or job.objective.metric,
            notes=job.notes,
            facts=job.facts,
        )
        _deliver(job, recipe, results)
    return results


def _outcomes(job: Job[Any], recipe: FineTuningRecipe, on_record: RunObserver) -> list[Outcome]:
    """Of all runs, in their order; one after another, or several at once."""
    runs = recipe.runs()
    model = folder_fingerprint(find_model(recipe.model, weights=True))
    together = num_processes(recipe.sweep.processes, len(runs))
    if together > 1:
        return RunPool(job.verb, recipe, model).run(runs, together, on_record)
    return [_one(job, recipe, run, model, on_record) for run in runs]


def _one(
    job: Job[Any], recipe: FineTuningRecipe, run: Run, model: str, on_record: RunObserver
) -> Outcome:
    folder = place_of(recipe, run.name)
    return fine_tune(
        job, run, folder, model=model, observers=[lambda record: on_record(run.name, record)]
    )


def place_of(recipe: FineTuningRecipe, name: str) -> Path:
    """The folder of a run."""
    return recipe.output / "runs" / name


def _deliver(job: Job[Any], recipe: FineTuningRecipe, results: Results) -> None:
    """Write the results, the report and the model; the other runs' models are let go."""
    best = place_of(recipe, results.best.name) / "best"
    folder = recipe.output / MODEL_FOLDER
    content = json.dumps(results.to_mapping(), indent=1, ensure_ascii=False) + "\n"
    write_whole(recipe.output / RESULTS_FILE, content.encode())
    if not folder.exists():
        write_report(job, recipe, results, best, recipe.output / REPORT_FILE)
        try:
            with new_folder(folder) as partial:
                shutil.copytree(best, partial, dirs_exist_ok=True)
                job.tokenizer.save_pretrained(partial, model_max_length=job.config.max_seqlen)
                card = model_card(job, recipe, results)
                (partial / "README.md").write_text(card, encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"{folder}: could not be written: {error}; the training is saved: free some "
                "space and run the same command again"
            ) from None
    for outcome in results.outcomes:
        if (left := place_of(recipe, outcome.name) / "best").exists():
            remove_folder(left)


def _identity(job: Job[Any], recipe: FineTuningRecipe) -> dict[str, Any]:
    """What the results depend on: the same folder is not for another recipe."""
    values = to_mapping(recipe)
    values["sweep"].pop("processes", None)
    values["training"].pop("micro_batch_tokens", None)
    for name in ("output", "data"):
        values.pop(name)
    return {"verb": job.verb, **values, "examples": job.fingerprint}
