"""README.md of a fine-tuned model: what it is for, what it was trained on, how good it is."""

from typing import Any

from modernbert.settings import to_toml
from modernbert.tasks.card import bullets, header, versions
from modernbert.tasks.labels.job import Job
from modernbert.tasks.labels.recipe import FineTuningRecipe
from modernbert.tasks.tuning.card import score_table
from modernbert.tasks.tuning.results import Results

# The hub's name of each kind, our class, and how a text is given to it.
_USES = {
    "classify": ("text-classification", "Classifier", 'model("A text.")'),
    "regress": ("text-classification", "Classifier", 'model("A text.")'),
    "tag": ("token-classification", "Tagger", 'model("A text with names.")'),
    "answer": (
        "question-answering",
        "QuestionAnswerer",
        'model("A question?", "A text that answers it.")',
    ),
}


def model_card(job: Job[Any], recipe: FineTuningRecipe, results: Results) -> str:
    """The card as Markdown, with the header that the hub reads."""
    kind, name, call = _USES[job.verb]
    return f"""\
{header(library="transformers", pipeline=kind)}
# {recipe.output.name}

A ModernBERT for {kind.replace("-", " ")}, made with `modernbert finetune {job.verb}`.

```python
from modernbert import {name}

model = {name}.from_pretrained("FOLDER")
print({call})
```

transformers loads it as well: `pipeline("{kind}", model="FOLDER")`.

## Scores

{score_table(results)}

## Data

{bullets(_named(job))}

## Settings

It began with `{recipe.model}`. Learning rate {results.best.learning_rate:g}, weight decay
{results.best.weight_decay:g}, {results.best.epochs} epochs, seed {results.best.seed}; the weights
are those after step {results.best.best_step:,} of {results.best.steps:,}.

```toml
{to_toml(recipe).strip()}
```

{versions()}"""


def _named(job: Job[Any]) -> dict[str, object]:
    splits = {"train": job.train, "dev": job.dev, "test": job.test}
    rows = {
        name: f"{split.source}, {len(split.examples):,} examples"
        for name, split in splits.items()
        if split is not None
    }
    return {**rows, **job.facts, **{f"note {n}": each for n, each in enumerate(job.notes, 1)}}
