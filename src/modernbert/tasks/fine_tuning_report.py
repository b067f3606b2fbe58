"""The page of a fine-tuning: scores, curves, figures of each label, and the worst mistakes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert.inference.batching import batch_tokens_for
from modernbert.report.charts import Axis, Mark, Series, line_chart
from modernbert.report.formats import compact, duration
from modernbert.report.history import Curve, RunHistory
from modernbert.report.page import (
    Html,
    code,
    details,
    element,
    facts,
    grid,
    page,
    section,
    table,
    write_page,
)
from modernbert.report.tables import matrix
from modernbert.settings import to_toml
from modernbert.tasks.fine_tuning import predict
from modernbert.tasks.fine_tuning_recipe import FineTuningRecipe
from modernbert.tasks.fine_tuning_results import Results
from modernbert.tasks.fine_tuning_run import Outcome
from modernbert.tasks.first_model import training_device
from modernbert.tasks.job import Job, Review
from modernbert.training.isolation import undisturbed
from modernbert.training.precision import autocast
from modernbert.training.trainer import METRICS_FILE

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
    history = RunHistory.read(best.parent / METRICS_FILE)
    epoch = sum(len(example.token_ids) for example in job.train.examples)
    content = [
        section("Result", facts(_totals(job, recipe, results))),
        section("Runs", _runs(results), note=_spread_note(results)),
        section(
            "Best run",
            grid(_curves(history, results, epoch)),
            note="The broken line is where the weights were taken.",
        ),
        *_review_sections(job, recipe, best),
        section(
            "Data",
            facts(_flat(results.facts)),
            *(element("p", note) for note in results.notes),
        ),
        section("Recipe", details("recipe.toml", code(to_toml(recipe)))),
    ]
    title = f"modernbert finetune {job.verb}"
    write_page(path, page(title, content, subtitle=f"{recipe.model} on {recipe.data.train}"))


def _totals(job: Job[Any], recipe: FineTuningRecipe, results: Results) -> dict[str, object]:
    best = results.best
    scores = {
        f"{name} ({split})": f"{value:.4f}"
        for split in ("dev", "test")
        for name, value in getattr(best, split).items()
    }
    return {
        **scores,
        "examples": f"{len(job.train.examples):,}",
        "steps": f"{best.steps:,}",
        "tokens": compact(best.tokens),
        "time": duration(best.seconds),
        "began with": recipe.model,
    }


def _runs(results: Results) -> Html:
    """A row a run, with the scores of the metric and, of several seeds, their mean."""
    splits = [split for split in ("dev", "test") if getattr(results.best, split)]
    header = ["learning rate", "weight decay", "epochs", "seed"]
    header += [f"{results.metric} ({split})" for split in splits] + ["best step", "time"]
    rows: list[Sequence[object]] = []
    for each in results.combinations:
        rows += [_run_row(outcome, splits, results.metric) for outcome in each.outcomes]
        if len(each.outcomes) > 1:
            figures = [
                f"{each.mean(split)[results.metric]:.4f} ± {each.spread(split)[results.metric]:.4f}"
                for split in splits
            ]
            settings = [compact(each.learning_rate), compact(each.weight_decay), each.epochs]
            rows.append([*settings, "mean", *figures, "", ""])
    return table(header, rows)


def _run_row(outcome: Outcome, splits: Sequence[str], metric: str) -> Sequence[object]:
    return [
        compact(outcome.learning_rate),
        compact(outcome.weight_decay),
        outcome.epochs,
        outcome.seed,
        *(f"{getattr(outcome, split)[metric]:.4f}" for split in splits),
        f"{outcome.best_step:,}",
        duration(outcome.seconds),
    ]


def _spread_note(results: Results) -> str:
    several = any(len(each.outcomes) > 1 for each in results.combinations)
    return "± is the standard deviation over the seeds." if several else ""


def _curves(history: RunHistory, results: Results, epoch: int) -> list[Html]:
    """The loss, the rate, and each score over the epochs."""
    best_tokens = [
        row["tokens"] / epoch
        for row in history.of_kind("evaluation")
        if row["step"] == results.best.best_step
    ]
    marks = [Mark(x=place) for place in best_tokens[-1:]]
    x = Axis(label="epochs", low=0.0)
    losses = [
        _series("", history.curve("loss"), epoch, colour=0, kind="faint"),
        _series("dev", history.event_curve("evaluation", "loss"), epoch, colour=1, kind="dots"),
    ]
    smooth = history.curve("loss").smoothed(10)
    losses.insert(1, _series("training", smooth, epoch, colour=0))
    charts = [line_chart("Loss", losses, x=x, y=Axis(), marks=marks)]
    for name in results.best.dev:
        if name != "loss":
            curve = history.event_curve("evaluation", name)
            score = [_series("", curve, epoch, colour=1, kind="dots")]
            charts.append(line_chart(name, score, x=x, y=Axis(), marks=marks))
    rate = [_series("", history.curve("learning_rate"), epoch, colour=2)]
    norm = [_series("", history.curve("gradient_norm"), epoch, colour=3)]
    charts.append(line_chart("Learning rate", rate, x=x, y=Axis(low=0.0)))
    charts.append(line_chart("Gradient norm", norm, x=x, y=Axis(low=0.0)))
    return [chart for chart in charts if chart]


def _series(label: str, curve: Curve, epoch: int, *, colour: int, kind: Any = "line") -> Series:
    return Series(label=label, x=curve.tokens / epoch, y=curve.values, colour=colour, kind=kind)


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


def _flat(values: Mapping[str, Any]) -> dict[str, object]:
    return {
        name: ", ".join(f"{key}: {n:,}" for key, n in list(value.items())[:20])
        if isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }
