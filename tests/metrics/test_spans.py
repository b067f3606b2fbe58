"""Scores of entities against hand-counted ones, and of answers as for SQuAD."""

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval import metrics as reference
from seqeval.metrics.sequence_labeling import get_entities

from modernbert.errors import InputError
from modernbert.metrics.spans import (
    answer_scores,
    entity_scores,
    entity_spans,
    exact_match,
    figures_of_kinds,
    normalised,
    overlap_f1,
)

LABELS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
TEXTS = st.lists(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=12), min_size=1)


@given(st.lists(LABELS, max_size=12))
def test_entities_are_seqevals(labels: list[str]) -> None:
    assert [(kind, start, end - 1) for kind, start, end in entity_spans(labels)] == (
        get_entities(labels)
    )


@given(TEXTS)
def test_scores_are_seqevals(texts: list[list[tuple[str, str]]]) -> None:
    predicted = [[one for one, _ in text] for text in texts]
    expected = [[other for _, other in text] for text in texts]
    scores = entity_scores(predicted, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("f1", "precision", "recall"):
            wanted = getattr(reference, f"{name}_score")(expected, predicted, zero_division=0)
            assert scores[name] == pytest.approx(wanted)
        assert scores["accuracy"] == pytest.approx(reference.accuracy_score(expected, predicted))
        if any(list(entity_spans(labels)) for labels in [*expected, *predicted]):
            report = reference.classification_report(
                expected, predicted, output_dict=True, zero_division=0
            )
            for figures in figures_of_kinds(predicted, expected):
                wanted = report[figures.label]
                assert (figures.precision, figures.recall, figures.f1, figures.support) == (
                    pytest.approx(
                        (
                            wanted["precision"],
                            wanted["recall"],
                            wanted["f1-score"],
                            wanted["support"],
                        )
                    )
                )


def test_labels_without_marks_are_one_entity_while_they_are_equal() -> None:
    assert list(entity_spans(["PER", "PER", "O", "LOC"])) == [("PER", 0, 2), ("LOC", 3, 4)]


def test_what_cannot_be_scored() -> None:
    with pytest.raises(InputError, match=r"^row 2: got 1 predicted labels for 2 words"):
        entity_scores([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(InputError, match=r"^got 1 predictions for 2 rows"):
        entity_scores([["O"]], [["O"], ["O"]])


@pytest.mark.parametrize(("scheme", "marks"), [("IOBES", "BIES"), ("BILOU", "BILU")])
@given(data=st.data())
def test_whole_entities_as_the_schemes_of_seqeval_count_them(
    scheme: str, marks: str, data: st.DataObject
) -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    schemes = pytest.importorskip("seqeval.scheme")
    labels = st.sampled_from(["O", *(f"{mark}-{kind}" for mark in marks for kind in "XY")])
    size = data.draw(st.integers(1, 8))
    found, there = (data.draw(st.lists(labels, min_size=size, max_size=size)) for _ in range(2))
    there[-1] = f"{marks[-1]}-X"  # so that the scheme shows
    ours = entity_scores([found], [there])["f1"]
    theirs = metrics.f1_score(
        [there], [found], mode="strict", scheme=getattr(schemes, scheme), zero_division=0
    )
    assert ours == pytest.approx(theirs)


def test_bmes_is_bioes() -> None:
    labels = ["B-PER", "M-PER", "E-PER", "S-LOC"]
    assert list(entity_spans(labels)) == [("PER", 0, 3), ("LOC", 3, 4)]
    assert entity_scores([labels], [labels])["f1"] == 1


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
