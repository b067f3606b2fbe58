"""The page and the README.md of a fine-tuning."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert.inference.inputs import Text
from modernbert.kinds import MODELS, ModelKind
from modernbert.metrics.calibration import CalibrationBin, calibration_error
from modernbert.report.charts import Axis, LineChart, Mark, Series, charts_html
from modernbert.report.formats import compact, duration
from modernbert.report.history import Curve, RunHistory, number
from modernbert.report.page import (
    Html,
    bullets,
    code,
    commands_of,
    details,
    element,
    facts,
    go_on,
    grid,
    header,
    matrix,
    page,
    section,
    table,
    versions,
    write_page,
)
from modernbert.settings import to_toml
from modernbert.tasks.tuning.job import HeldOutSplit, Outcome, Results, Review, TuningJob
from modernbert.tasks.tuning.recipe import TuningRecipe
from modernbert.tasks.tuning.task import epochs_of
from modernbert.training.trainer import METRICS_FILE

_SHOWN_CHARACTERS = 1000
_MISTAKES = 25
_LONG_TEXTS = "text", "query", "answer", "first that is no answer"


def write_page_of_runs(
    path: Path,
    job: TuningJob,
    results: Results,
    best: Path,
    review: tuple[HeldOutSplit, Review] | None,
) -> None:
    """Write the page.

    Args:
        path: The file to write.
        job: The fine-tuning, with its data.
        results: The results of its runs.
        best: The folder of the best model, within that of its run.
        review: A split, and a detailed look at the best model's predictions for it.

    Raises:
        RunError: The page cannot be written.
    """
    recipe, lengths = job.recipe, job.objective.lengths
    history = RunHistory.read(best.parent / METRICS_FILE)
    kind, texts = _kind_made_by(results.verb), results.facts.get("texts", "")
    content = [
        *(element("p", told) for told in results.comparisons),
        section("Result", facts(_totals(recipe, results, len(lengths)))),
        go_on(commands_of(kind, recipe.output / "model", pairs=" and " in str(texts))),
        section("Runs", _runs(results), note=_spread_note(results)),
        section(
            "Best run",
            grid(_curves(history, results, epochs_of(job).num_tokens(1))),
            note="The broken line is where the weights were taken.",
        ),
        *(_review_sections(*review, job) if review else []),
        section(
            "Data",
            facts(_flat({**job.splits, **results.facts})),
            *(element("p", note) for note in results.notes),
        ),
        section("Recipe", details("recipe.toml", code(to_toml(recipe)))),
        section("Model card", details("README.md", code(tuning_card(job, results)))),
    ]
    title = f"modernbert finetune {results.verb}"
    write_page(path, page(title, content, subtitle=f"{recipe.model} on {recipe.data.train}"))


def write_page_of_scores(
    path: Path, job: TuningJob, model: str, scores: Mapping[str, float], review: Review
) -> None:
    """Write the page of a finished model's scores on the dev rows of a job.

    Args:
        path: The file to write.
        job: The job, whose model is not trained.
        model: What the model is called.
        scores: Its scores.
        review: A detailed look at its predictions.

    Raises:
        RunError: The page cannot be written.
    """
    content = [
        section("Result", facts({name: f"{value:.3f}" for name, value in scores.items()})),
        *_review_sections("dev", review, job),
        section(
            "Data",
            facts(_flat({"rows": job.splits["dev"], **job.facts})),
            *(element("p", note) for note in job.notes),
        ),
    ]
    subtitle = f"{model} on {job.recipe.data.dev}"
    write_page(path, page(f"modernbert score: {job.verb}", content, subtitle=subtitle))


def _kind_made_by(verb: str) -> ModelKind:
    """Return the kind of model that a verb of `finetune` makes."""
    made = {facts.made_by: kind for kind, facts in MODELS.items()}
    return made.get(f"finetune {verb}", "classifier")  # which `regress` makes too


def _review_sections(split: HeldOutSplit, review: Review, job: TuningJob) -> list[Html]:
    """Show the figures of each label, the confusion matrix and the worst mistakes."""
    source, sections = getattr(job.recipe.data, split), []
    if review.labels:
        header = ["label", "precision", "recall", "F1", "rows"]
        rows = [
            [e.label, f"{e.precision:.3f}", f"{e.recall:.3f}", f"{e.f1:.3f}", f"{e.support:,}"]
            for e in review.labels
        ]
        sections.append(section("Each label", table(header, rows), note=f"On {source}."))
    if review.confusion is not None:
        names = [each.label for each in review.labels]
        square = matrix(names, review.confusion, rows="is", columns="given")
        sections.append(section("Confusion matrix", square))
    if review.calibration:
        sections.append(_calibration(review.calibration))
    worst = review.mistakes[:_MISTAKES]
    for heading, examples, note in (
        ("Some that it gets right", review.right, f"From {source}."),
        (
            "Where it is most wrong",
            worst,
            f"The {len(worst)} worst of {len(review.mistakes):,} on {source}.",
        ),
    ):
        if examples:
            listed = table(review.columns, examples, texts=_LONG_TEXTS)
            sections.append(section(heading, listed, note=note))
    return sections


def _calibration(bins: Sequence[CalibrationBin]) -> Html:
    """Show how often predictions are right, by their confidence."""
    header = ["confidence", "predictions", "mean confidence", "right"]
    rows = [
        [f"{e.low:.1f} to {e.high:.1f}", f"{e.count:,}", f"{e.confidence:.3f}", f"{e.accuracy:.3f}"]
        for e in bins
        if e.count
    ]
    note = f"The mean distance of the last two columns is {calibration_error(bins):.3f}."
    return section("Calibration", table(header, rows), note=note)


def _totals(recipe: TuningRecipe, results: Results, examples: int) -> dict[str, object]:
    best = results.best
    scores = {
        f"{name} ({split})": f"{value:.3f}"
        for split in ("dev", "test")
        for name, value in getattr(best, split).items()
    }
    return {
        **scores,
        "examples": f"{examples:,}",
        "steps": f"{best.steps:,}",
        "tokens": compact(best.tokens),
        "time": duration(best.seconds),
        "began with": recipe.model,
    }


def _runs(results: Results) -> Html:
    """Show a row per run, with the scores of the metric and, for several seeds, their mean."""
    splits = [split for split in ("dev", "test") if getattr(results.best, split)]
    header = ["learning rate", "weight decay", "epochs", "seed"]
    header += [f"{results.metric} ({split})" for split in splits] + ["best step", "time"]
    rows: list[Sequence[object]] = []
    for each in results.combinations:
        rows += [_run_row(outcome, splits, results.metric) for outcome in each.outcomes]
        if len(each.outcomes) > 1:
            figures = [
                f"{each.mean(split)[results.metric]:.3f} ± {each.spread(split)[results.metric]:.3f}"
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
        *(f"{getattr(outcome, split)[metric]:.3f}" for split in splits),
        f"{outcome.best_step:,}",
        duration(outcome.seconds),
    ]


def _spread_note(results: Results) -> str:
    several = any(len(each.outcomes) > 1 for each in results.combinations)
    return "± is the standard deviation over the seeds." if several else ""


def _curves(history: RunHistory, results: Results, epoch: int) -> list[Html]:
    """Draw the loss, the rate, and each score over the epochs."""
    best_tokens = [
        number(row.get("tokens")) / epoch
        for row in history.of_kind("evaluation")
        if row.get("step") == results.best.best_step
    ]
    marks = [Mark(x=place) for place in best_tokens[-1:]]
    x = Axis(label="epochs", low=0.0)
    losses = [
        _series("", history.curve("loss"), epoch, colour=0, kind="faint"),
        _series("dev", history.event_curve("evaluation", "loss"), epoch, colour=1, kind="dots"),
    ]
    smooth = history.curve("loss").smoothed(10)
    losses.insert(1, _series("training", smooth, epoch, colour=0))
    charts = [LineChart(title="Loss", series=losses, x=x, y=Axis(), marks=marks)]
    for name in results.best.dev:
        if name != "loss":
            curve = history.event_curve("evaluation", name)
            if len(curve.values) < 2:  # the result says as much
                continue
            score = [_series("", curve, epoch, colour=1, kind="dots")]
            y = Axis(high=1.0) if max(curve.values) == 1.0 else Axis()  # no score is above 1
            charts.append(LineChart(title=name, series=score, x=x, y=y, marks=marks))
    rate = [_series("", history.curve("learning_rate"), epoch, colour=2)]
    norm = [_series("", history.curve("gradient_norm"), epoch, colour=3)]
    charts.append(LineChart(title="Learning rate", series=rate, x=x, y=Axis(low=0.0)))
    charts.append(LineChart(title="Gradient norm", series=norm, x=x, y=Axis(low=0.0)))
    return charts_html(charts)


def _series(label: str, curve: Curve, epoch: int, *, colour: int, kind: Any = "line") -> Series:
    return Series(label=label, x=curve.tokens / epoch, y=curve.values, colour=colour, kind=kind)


def _flat(values: Mapping[str, Any]) -> dict[str, object]:
    return {
        name: ", ".join(f"{key}: {n:,}" for key, n in list(value.items())[:20])
        if isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }


def joined(text: Text) -> str:
    """Return a text, or the two of a pair as one."""
    return text if isinstance(text, str) else "  |  ".join(text)


def shown(text: Text, most: int = _SHOWN_CHARACTERS) -> str:
    """Show a text or a pair in a report.

    Args:
        text: The text, or a pair of texts.
        most: The most characters.
    """
    whole = joined(text)
    return whole if len(whole) <= most else whole[:most] + " ..."


def tuning_card(job: TuningJob, results: Results) -> str:
    """Return the card as Markdown, with the header that the hub reads."""
    use, best = job.use, results.best
    notes = {f"note {place}": each for place, each in enumerate(job.notes, 1)}
    return f"""\
{header(library=use.library, pipeline=use.pipeline)}
# {job.recipe.output.name}

