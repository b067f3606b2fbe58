"""Scores of labels, against scikit-learn."""

import tracemalloc
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from modernbert.errors import InputError
from modernbert.metrics.classification import (
    classification_scores,
    confusion_matrix,
    figures_of_decisions,
    figures_of_labels,
    multi_label_scores,
    ranks,
    regression_scores,
)

PAIRS = st.integers(2, 4).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.lists(
            st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), min_size=1, max_size=30
        ),
    )
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """scikit-learn warns of labels that never occur."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@given(PAIRS)
def test_scores_are_scikit_learns(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = case
    predicted, expected = zip(*pairs, strict=True)
    scores = classification_scores(predicted, expected, count)
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(expected, predicted))
    macro = reference.f1_score(expected, predicted, average="macro")
    assert scores["f1_macro"] == pytest.approx(macro)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matthews = reference.matthews_corrcoef(expected, predicted)
    assert scores["matthews"] == pytest.approx(matthews, abs=1e-9)
    if count == 2:
        assert scores["f1"] == pytest.approx(
            reference.f1_score(expected, predicted, zero_division=0)
        )


@given(PAIRS)
def test_the_matrix_and_each_label_are_scikit_learns(
    case: tuple[int, list[tuple[int, int]]],
) -> None:
    count, pairs = case
    predicted, expected = zip(*pairs, strict=True)
    labels = list(range(count))
    matrix = confusion_matrix(predicted, expected, count)
    assert matrix.tolist() == (
        reference.confusion_matrix(expected, predicted, labels=labels).tolist()
    )
    wanted = reference.precision_recall_fscore_support(
        expected, predicted, labels=labels, zero_division=0
    )
    for figures, *row in zip(
        figures_of_labels(predicted, expected, list("abcd")[:count]), *wanted, strict=True
    ):
        found = (figures.precision, figures.recall, figures.f1, figures.support)
        assert found == pytest.approx(tuple(row))


def test_rows_with_any_number_of_labels_are_scored_as_scikit_learn_does() -> None:
    generator = np.random.default_rng(0)
    expected, predicted = generator.integers(0, 2, (2, 40, 5))
    expected[:, 4] = predicted[:, 4] = 0
    scores = multi_label_scores(predicted, expected)
    for name in ("micro", "macro"):
        wanted = reference.f1_score(expected, predicted, average=name, zero_division=0)
        assert scores[f"f1_{name}"] == pytest.approx(wanted)
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(expected, predicted))
    wanted = reference.precision_recall_fscore_support(expected, predicted, zero_division=0)
    for figures, *row in zip(
        figures_of_decisions(predicted, expected, list("abcde")), *wanted, strict=True
    ):
        found = (figures.precision, figures.recall, figures.f1, figures.support)
        assert found == pytest.approx(tuple(row))


def test_many_labels_take_no_more_room_than_their_number() -> None:
    rows = np.arange(1_000_000, step=7)
    tracemalloc.start()
    try:
        scores = classification_scores(rows, rows, 1_000_000)
        figures = figures_of_labels(rows, rows, [""] * 1_000_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert scores["accuracy"] == scores["f1_macro"] == 1.0
    assert sum(each.support for each in figures) == len(rows)
    assert peak_bytes < 1_000_000_000


def test_what_cannot_be_scored() -> None:
    with pytest.raises(InputError, match=r"^got 1 predictions for 2 rows"):
        classification_scores([0], [0, 1], 2)
    with pytest.raises(InputError, match=r"^no rows"):
        classification_scores([], [], 2)
    with pytest.raises(InputError, match=r"^predicted: got 0 to 2, expected indices from 0 to 1"):
        classification_scores([0, 2], [0, 1], 2)
    with pytest.raises(InputError, match=r"^predicted: got \(2,\) float64, expected indices"):
        classification_scores([0.0, float("nan")], [0, 1], 2)
    with pytest.raises(InputError, match=r"^predicted: got \(1, 2\) for \(1, 3\)"):
        multi_label_scores([[0, 1]], [[0, 1, 0]])


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


def test_numbers_that_cannot_be_scored() -> None:
    with pytest.raises(InputError, match=r"^predicted: row 2 is NaN; a score must be a number"):
        regression_scores([0.0, float("nan")], [0.0, 1.0])
    with pytest.raises(InputError, match=r"^expected: not numbers"):
        regression_scores([0.0], ["good"])
    with pytest.raises(InputError, match=r"^predicted: got \(1,\) for \(2,\)"):
        regression_scores([0.0], [0.0, 1.0])
    with pytest.raises(InputError, match=r"^no rows"):
        regression_scores([], [])
