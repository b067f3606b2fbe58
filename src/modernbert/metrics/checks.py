"""Checks of predictions and expected values before scores are computed."""

from collections.abc import Sequence

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
