"""README.md of a fine-tuned model: what it is for, what it was trained on, how good it is."""

from modernbert.report.card import bullets, header, versions
from modernbert.settings import to_toml
from modernbert.tasks.tuning.job import TuningJob
from modernbert.tasks.tuning.results import Results


def tuning_card(job: TuningJob, results: Results) -> str:
    """The card as Markdown, with the header that the hub reads."""
    use, best = job.use, results.best
    notes = {f"note {number}": each for number, each in enumerate(job.notes, 1)}
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
    """Each score of the best run; of several seeds also the mean and the spread."""
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
