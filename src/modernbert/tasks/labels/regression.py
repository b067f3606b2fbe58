"""A number for a text or a pair: how alike two sentences are, how many stars a review gives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.metrics.classification import regression_scores
from modernbert.model.heads import ClassifierSettings, SequenceClassifier
from modernbert.tasks.labels.objective import Judged, Split, judged_rows, text_job
from modernbert.tasks.labels.recipe import SCORES, RegressRecipe
from modernbert.tasks.labels.rows import LabelledTables, read_numbers
from modernbert.tasks.tuning.job import Review, TuningJob

# A prediction is right within this share of the range of scores, for the page.
_NEARLY = 0.05


@dataclass(frozen=True)
class ScoredText:
    """A text as token ids, and its number."""

    token_ids: list[int]
    score: float


class Regression:
    """One number per text, learned by squared error."""

    metric = "spearman"

    def num_targets(self, _example: ScoredText, /) -> int:
        return 1

    def loss(
        self, outputs: Tensor, _batch: PackedBatch, examples: Sequence[ScoredText], /
    ) -> Tensor:
        """Return the sum of the squared errors."""
        targets = torch.tensor([each.score for each in examples], device=outputs.device)
        return (outputs.squeeze(1) - targets).square().sum()

    def scores(
        self, outputs: Sequence[Tensor], examples: Sequence[ScoredText], /
    ) -> dict[str, float]:
        """Compute correlations, and the root of the mean squared error."""
        return regression_scores(_numbers(outputs), [example.score for example in examples])

    def review(self, outputs: Sequence[Tensor], split: Split[ScoredText], /) -> Review:
        """Return the texts whose numbers are furthest off; within 5% of the range is right."""
        wanted = [example.score for example in split.examples]
        enough = _NEARLY * (max(wanted) - min(wanted))
        judged = [
            Judged(
                is_right=(error := abs(given - score)) <= enough,
                error=error,
                text=text,
                expected=f"{score:.3f}",
                predicted=f"{given:.3f}",
                figure=f"{error:.3f}",
            )
            for given, score, text in zip(_numbers(outputs), wanted, split.shown, strict=True)
        ]
        return Review(**judged_rows(judged, "off by"))


def open_regress(recipe: RegressRecipe) -> TuningJob:
    """Open the job of learning a number for each text.

    Raises:
        ModernBertError: The model or the data cannot be used; see `LabelledTables.open`.
    """
    source = LabelledTables.open(recipe)
    column = source.label_column(SCORES)
    scores = {name: read_numbers(table, column) for name, table in source.tables.items()}
    train = torch.tensor(scores["train"], dtype=torch.float64)
    if train.min() == train.max():
        raise InputError(
            f"{source.train.source}: every row has the score {train[0].item():g}; "
            "there is nothing to learn"
        )
    job = text_job(
        source,
        Regression(),
        {name: [partial(ScoredText, score=each) for each in s] for name, s in scores.items()},
        verb="regress",
        settings=ClassifierSettings(
            labels=(column,), pooling=recipe.training.pooling, problem="regression"
        ),
        facts={
            "score": f"{column}, {train.min():g} to {train.max():g}, on average {train.mean():g}"
        },
    )
    return replace(job, first=lambda seed: _starting_at(job.first(seed), float(train.mean())))


def _starting_at(model: nn.Module, mean: float) -> nn.Module:
    """Set the bias of a new model to the mean of the scores, so that it need not be learned."""
    assert isinstance(model, SequenceClassifier)
    with torch.no_grad():
        model.classifier.bias.fill_(mean)
    return model


def _numbers(outputs: Sequence[Tensor]) -> list[float]:
    numbers: list[float] = torch.cat(list(outputs)).tolist()
    return numbers
