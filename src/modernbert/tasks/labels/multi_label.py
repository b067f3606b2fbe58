"""Any number of labels per text: lists of them, texts with separators, or columns of flags."""

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
from modernbert.data.rows.table import Table
from modernbert.errors import DocumentError, InputError, SettingsError
from modernbert.metrics.calibration import calibration_bins
from modernbert.metrics.classification import figures_of_decisions, multi_label_scores
from modernbert.model.heads import ClassifierSettings
from modernbert.tasks.labels.objective import Judged, Split, judged_rows, text_job
from modernbert.tasks.labels.recipe import ClassifyRecipe
from modernbert.tasks.labels.rows import LabelledTables, learn_labels, row_label_names
from modernbert.tasks.tuning.job import Review, TuningJob


@dataclass(frozen=True)
class MultiLabelledText:
    """A text as token ids, and the indices of its labels, in their order."""

    token_ids: list[int]
    labels: tuple[int, ...]


def flags_of(examples: Sequence[MultiLabelledText], num_labels: int) -> Tensor:
    """Return (num_examples, num_labels) float32, 1 where the text has the label."""
    flags = torch.zeros(len(examples), num_labels)
    for row, example in zip(flags, examples, strict=True):
        row[list(example.labels)] = 1
    return flags


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


def multi_label_job(
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
        settings=ClassifierSettings(
            labels=tuple(labels), pooling=recipe.training.pooling, problem="multi_label"
        ),
        facts={"labels": dict(zip(labels, totals, strict=True))},
    )


def listed_labels_job(source: LabelledTables, recipe: ClassifyRecipe, column: str) -> TuningJob:
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
        return multi_label_job(source, recipe, columns, hot)
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
    return multi_label_job(source, recipe, labels, chosen)


def flags_of_columns(table: Table, columns: Sequence[str]) -> list[tuple[int, ...]]:
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


def _places(flags: Iterable[bool | None]) -> tuple[int, ...]:
    """The places of flags that are set."""
    return tuple(place for place, each in enumerate(flags) if each)


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
