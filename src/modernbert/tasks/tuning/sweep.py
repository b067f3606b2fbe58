"""All runs of a fine-tuning, one by one or several at once, and the folder of their results.

The folder, `output` of the recipe, holds

    recipe.toml       the recipe with all its values
    runs/             a folder for each run: see `run`
    results.json      every run's scores, their means and their spread over the seeds
    model/            the best model with its tokenizer and its card
    report.html       curves, scores, and the worst mistakes of the model

If it is stopped at any moment, the same call continues.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modernbert.devices import best_device
from modernbert.errors import RunError, SettingsError
from modernbert.files import remove_folder, remove_leftovers, updated_folder, write_whole
from modernbert.hub import CARD
from modernbert.inference.loading import folder_fingerprint
from modernbert.model.config_file import find_model
from modernbert.processes import ProcessPool, num_cores
from modernbert.settings import to_mapping, to_toml
from modernbert.tasks.tuning.job import HeldOutSplit, Outcome, Results, TuningJob, read_outcome
from modernbert.tasks.tuning.page import tuning_card, write_page_of_runs
from modernbert.tasks.tuning.recipe import TuningRecipe, TuningRun
from modernbert.tasks.tuning.run import best_module, train_run
from modernbert.training import run_folder
from modernbert.training.computation import autocast, undisturbed
from modernbert.training.distributed import ALONE, Group
from modernbert.training.interruption import Interrupted, Interruption
from modernbert.training.log import Record

MODEL_FOLDER = "model"
RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"

RunObserver = Callable[[str, Record], None]
"""Hears of each record of each run, by the name of the run."""


def nobody(_run: str, _record: Record) -> None:
    """Ignore a record."""


def run_all(
    job: TuningJob,
    reopen: Callable[[], TuningJob],
    on_record: RunObserver = nobody,
    group: Group = ALONE,
) -> Results:
    """Train every run of a job from where an earlier start has stopped, and write the best model.

    Args:
        job: The fine-tuning, with its data.
        reopen: Opens the same job in another process; it can be pickled.
        on_record: Called with each record of each run, in process 0.
        group: The processes that train each run together; all of them call this.

    Raises:
        Interrupted: A signal arrived; the same call continues.
        RunError: The folder belongs to another recipe, or has a model that belongs to no run.
        ModernBertError: Something in the recipe, or that it names, cannot be used.
    """
    output = job.recipe.output
    start = folder_fingerprint(find_model(job.recipe.model, weights=True))
    with _own_folder(job, group):
        outcomes = _outcomes(job, reopen, start, on_record, group)
        results = Results.of(job, outcomes, output / MODEL_FOLDER)
        delivered = group.first((output / MODEL_FOLDER).exists)
        review = None if delivered else _review(job, results, group)
        group.first(lambda: _deliver(job, results, review))
    return results


@contextmanager
def _own_folder(job: TuningJob, group: Group) -> Iterator[None]:
    """Claim the folder of all runs for this recipe and lock it; process 0 does so for all."""
    output = job.recipe.output
    with ExitStack() as stack:

        def hold() -> None:
            run_folder.require_free(output, output / MODEL_FOLDER)
            stack.enter_context(run_folder.locked(output))
            for place in (output, *(output / "runs").glob("*")):
                remove_leftovers(place)
            run_folder.claim(output, run_folder.plain(_identity(job)))
            write_whole(output / "recipe.toml", to_toml(job.recipe).encode())

        group.first(hold)
        yield


def place_of(recipe: TuningRecipe, name: str) -> Path:
    """Return the folder of a run."""
    return recipe.output / "runs" / name


def _outcomes(
    job: TuningJob,
    reopen: Callable[[], TuningJob],
    start: str,
    on_record: RunObserver,
    group: Group,
) -> list[Outcome]:
    """Return the outcomes of all runs in their order, trained one by one or several at once."""
    runs = job.recipe.runs()
    together = _num_together(job.recipe.sweep.processes, len(runs), group)
    if together > 1:
        return _run_together(job.recipe, reopen, start, together, on_record)
    return [
        train_run(
            job,
            run,
            place_of(job.recipe, run.name),
            start=start,
            observers=[partial(on_record, run.name)],
            group=group,
        )
        for run in runs
    ]


def _num_together(asked: int | None, num_runs: int, group: Group) -> int:
    """Return how many runs to train at once: as asked, or one on a GPU and one per CPU core."""
    if group.size > 1:
        if asked is not None and asked > 1:
            raise SettingsError(
                f"sweep.processes: got {asked}, but torchrun has started {group.size} processes, "
                "which train each run together; leave it out"
            )
        return 1
    if asked is None:
        asked = num_cores() if best_device().type == "cpu" else 1
    return min(asked, num_runs)


def _run_together(
    recipe: TuningRecipe,
    reopen: Callable[[], TuningJob],
    start: str,
    together: int,
    on_record: RunObserver,
) -> list[Outcome]:
    """Train all runs in processes that share the cores; each process trains run after run.

    Raises:
        Interrupted: A signal arrived; each process has saved its run.
        ModernBertError: A process failed; the others have stopped and saved.
    """
    runs = recipe.runs()
    make_worker = partial(_make_worker, reopen, start, together)
    pool = ProcessPool[TuningRun, tuple[str, Record]](together, make_worker, threads=1)
    with Interruption() as interruption:
        for name, record in pool.run(runs, lambda: interruption.signal_number is not None):
            on_record(name, record)
    if interruption.signal_number is not None:
        raise Interrupted(128 + interruption.signal_number)
    outcomes = [read_outcome(place_of(recipe, run.name)) for run in runs]
    assert all(outcome is not None for outcome in outcomes)
    return [outcome for outcome in outcomes if outcome is not None]


def _make_worker(
    reopen: Callable[[], TuningJob], start: str, together: int
) -> Callable[[TuningRun, Callable[[tuple[str, Record]], None]], None]:
    """Make what trains run after run in a process of a sweep, with its share of the cores."""
    torch.set_num_threads(max(1, torch.get_num_threads() // together))
    job = reopen()

    def work(run: TuningRun, report: Callable[[tuple[str, Record]], None]) -> None:
        train_run(
            job,
            run,
            place_of(job.recipe, run.name),
            start=start,
            observers=[lambda record: report((run.name, record))],
        )

    return work


def _review(job: TuningJob, results: Results, group: Group) -> Any:
    """Return the split that was reviewed and the review; None without held-out rows."""
    splits: Sequence[HeldOutSplit] = ("dev", "test")
    split = next((name for name in splits if name in job.splits), None)
    if split is None:
        return None
    best = place_of(job.recipe, results.best.name) / "best"
    module = best_module(job, results.best.seed, best, group)
    precision = job.recipe.training.precision
    with undisturbed(module, group.device), autocast(group.device, precision):
        return split, job.objective.review(module, split, group)


def _deliver(job: TuningJob, results: Results, review: Any) -> None:
    """Write the results, the page and the model; models of other runs are deleted."""
    output = job.recipe.output
    best = place_of(job.recipe, results.best.name) / "best"
    folder = output / MODEL_FOLDER
    content = json.dumps(results.to_mapping(), indent=1, ensure_ascii=False) + "\n"
    write_whole(output / RESULTS_FILE, content.encode())
    if not folder.exists():
        write_page_of_runs(output / REPORT_FILE, job, results, best, review)
        try:
            with updated_folder(folder) as partial_folder:
                shutil.copytree(best, partial_folder, dirs_exist_ok=True)
                card = tuning_card(job, results)
                (partial_folder / CARD).write_text(card, encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"{folder}: could not be written: {error}; the training is saved: free some "
                "space and run the same command again"
            ) from None
    for outcome in results.outcomes:
        if (left := place_of(job.recipe, outcome.name) / "best").exists():
            remove_folder(left)


def _identity(job: TuningJob) -> dict[str, Any]:
    """Return what the results depend on, so that the folder is not used for another recipe."""
    sweep = {**to_mapping(job.recipe.sweep)}
    sweep.pop("processes", None)
    training = job.recipe.training.identity
    training.pop("micro_batch_tokens", None)
    return {
        "verb": job.verb,
        "model": job.recipe.model,
        "training": training,
        "sweep": sweep,
        "examples": job.fingerprint,
    }
