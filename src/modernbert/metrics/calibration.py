"""How far scores are probabilities, and what makes them so: a temperature, and thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modernbert.metrics.classification import Numbers

_NUM_BINS = 10
_SMALLEST, _LARGEST = -4.0, 4.0  # of the natural logarithm of a temperature
_NUM_STEPS = 60  # each leaves 0.62 of the range


@dataclass(frozen=True)
class CalibrationBin:
    """The predictions of about the same confidence.

    Attributes:
        low, high: The range of the confidence.
        count: How many predictions there are.
        confidence: Their mean confidence; 0 without any.
        accuracy: The fraction of them that is right; 0 without any.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def calibration_bins(confidences: npt.ArrayLike, is_right: npt.ArrayLike) -> list[CalibrationBin]:
    """Group predictions by their confidence.

    Args:
        confidences: (rows,) probabilities.
        is_right: (rows,) whether the predictions are right.
    """
    chances, right = np.asarray(confidences, np.float64), np.asarray(is_right, np.float64)
    place = np.minimum((chances * _NUM_BINS).astype(np.int64), _NUM_BINS - 1)
    counts = np.bincount(place, minlength=_NUM_BINS)
    sums = [np.bincount(place, weights=each, minlength=_NUM_BINS) for each in (chances, right)]
    means = [each / np.maximum(counts, 1) for each in sums]
    return [
        CalibrationBin(
            number / _NUM_BINS,
            (number + 1) / _NUM_BINS,
            int(counts[number]),
            float(means[0][number]),
            float(means[1][number]),
        )
        for number in range(_NUM_BINS)
    ]


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy.

    >>> calibration_error([CalibrationBin(0.9, 1.0, 10, 0.95, 0.75)])
    0.2

    Args:
        bins: The bins; each counts by its predictions.
    """
    total = sum(each.count for each in bins)
    distance = sum(each.count * abs(each.confidence - each.accuracy) for each in bins)
    return round(distance / total, 12) if total else 0.0


def best_temperature(logits: Numbers, expected: npt.ArrayLike) -> float:
    """Find the number by which logits are divided for the lowest cross entropy.

    The loss has one minimum in the inverse of the temperature, which golden-section search finds
    (Guo et al., arXiv 1706.04599).

    Args:
        logits: (rows, num_labels).
        expected: (rows,) the index of the label of each row; or (rows, num_labels), 1 for each
            label that a row has.
    """
    wanted = np.asarray(expected)

    def loss(logarithm: float) -> float:
        scaled = logits / np.exp(logarithm)
        if wanted.ndim == 2:
            return float((np.logaddexp(0, scaled) - wanted * scaled).mean())
        highest = scaled.max(axis=1, keepdims=True)
        total = highest[:, 0] + np.log(np.exp(scaled - highest).sum(axis=1))
        return float((total - scaled[np.arange(len(scaled)), wanted]).mean())

    low, high, ratio = _SMALLEST, _LARGEST, (5**0.5 - 1) / 2
    for _ in range(_NUM_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def best_thresholds(scores: npt.ArrayLike, expected: npt.ArrayLike) -> list[float]:
    """Find the score of each label from which on it is given, for the highest F1.

    A threshold is halfway between two scores. Of several that are as good, the one nearest to 0.5
    is taken; a label that no row has keeps 0.5.

    >>> best_thresholds([[0.3], [0.4], [0.1]], [[1], [1], [0]])
    [0.2]

    Args:
        scores: (rows, num_labels) probabilities.
        expected: (rows, num_labels), 1 for each label that a row has.
    """
    columns = zip(np.asarray(scores, np.float64).T, np.asarray(expected).T, strict=True)
    return [_best_threshold(*each) for each in columns]


def _best_threshold(scores: Numbers, expected: npt.NDArray[np.int64]) -> float:
    if not expected.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ordered, right = scores[order], np.cumsum(expected[order])
    f1 = 2 * right / (np.arange(1, len(ordered) + 1) + expected.sum())
    following = np.append(ordered[1:], -1.0)
    thresholds = (ordered + following.clip(min=0)) / 2
    is_border = ordered > following  # rows of equal scores are not divided
    best = f1[is_border].max(initial=0.0)
    found = thresholds[is_border & (f1 >= best - 1e-12)]
    return float(found[np.argmin(np.abs(found - 0.5))]) if len(found) else 0.5
