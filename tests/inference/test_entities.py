"""Labels of words to entities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.inference.tagger import LabelledSpan, merged
from modernbert.metrics.spans import kind_of


def spans(labels: list[str]) -> list[LabelledSpan]:
    return [LabelledSpan(label, 0.5, 2 * i, 2 * i + 1) for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("O", ""),
        ("B-P I-P O I-P", "P:0-3 P:6-7"),
        ("B-P B-P", "P:0-1 P:2-3"),
        ("B-P I-L I-L", "P:0-1 L:2-5"),
        ("I-P I-P B-P I-P", "P:0-3 P:4-7"),
        ("P P O L P", "P:0-3 L:6-7 P:8-9"),
    ],
)
def test_marks(labels: str, expected: str) -> None:
    found = merged(spans(labels.split()))
    assert " ".join(f"{each.label}:{each.start}-{each.end}" for each in found) == expected


def test_the_score_is_the_mean() -> None:
    words = [LabelledSpan("B-P", 0.5, 0, 1), LabelledSpan("I-P", 1.0, 1, 2)]
    assert merged(words)[0].score == 0.75


@given(st.lists(st.sampled_from(["O", "B-P", "I-P", "B-L", "I-L", "X"])))
def test_every_word_that_is_not_outside_is_in_one_entity(labels: list[str]) -> None:
    found = merged(spans(labels))
    for i, label in enumerate(labels):
        covering = [each for each in found if each.start <= 2 * i < each.end]
        assert [each.label for each in covering] == ([] if label == "O" else [kind_of(label)[1]])
    assert found == sorted(found, key=lambda each: each.start)
