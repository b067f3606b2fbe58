"""Scores of predicted numbers."""

import numpy as np
import numpy.typing as npt

from modernbert.errors import InputError
from modernbert.metrics.checks import Numbers, as_numbers, require_equal_length


def regression_scores(predicted: npt.ArrayLike, expected: npt.ArrayLike) -> dict[str, float]:
    """Correlations after Pearson and Spearman, and the root of the mean squared error.

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
    """The correlation of two rows of numbers; 0 when one of them is constant."""
    first, second = _of_size_one(first - first.mean()), _of_size_one(second - second.mean())
    return float(np.clip(first @ second, -1.0, 1.0))


def ranks(numbers: Numbers) -> Numbers:
    """The rank of each number, from 1; equal ones share the mean of theirs.

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
