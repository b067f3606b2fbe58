"""Scores of predicted labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modernbert.errors import InputError
from modernbert.metrics.checks import Indices, Numbers, as_indices, require_equal_length

_MATRIX_LABELS = 30


@dataclass(frozen=True)
class LabelFigures:
    """How well one label is found.

    Attributes:
        support: How many rows have it.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


def confusion_matrix(predicted: npt.ArrayLike, expected: npt.ArrayLike, num_labels: int) -> Indices:
    """(num_labels, num_labels) int64: rows that have the first label and were given the second.

    >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2).tolist()
    [[1, 1], [0, 1]]

    Raises:
        InputError: Other indices than the labels', or unequal numbers of rows.
    """
    given = as_indices(predicted, "predicted", num_labels)
    wanted = as_indices(expected, "expected", num_labels)
    require_equal_length(given, wanted)
    pairs = np.bincount(wanted * num_labels + given, minlength=num_labels**2)
    return pairs.reshape(num_labels, num_labels).astype(np.int64)


def confusion_of(
    predicted: npt.ArrayLike, expected: npt.ArrayLike, labels: Sequence[str]
) -> list[list[int]] | None:
    """The confusion matrix as lists; None with too many labels for a person to look at."""
    if len(labels) > _MATRIX_LABELS:
        return None
    found: list[list[int]] = confusion_matrix(predicted, expected, len(labels)).tolist()
    return found


def _counts_of_each(
    predicted: npt.ArrayLike, expected: npt.ArrayLike, num_labels: int
) -> tuple[Numbers, Numbers, Numbers]:
    """For each label, rows that are given it rightly, that are given it, and that have it.

    Unlike a confusion matrix they take no more room than the labels.
    """
    given = as_indices(predicted, "predicted", num_labels)
    wanted = as_indices(expected, "expected", num_labels)
    require_equal_length(given, wanted)
    right, decided, present = (
        np.bincount(rows, minlength=num_labels).astype(np.float64)
        for rows in (wanted[given == wanted], given, wanted)
    )
    return right, decided, present


def classification_scores(
    predicted: npt.ArrayLike, expected: npt.ArrayLike, num_labels: int
) -> dict[str, float]:
    """Accuracy, F1 as the mean over labels, and Matthews' correlation; of two labels F1 as well.

    The F1 of two labels is that of the second one. A label that neither occurs nor is predicted
    does not count.

    >>> scores = classification_scores([0, 1, 1, 1], [0, 0, 1, 1], 2)
    >>> {name: round(score, 3) for name, score in scores.items()}
    {'accuracy': 0.75, 'f1_macro': 0.733, 'matthews': 0.577, 'f1': 0.8}

    Raises:
        InputError: Other indices than the labels', or unequal numbers of rows.
    """
    right, given, wanted = _counts_of_each(predicted, expected, num_labels)
    f1 = _ratio(2 * right, given + wanted)
    scores = {
        "accuracy": float(right.sum() / wanted.sum()),
        "f1_macro": float(f1[given + wanted > 0].mean()),
        "matthews": matthews(right, given, wanted),
    }
    return {**scores, "f1": float(f1[1])} if num_labels == 2 else scores


def matthews(right: Numbers, given: Numbers, wanted: Numbers) -> float:
    """Matthews' correlation coefficient; 0 when one side is constant.

    Args:
        right: (num_labels,) float64: rows of each label that are given it.
        given: (num_labels,) float64: rows that are given the label.
        wanted: (num_labels,) float64: rows that have the label.

    >>> counts = np.array([2.0, 3.0])
    >>> matthews(counts, counts, counts), matthews(counts * [1, 0], counts, np.array([5.0, 0.0]))
    (1.0, 0.0)
    """
    total = wanted.sum()
    above = right.sum() * total - wanted @ given
    below = np.sqrt(total**2 - given @ given) * np.sqrt(total**2 - wanted @ wanted)
    return float(np.clip(above / below, -1.0, 1.0)) if below else 0.0


def multi_label_scores(predicted: npt.ArrayLike, expected: npt.ArrayLike) -> dict[str, float]:
    """Score rows that may have any number of labels.

    Args:
        predicted: (rows, num_labels), 1 or True where the row was given the label.
        expected: (rows, num_labels), 1 or True where the row has the label.

    Returns:
        `f1_micro` over all decisions, `f1_macro` as the mean over labels, and `accuracy`: the
        fraction of rows that are right in every label.

    Raises:
        InputError: The shapes differ.
    """
    given, wanted = _as_decisions(predicted, expected)
    right, decided, present = _decisions_of_each(given, wanted)
    return {
        "f1_micro": float(_ratio(2 * right.sum(), decided.sum() + present.sum())),
        "f1_macro": float(_ratio(2 * right, decided + present).mean()),
        "accuracy": float((given == wanted).all(1).mean()),
    }


def figures_of_labels(
    predicted: npt.ArrayLike, expected: npt.ArrayLike, labels: Sequence[str]
) -> list[LabelFigures]:
    """Precision, recall and F1 of each label, where a row has one."""
    return _figures(*_counts_of_each(predicted, expected, len(labels)), labels)


def figures_of_decisions(
    predicted: npt.ArrayLike, expected: npt.ArrayLike, labels: Sequence[str]
) -> list[LabelFigures]:
    """Precision, recall and F1 of each label where a row may have any number of them."""
    given, wanted = _as_decisions(predicted, expected)
    return _figures(*_decisions_of_each(given, wanted), labels)


def _as_decisions(
    predicted: npt.ArrayLike, expected: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    given, wanted = np.asarray(predicted).astype(bool), np.asarray(expected).astype(bool)
    if given.ndim != 2 or given.shape != wanted.shape:
        raise InputError(
            f"predicted: got {given.shape} for {wanted.shape}, expected (rows, num_labels) of both"
        )
    require_equal_length(given, wanted)
    return given, wanted


def _decisions_of_each(
    given: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_]
) -> tuple[Numbers, Numbers, Numbers]:
    """For each label, rows that are given it rightly, that are given it, and that have it."""
    right = (given & wanted).sum(0, dtype=np.float64)
    return right, given.sum(0, dtype=np.float64), wanted.sum(0, dtype=np.float64)


def _figures(
    right: Numbers, given: Numbers, wanted: Numbers, labels: Sequence[str]
) -> list[LabelFigures]:
    precision, recall = _ratio(right, given), _ratio(right, wanted)
    f1 = _ratio(2 * right, given + wanted)
    return [
        LabelFigures(label, float(precision[i]), float(recall[i]), float(f1[i]), int(wanted[i]))
        for i, label in enumerate(labels)
    ]


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Numbers:
    """Quotients, 0 where there is nothing to divide by."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    quotients: Numbers = np.divide(above, below, out=np.zeros_like(above), where=below != 0)
    return quotients
