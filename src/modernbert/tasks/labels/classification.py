"""Labels of texts and of pairs: one of several, or any number of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.data.rows.cells import flag, looks_like_list
from modernbert.data.rows.table import IDS, TextColumns
from modernbert.errors import InputError
from modernbert.metrics.calibration import calibration_bins
from modernbert.metrics.classification import classification_scores, confusion_of, figures_of_labels
from modernbert.metrics.plain_model import plain_outputs
from modernbert.model.heads import ClassifierSettings
from modernbert.tasks.labels.few_shot import few_shot_job
from modernbert.tasks.labels.multi_label import flags_of_columns, listed_labels_job, multi_label_job
from modernbert.tasks.labels.objective import Judged, LabelObjective, Split, judged_rows, text_job
from modernbert.tasks.labels.recipe import LABELS, ClassifyRecipe
from modernbert.tasks.labels.rows import (
    LabelledTables,
    counts_of,
    label_indices,
    label_weights,
    learn_labels,
    read_label_names,
    shortened,
)
from modernbert.tasks.tuning.job import Objective, Review, TuningJob


@dataclass(frozen=True)
class LabelledText:
    """A text as token ids, and the index of its label."""

    token_ids: list[int]
    label: int


class SingleLabel:
    """One label per text, learned by cross entropy.

    Args:
        labels: The names of the labels.
        weights: How much a text of each label counts; None if all count equally.
    """

    def __init__(self, labels: Sequence[str], weights: Tensor | None = None) -> None:
        self.labels, self.weights = tuple(labels), weights

    metric = "accuracy"

    def num_targets(self, _example: LabelledText, /) -> int:
        return 1

    def loss(
        self, outputs: Tensor, _batch: PackedBatch, examples: Sequence[LabelledText], /
    ) -> Tensor:
        """Return the sum of the cross entropies, each times its label's weight."""
        targets = torch.tensor([each.label for each in examples], device=outputs.device)
        losses = functional.cross_entropy(outputs, targets, reduction="none")
        if self.weights is not None:
            losses = losses * self.weights.to(outputs.device)[targets]
        return losses.sum()

    def scores(
        self, outputs: Sequence[Tensor], examples: Sequence[LabelledText], /
    ) -> dict[str, float]:
        """Compute accuracy, F1 and Matthews' correlation of the most likely labels."""
        predicted = torch.stack(list(outputs)).argmax(1).numpy()
        expected = [example.label for example in examples]
        return classification_scores(predicted, expected, len(self.labels))

    def review(self, outputs: Sequence[Tensor], split: Split[LabelledText], /) -> Review:
        """Return figures of each label, the confusion matrix and the most confident mistakes."""
        chances = torch.stack(list(outputs)).softmax(1)
        predicted = chances.argmax(1).tolist()
        expected = [example.label for example in split.examples]
        judged = [
            Judged(
                is_right=given == wanted,
                error=float(row[given]),
                text=text,
                expected=self.labels[wanted],
                predicted=self.labels[given],
                figure=f"{float(row[given]):.3f}",
            )
            for row, given, wanted, text in zip(
                chances, predicted, expected, split.shown, strict=True
            )
        ]
        is_right = [given == wanted for given, wanted in zip(predicted, expected, strict=True)]
        return Review(
            labels=figures_of_labels(predicted, expected, self.labels),
            confusion=confusion_of(predicted, expected, self.labels),
            calibration=calibration_bins(chances.amax(1).numpy(), is_right),
            **judged_rows(judged, "confidence"),
        )


