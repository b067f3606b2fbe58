"""Scores of predicted labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modernbert.errors import InputError
from modernbert.metrics.checks import Indices, Numbers, as_indices, require_equal_length


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
    matrix = confusion_matrix(predicted, expected, num_labels)
    f1, occurs = _f1_of_each(matrix)
    scores = {
        "accuracy": float(matrix.trace() / matrix.sum()),
        "f1_macro": float(f1[occurs].mean()),
        "matthews": matthews(matrix),
    }
    return {**scores, "f1": float(f1[1])} if num_labels == 2 else scores


def matthews(matrix: Indices) -> float:
    """Matthews' correlation coefficient of a confusion matrix; 0 when one side is constant.

    >>> matthews(np.array([[2, 0], [0, 3]])), matthews(np.array([[2, 0], [3, 0]]))
    (1.0, 0.0)
    """
    counts = matrix.astype(np.float64)
    total, wanted, given = counts.sum(), counts.sum(1), counts.sum(0)
    above = counts.trace() * total - wanted @ given
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


def figures_of_labels(matrix: Indices, labels: Sequence[str]) -> list[LabelFigures]:
    """Precision, recall and F1 of each label of a confusion matrix."""
    counts = matrix.astype(np.float64)
    return _figures(counts.diagonal(), counts.sum(0), counts.sum(1), labels)


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


def _f1_of_each(matrix: Indices) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """(num_labels,) F1, and whether the label occurs or is predicted at all."""
    counts = matrix.astype(np.float64)
    both = counts.sum(0) + counts.sum(1)
    return _ratio(2 * counts.diagonal(), both), both > 0


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Numbers:
    """Quotients, 0 where there is nothing to divide by."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    quotients: Numbers = np.divide(above, below, out=np.zeros_like(above), where=below != 0)
    return quotients