A ModernBERT that gives {use.gives}, made with `modernbert finetune {job.verb}`.

```python
{use.example}
```

{use.also}

## Scores

{score_table(results)}

## Data

{bullets({**job.splits, **job.facts, **notes})}

## Settings

It began with `{job.recipe.model}`. The weights are those after step {best.best_step:,} of
{best.steps:,}.

| setting | |
|---|---|
| learning rate | {best.learning_rate:g} |
| weight decay | {best.weight_decay:g} |
| epochs | {best.epochs} |
| seed | {best.seed} |

```toml
{to_toml(job.recipe).strip()}
```

{versions()}"""


def score_table(results: Results) -> str:
    """Show each score of the best run, with mean and spread if there are several seeds."""
    best, combination = results.best, results.best_combination
    several = len(combination.outcomes) > 1
    lines = ["| score | rows | value |" + (" mean over seeds |" if several else "")]
    lines.append("|---|---|---|" + ("---|" if several else ""))
    for split in ("dev", "test"):
        for name, value in getattr(best, split).items():
            line = f"| {name} | {split} | {value:.4f} |"
            if several:
                spread = combination.spread(split)[name]
                line += f" {combination.mean(split)[name]:.4f} ± {spread:.4f} |"
            lines.append(line)
    if len(lines) == 2:
        return "None: no rows were held out."
    if best.dev:
        lines.append(f"\nThe weights were chosen by {results.metric} on the dev rows.")
    return "\n".join(lines)
