"""Labels of texts and of pairs: one of several, or any number of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.data.rows.cells import are_flags, as_list, flag, looks_like_list, shown
from modernbert.data.rows.table import IDS, Table, TextColumns
from modernbert.errors import DocumentError, InputError, SettingsError
from modernbert.metrics.calibration import calibration_bins
from modernbert.metrics.classification import (
    classification_scores,
    confusion_of,
    figures_of_decisions,
    figures_of_labels,
    multi_label_scores,
)
from modernbert.model.heads import ClassifierSettings, ProblemType
from modernbert.tasks.labels.examples import (
    counts_of,
    label_indices,
    label_weights,
    learn_labels,
    read_label_names,
    row_label_names,
    shortened,
    text_job,
)
from modernbert.tasks.labels.few_shot import few_shot_job
from modernbert.tasks.labels.job import LabelledTables
from modernbert.tasks.labels.objective import Judged, Split, judged_rows
from modernbert.tasks.labels.recipe import LABELS, ClassifyRecipe
from modernbert.tasks.tuning.job import Review, TuningJob


@dataclass(frozen=True)
class LabelledText:
    """A text as token ids, and the index of its label."""

    token_ids: list[int]
    label: int


@dataclass(frozen=True)
class MultiLabelledText:
    """A text as token ids, and the indices of its labels, in their order."""

    token_ids: list[int]
    labels: tuple[int, ...]


def flags_of(examples: Sequence[MultiLabelledText], num_labels: int) -> Tensor:
    """(examples, num_labels) float32: 1 where the text has the label."""
    flags = torch.zeros(len(examples), num_labels)
    for row, example in zip(flags, examples, strict=True):
        row[list(example.labels)] = 1
    return flags


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
        """Return 1, as each text is one target."""
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


class MultiLabel:
    """Any number of labels per text, learned by binary cross entropy averaged over the labels.

    Args:
        labels: The names of the labels.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.use_thresholds(None)

    metric = "f1_micro"

    def use_thresholds(self, thresholds: Sequence[float] | None) -> None:
        """Take the probability of each label from which on a text has it; 0.5 when None."""
        self.thresholds = torch.tensor(thresholds or [0.5] * len(self.labels))

    def num_targets(self, _example: MultiLabelledText, /) -> int:
        """Return 1, as each text is one target."""
        return 1

    def loss(
        self, outputs: Tensor, _batch: PackedBatch, examples: Sequence[MultiLabelledText], /
    ) -> Tensor:
        """Return the sum over the texts of the mean over the labels."""
        targets = flags_of(examples, len(self.labels)).to(outputs.device)
        losses = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return losses.mean(1).sum()

    def scores(
        self, outputs: Sequence[Tensor], examples: Sequence[MultiLabelledText], /
    ) -> dict[str, float]:
        """Compute F1 of all decisions, and the fraction of texts with exactly the right labels."""
        expected = flags_of(examples, len(self.labels))
        return multi_label_scores(self._decisions(outputs), expected)

    def review(self, outputs: Sequence[Tensor], split: Split[MultiLabelledText], /) -> Review:
        """Return figures of each label, and the wrong texts with the largest losses."""
        decisions = self._decisions(outputs)
        chances = torch.stack(list(outputs)).sigmoid().numpy()
        expected = flags_of(split.examples, len(self.labels)).numpy()
        worst = np.abs(chances - expected).max(axis=1).tolist()
        judged = [
            Judged(
                is_right=right == given,
                error=error,
                text=text,
                expected=right,
                predicted=given,
                figure=f"{error:.3f}",
            )
            for error, text, right, given in zip(
                worst, split.shown, self._names(expected), self._names(decisions), strict=True
            )
        ]
        return Review(
            labels=figures_of_decisions(decisions, expected, self.labels),
            calibration=calibration_bins(chances.ravel(), expected.ravel()),
            **judged_rows(judged, "furthest probability off by"),
        )

    def _decisions(self, outputs: Sequence[Tensor]) -> np.ndarray:
        """Return whether each text has each label, (rows, num_labels)."""
        decisions = torch.stack(list(outputs)).sigmoid() >= self.thresholds
        found: np.ndarray = decisions.numpy()
        return found

    def _names(self, decisions: np.ndarray) -> list[str]:
        return [
            ", ".join(self.labels[index] for index in np.flatnonzero(row)) or "none"
            for row in decisions
        ]


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
        flags = {name: _flags(table, columns) for name, table in source.tables.items()}
        return _multi_label(source, recipe, columns, flags)
    column = source.label_column(LABELS)
    separator = recipe.data.label_separator
    if separator or any(_is_listed(value) for value in source.train.values(column)):
        return _listed_labels(source, recipe, column)
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
        settings=_head(recipe, labels, "single_label"),
        notes=[f"{source.train.source}: {doubt}"] if doubt else [],
        facts={"label": column, "labels": counts_of(names["train"], labels)},
    )
    return few_shot_job(job) if recipe.training.few_shot else job


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


