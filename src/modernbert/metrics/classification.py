"""Scores of predicted labels and numbers, and the checks of predictions before all scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modernbert.errors import InputError

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def as_numbers(values: npt.ArrayLike, name: str) -> Numbers:
    """Return (rows,) or (rows, columns) float64 without NaN.

    Raises:
        InputError: A value is not a number, or is NaN; the message names its row.
    """
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: not numbers: {error}") from None
    if np.isnan(numbers).any():
        row = int(np.argwhere(np.isnan(numbers))[0][0])
        raise InputError(f"{name}: row {row + 1} is NaN; a score must be a number")
    return numbers


def as_indices(values: npt.ArrayLike, name: str, count: int) -> Indices:
    """Return (rows,) int64, each the index of one of `count` labels.

    Raises:
        InputError: A value is not such an index.
    """
    indices = np.asarray(values)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise InputError(
            f"{name}: got {indices.shape} {indices.dtype}, expected indices of labels, one per row"
        )
    if indices.size and not 0 <= indices.min() <= indices.max() < count:
        raise InputError(
            f"{name}: got {int(indices.min())} to {int(indices.max())}, "
            f"expected indices from 0 to {count - 1}"
        )
    return indices.astype(np.int64)


def require_equal_length(
    predicted: Sequence[object] | np.ndarray, expected: Sequence[object] | np.ndarray
) -> None:
    """Check that there is one prediction per expected value, and at least one.

    Raises:
        InputError: The numbers differ, or there are none.
    """
    if len(predicted) != len(expected):
        raise InputError(f"got {len(predicted)} predictions for {len(expected)} rows")
    if not len(expected):
        raise InputError("no rows: there is nothing to score")


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
    """Count the rows that have a label and were given another: (num_labels, num_labels) int64.

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
    """Return the confusion matrix as lists; None with too many labels for a person to look at."""
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
    """Compute accuracy, mean F1 over labels and Matthews' correlation; of two labels F1 as well.

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
    """Compute Matthews' correlation coefficient; 0 when one side is constant.

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
    """Compute precision, recall and F1 of each label, where a row has one."""
    return _figures(*_counts_of_each(predicted, expected, len(labels)), labels)


def figures_of_decisions(
    predicted: npt.ArrayLike, expected: npt.ArrayLike, labels: Sequence[str]
) -> list[LabelFigures]:
    """Compute precision, recall and F1 of each label where a row may have several."""
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


def regression_scores(predicted: npt.ArrayLike, expected: npt.ArrayLike) -> dict[str, float]:
    """Compute the correlations of Pearson and Spearman, and the root of the mean squared error.

    >>> scores = regression_scores([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    >>> {name: round(score, 3) for name, score in scores.items()}
    {'pearson': 0.982, 'spearman': 1.0, 'rmse': 0.577}

    Raises:
        InputError: NaN, shapes that differ, or no rows.
    """
    given, wanted = as_numbers(predicted, "predicted"), as_numbers(expected, "expected")
    if given.ndim != 1 or given.shape != wanted.shape:
        raise InputError(f"predicted: got {given.shape} for {wanted.shape}, expected (rows,)")
    require_equal_length(given, wanted)
    return {
        "pearson": pearson(given, wanted),
        "spearman": pearson(ranks(given), ranks(wanted)),
        "rmse": float(np.sqrt(np.mean((given - wanted) ** 2))),
    }


def pearson(first: Numbers, second: Numbers) -> float:
    """Return the correlation of two rows of numbers; 0 when one of them is constant."""
    first, second = _of_size_one(first - first.mean()), _of_size_one(second - second.mean())
    return float(np.clip(first @ second, -1.0, 1.0))


def ranks(numbers: Numbers) -> Numbers:
    """Return the rank of each number, from 1; equal ones share the mean of theirs.

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    means: Numbers = last - (counts - 1) / 2
    return means[places]


def _of_size_one(numbers: Numbers) -> Numbers:
    """The numbers as a vector of length 1; zeros stay zeros."""
    largest = np.abs(numbers).max()
    if not largest:
        return numbers
    scaled = numbers / largest  # first, so that no square leaves the range of floats
    unit: Numbers = scaled / np.linalg.norm(scaled)
    return unit