def open_classify(recipe: ClassifyRecipe) -> TuningJob:
    """Open the job of learning the labels of texts.

    A text has one label, unless the column holds lists, a separator is given, or there are several
    columns of labels.

    Raises:
        ModernBertError: The model or the data cannot be used; see `LabelledTables.open`.
        SettingsError: Several labels per text were asked for with `few_shot`.
    """
    source = LabelledTables.open(recipe)
    columns = recipe.data.label or _flag_columns(source)
    if len(columns) > 1 and set(columns) == set(recipe.data.labels):
        columns = recipe.data.labels
    if len(columns) > 1:
        if recipe.data.labels and columns != recipe.data.labels:
            raise InputError(
                f"{source.train.source}: has the labels {shortened(columns)}, and the model "
                f"{shortened(recipe.data.labels)}"
            )
        flags = {name: flags_of_columns(table, columns) for name, table in source.tables.items()}
        return multi_label_job(source, recipe, columns, flags)
    column = source.label_column(LABELS)
    separator = recipe.data.label_separator
    if separator or any(_is_listed(value) for value in source.train.values(column)):
        return listed_labels_job(source, recipe, column)
    return _single_label(source, recipe, column)


def _single_label(source: LabelledTables, recipe: ClassifyRecipe, column: str) -> TuningJob:
    names = {name: read_label_names(table, column) for name, table in source.tables.items()}
    labels = recipe.data.labels or learn_labels(names["train"], source.train.source)
    targets = {
        name: label_indices(table, names[name], labels) for name, table in source.tables.items()
    }
    weights = label_weights(targets["train"], len(labels), recipe.training.class_weights)
    doubt = _doubtful_labels(labels)
    job = text_job(
        source,
        SingleLabel(labels, weights),
        {
            name: [partial(LabelledText, label=target) for target in each]
            for name, each in targets.items()
        },
        verb="classify",
        settings=ClassifierSettings(
            labels=tuple(labels), pooling=recipe.training.pooling, problem="single_label"
        ),
        notes=[f"{source.train.source}: {doubt}"] if doubt else [],
        facts={"label": column, "labels": counts_of(names["train"], labels)},
    )
    job = replace(job, plain=lambda: _plain_scores(job.objective, len(labels)))
    return few_shot_job(job) if recipe.training.few_shot else job


def _plain_scores(objective: Objective, num_labels: int) -> dict[str, dict[str, float]]:
    """The scores of the plain model on each held-out split; none where it takes minutes."""
    assert isinstance(objective, LabelObjective)
    splits = dict(objective.splits)
    train = splits.pop("train")
    outputs = plain_outputs(
        train.shown,
        torch.tensor([each.label for each in train.examples]),
        num_labels,
        {name: split.shown for name, split in splits.items()},
    )
    return {
        name: objective.criterion.scores(list(found), splits[name].examples)
        for name, found in outputs.items()
    }


def _doubtful_labels(labels: Sequence[str]) -> str:
    """A note about labels that may be meant otherwise; empty where there are none.

    >>> _doubtful_labels(["x", "x|y", "y"])
    "label 'x|y' may be several labels; --label-separator '|' takes them apart"
    >>> _doubtful_labels(["No", "no", "yes"])
    "labels 'No' and 'no' differ in capitals alone, and are two labels"
    """
    known = set(labels)
    folded: dict[str, str] = {}
    for label in labels:
        if (other := folded.setdefault(label.casefold(), label)) != label:
            return f"labels {other!r} and {label!r} differ in capitals alone, and are two labels"
    for separator in "|;,":
        for label in labels:
            parts = [part.strip() for part in label.split(separator)]
            if len(parts) > 1 and not known.isdisjoint(parts):
                return (
                    f"label {label!r} may be several labels; --label-separator {separator!r} "
                    "takes them apart"
                )
    return ""


def _is_listed(value: object) -> bool:
    """Return whether a cell holds a list of labels, even if printed."""
    return isinstance(value, list | tuple) or looks_like_list(value)


def _flag_columns(source: LabelledTables) -> tuple[str, ...]:
    """The columns beside the text's, where none is called a label and all hold 0 and 1 alone."""
    table = source.train
    if table.first_of(LABELS) is not None:
        return ()
    texts = TextColumns.find(table, source.data.text).names
    columns = [name for name in table.columns if name not in texts and name.lower() not in IDS]
    are_all = all(
        flag(value, decimal_comma=table.decimal_comma) is not None
        for name in columns
        for value in table.values(name)
    )
    return tuple(columns) if are_all and len(columns) > 1 else ()