def _listed_labels(source: LabelledTables, recipe: ClassifyRecipe, column: str) -> TuningJob:
    separator = recipe.data.label_separator
    lists = {name: _lists(table, column, separator) for name, table in source.tables.items()}
    if are_flags([row for rows in lists.values() for row in rows]):
        width = len(lists["train"][0])
        columns = list(recipe.data.labels) or [str(number) for number in range(width)]
        if len(columns) != width:
            raise InputError(
                f"{source.train.source}: has {width} flags a row, and the model {len(columns)} "
                "labels"
            )
        hot = {name: [_places(map(flag, row)) for row in rows] for name, rows in lists.items()}
        return _multi_label(source, recipe, columns, hot)
    names = {
        name: [row_label_names(row, table.where(index), column) for index, row in enumerate(rows)]
        for (name, rows), table in zip(lists.items(), source.tables.values(), strict=True)
    }
    labels = recipe.data.labels or learn_labels(
        [each for row in names["train"] for each in row], source.train.source
    )
    places = {label: index for index, label in enumerate(labels)}
    for name, table in source.tables.items():
        for row, given in enumerate(names[name]):
            if unknown := [label for label in given if label not in places]:
                raise InputError(
                    f"{table.where(row)}: label {unknown[0]!r} does not occur in the training "
                    "data; correct it or leave the row out"
                )
    chosen = {
        name: [tuple(sorted({places[label] for label in row})) for row in rows]
        for name, rows in names.items()
    }
    return _multi_label(source, recipe, labels, chosen)


def _places(flags: Iterable[bool | None]) -> tuple[int, ...]:
    """The places of flags that are set."""
    return tuple(place for place, each in enumerate(flags) if each)


def _is_listed(value: object) -> bool:
    """Return whether a cell holds a list of labels, even if printed."""
    return isinstance(value, list | tuple) or looks_like_list(value)


def _lists(table: Table, column: str, separator: str | None) -> list[list[Any]]:
    """Return the labels, or the flags of labels, of each row."""
    lists = []
    for row, value in enumerate(table.values(column)):
        where = f"{table.where(row)}: column {column!r}"
        if separator is not None and isinstance(value, str) and not looks_like_list(value):
            value = [part for part in value.split(separator) if part.strip()]
        try:
            found = as_list(value)
        except DocumentError as error:
            raise InputError(f"{where}: {error}") from None
        if found is None or any(isinstance(each, list | dict) for each in found):
            raise InputError(f"{where}: got {shown(value)}, expected a list of labels")
        lists.append(found)
    _require_equal_flags(lists, table, column)
    return lists


def _require_equal_flags(lists: Sequence[list[Any]], table: Table, column: str) -> None:
    """Refuse flags of labels that differ in length; they would be read as labels 0 and 1.

    Raises:
        InputError: A row has another length than the first; the message names it.
    """
    values = [each for row in lists for each in row]
    are_flags = all(type(each) in (int, float) and each in (0, 1) for each in values)
    has_twice = are_flags and any(len(set(row)) < len(row) for row in lists)
    other = next((row for row, found in enumerate(lists) if len(found) != len(lists[0])), None)
    if has_twice and other is not None:
        raise InputError(
            f"{table.where(other)}: column {column!r}: has {len(lists[other])} flags of labels, "
            f"and row 1 has {len(lists[0])}; give one for each label in every row"
        )


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


def _flags(table: Table, columns: Sequence[str]) -> list[tuple[int, ...]]:
    """Return which columns of labels are set in each row."""
    rows = zip(*(_flag_column(table, column) for column in columns), strict=True)
    return [_places(row) for row in rows]


def _flag_column(table: Table, column: str) -> list[bool]:
    flags = []
    for row, value in enumerate(table.values(table.find([], asked=column, option="--label"))):
        found = flag(value, decimal_comma=table.decimal_comma)
        if found is None:
            raise InputError(
                f"{table.where(row)}: column {column!r}: got {value!r}, expected 0 or 1, as each "
                "of several columns of labels has"
            )
        flags.append(found)
    return flags


def _multi_label(
    source: LabelledTables,
    recipe: ClassifyRecipe,
    labels: Sequence[str],
    chosen: dict[str, list[tuple[int, ...]]],
) -> TuningJob:
    if recipe.training.few_shot:
        raise SettingsError("few_shot: needs one label per text; leave it out")
    counts = Counter(index for row in chosen["train"] for index in row)
    totals = [counts[index] for index in range(len(labels))]
    return text_job(
        source,
        MultiLabel(labels),
        {
            name: [partial(MultiLabelledText, labels=row) for row in rows]
            for name, rows in chosen.items()
        },
        verb="classify",
        settings=_head(recipe, labels, "multi_label"),
        facts={"labels": dict(zip(labels, totals, strict=True))},
    )


def _head(
    recipe: ClassifyRecipe, labels: Sequence[str], problem: ProblemType
) -> ClassifierSettings:
    pooling = recipe.training.pooling
    return ClassifierSettings(labels=tuple(labels), pooling=pooling, problem=problem)
