"""Scores of numbers, against scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from modernbert.errors import InputError
from modernbert.metrics.regression import ranks, regression_scores


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), min_size=3, max_size=30))
def test_scores_are_scipys(pairs: list[tuple[int, int]]) -> None:
    predicted, expected = np.array(pairs, float).T
    scores = regression_scores(predicted, expected)
    assert ranks(predicted).tolist() == stats.rankdata(predicted).tolist()
    if predicted.std() and expected.std():
        assert scores["pearson"] == pytest.approx(stats.pearsonr(predicted, expected)[0], abs=1e-9)
        spearman = stats.spearmanr(predicted, expected)[0]
        assert scores["spearman"] == pytest.approx(spearman, abs=1e-9)
    else:
        assert scores["pearson"] == scores["spearman"] == 0
    assert scores["rmse"] == pytest.approx(np.mean((predicted - expected) ** 2) ** 0.5)


def test_tiny_and_huge_numbers_correlate() -> None:
    numbers = np.array([1.0, 2.0, 4.0])
    assert regression_scores(numbers * 1e-200, numbers * 1e150)["pearson"] == pytest.approx(1)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(InputError, match=r"^predicted: row 2 is NaN; a score must be a number"):
        regression_scores([0.0, float("nan")], [0.0, 1.0])
    with pytest.raises(InputError, match=r"^expected: not numbers"):
        regression_scores([0.0], ["good"])
    with pytest.raises(InputError, match=r"^predicted: got \(1,\) for \(2,\)"):
        regression_scores([0.0], [0.0, 1.0])
    with pytest.raises(InputError, match=r"^no rows"):
        regression_scores([], [])
