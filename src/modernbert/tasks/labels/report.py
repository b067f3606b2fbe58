"""The page of a fine-tuning on labels: figures of each label, and the worst mistakes."""

from pathlib import Path
from typing import Any

from modernbert.inference.batching import batch_tokens_for
from modernbert.report.page import Html, section, table
from modernbert.report.tables import matrix
from modernbert.tasks.labels.job import Job, Review
from modernbert.tasks.labels.recipe import FineTuningRecipe
from modernbert.tasks.tuning.fine_tuning import predict
from modernbert.tasks.tuning.first_model import training_device
from modernbert.tasks.tuning.page import write_run_report
from modernbert.tasks.tuning.results import Results
from modernbert.training.isolation import undisturbed
from modernbert.training.precision import autocast

_MISTAKES = 25
_MATRIX_LABELS = 30


def write_report(
    job: Job[Any], recipe: FineTuningRecipe, results: Results, best: Path, path: Path
) -> None:
    """Write the page.

    best: the folder of the best model; it looks once more at the rows of `dev`, or of `test`.

    Raises:
        RunError: it cannot be written.
    """
    write_run_report(
        path,
        recipe,
        results,
        best,
        examples=len(job.train.examples),
        epoch_tokens=sum(len(example.token_ids) for example in job.train.examples),
        review=_review_sections(job, recipe, best),
    )


def _review_sections(job: Job[Any], recipe: FineTuningRecipe, best: Path) -> list[Html]:
    """What a closer look at predictions shows; nothing without rows to look at."""
    split = job.dev or job.test
    if split is None:
        return []
    device = training_device()
    model = job.load(str(best)).to(device)
    tokens = batch_tokens_for(device, recipe.training.micro_batch_tokens)
    with undisturbed(model, device), autocast(device, recipe.training.precision):
        outputs, _ = predict(model, job.objective, split.examples, device, tokens)
    review: Review = job.objective.review(outputs, split)
    sections = []
    if review.labels:
        header = ["label", "precision", "recall", "F1", "rows"]
        rows = [
            [e.label, f"{e.precision:.3f}", f"{e.recall:.3f}", f"{e.f1:.3f}", f"{e.support:,}"]
            for e in review.labels
        ]
        sections.append(section("Each label", table(header, rows), note=f"On {split.source}."))
    if review.confusion is not None and len(review.labels) <= _MATRIX_LABELS:
        names = [each.label for each in review.labels]
        square = matrix(names, review.confusion, rows="is", columns="given")
        sections.append(section("Confusion matrix", square))
    if review.mistakes:
        header = ["text", "is", "given", "by"]
        rows = [
            [each.text, each.expected, each.predicted, f"{each.doubt:.3f}"]
            for each in review.mistakes[:_MISTAKES]
        ]
        shown = f"The {len(rows)} worst of {len(review.mistakes):,} on {split.source}."
        sections.append(section("Where it is most wrong", table(header, rows), note=shown))
    return sections
