"""Scores of answers, by the examples and the rules of SQuAD."""

import pytest

from modernbert.errors import InputError
from modernbert.metrics.answers import answer_scores, exact_match, normalised, overlap_f1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The  cat.", "cat"),
        ("an Apple a day", "apple day"),
        ("U.S.A.", "usa"),
        ("theatre", "theatre"),
        ("a.m.", "am"),
        ("the", ""),
    ],
)
def test_what_does_not_count(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


@pytest.mark.parametrize(
    ("predicted", "answers", "exact", "f1"),
    [
        ("Denver Broncos", ["the Denver Broncos!"], 1, 1),
        ("Broncos", ["Denver Broncos"], 0, 2 / 3),
        ("new new york", ["new york"], 0, 0.8),
        ("york", ["paris", "new york"], 0, 2 / 3),
        ("", [], 1, 1),
        ("something", [], 0, 0),
        ("", ["something"], 0, 0),
    ],
)
def test_one_answer(predicted: str, answers: list[str], exact: float, f1: float) -> None:
    assert exact_match(predicted, answers) == exact
    assert overlap_f1(predicted, answers) == pytest.approx(f1)


def test_means_over_questions() -> None:
    scores = answer_scores(["Broncos", ""], [["Denver Broncos"], []])
    assert scores == pytest.approx({"exact_match": 0.5, "f1": 5 / 6})
    with pytest.raises(InputError, match=r"^got 1 predictions for 2 rows"):
        answer_scores([""], [[], []])
