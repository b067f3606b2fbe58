"""Scores of what was found in texts: entities of labelled words, and answers to questions.

O                  no entity
B-NAME             an entity of the kind NAME begins
I-NAME, M-NAME     the entity goes on; after anything else it begins one (so IOB1 has it)
E-NAME, L-NAME     the entity ends here (BIOES, BMES, BILOU)
S-NAME, U-NAME     an entity of one word (BIOES, BMES, BILOU)
anything else      a kind without such marks: equal neighbours are one entity

Where labels are BIOES or BILOU, scores count whole entities alone, from the beginning to the end.

Answers are scored as for SQuAD: without case, punctuation, articles and extra white space. If a
question has several right answers, the best match counts. If it has none, only an empty answer is
right.
"""

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence

from modernbert.errors import InputError
from modernbert.metrics.classification import LabelFigures, require_equal_length

OUTSIDE = "O"

_MARKS = {**{mark: mark for mark in "BIELSU"}, "M": "I"}
_BEGINNINGS = ("B", "S", "U")
_ENDS = ("E", "L", "S", "U")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def kind_of(label: str) -> tuple[str, str]:
    """Return the mark of a label, one of B, I, E, L, S, U or nothing, and its kind.

    >>> kind_of("B-PER"), kind_of("M-PER"), kind_of("PER")
    (('B', 'PER'), ('I', 'PER'), ('', 'PER'))
    """
    mark = _MARKS.get(label[:1]) if label[1:2] == "-" else None
    return (mark, label[2:]) if mark is not None else ("", label)


def entity_spans(labels: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the kind, first word and end (exclusive) of each entity, in their order.

    >>> list(entity_spans(["B-PER", "I-PER", "O", "B-LOC", "B-LOC"]))
    [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    """
    begun, current, is_over = 0, OUTSIDE, False
    for place, label in enumerate(labels):
        mark, kind = kind_of(label)
        if kind != current or mark in _BEGINNINGS or is_over:
            if current != OUTSIDE:
                yield current, begun, place
            begun, current = place, kind
        is_over = mark in _ENDS
    if current != OUTSIDE:
        yield current, begun, len(labels)


def entity_scores(
    predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Compute F1, precision and recall of whole entities, and the accuracy over words.

    An entity counts as found when its kind, its beginning and its end are right.

    >>> entity_scores([["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]])["f1"]
    0.0

    Args:
        predicted: The predicted labels of each text's words.
        expected: The right labels of each text's words.

    Returns:
        `f1`, `precision`, `recall` and `accuracy`, each from 0 to 1.

    Raises:
        InputError: The numbers of texts differ, or those of words in one of them.
    """
    right, given, wanted = _counts(predicted, expected)
    figures = _figures("", right.total(), given.total(), wanted.total())
    words = [
        one == other
        for text, other_text in zip(predicted, expected, strict=True)
        for one, other in zip(text, other_text, strict=True)
    ]
    return {
        "f1": figures.f1,
        "precision": figures.precision,
        "recall": figures.recall,
        "accuracy": sum(words) / max(1, len(words)),
    }


def figures_of_kinds(
    predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]
) -> list[LabelFigures]:
    """Compute precision, recall and F1 of each kind of entity, sorted by name.

    Raises:
        InputError: As `entity_scores`.
    """
    right, given, wanted = _counts(predicted, expected)
    return [
        _figures(kind, right[kind], given[kind], wanted[kind]) for kind in sorted(given | wanted)
    ]


def _counts(
    predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Entities of each kind: found rightly, found, and there to be found."""
    require_equal_length(predicted, expected)
    right, given, wanted = Counter[str](), Counter[str](), Counter[str]()
    used = {label for rows in (predicted, expected) for row in rows for label in row}
    has_ends = any(kind_of(label)[0] in _ENDS for label in used)
    for row, (labels, other_labels) in enumerate(zip(predicted, expected, strict=True), start=1):
        if len(labels) != len(other_labels):
            raise InputError(
                f"row {row}: got {len(labels)} predicted labels for {len(other_labels)} words"
            )
        found, there = (
            {span for span in entity_spans(each) if not has_ends or _is_whole(each, span)}
            for each in (labels, other_labels)
        )
        right.update(kind for kind, *_ in found & there)
        given.update(kind for kind, *_ in found)
        wanted.update(kind for kind, *_ in there)
    return right, given, wanted


def _is_whole(labels: Sequence[str], span: tuple[str, int, int]) -> bool:
    """Whether an entity of BIOES or BILOU has its beginning, its end and nothing else between."""
    _, begin, end = span
    marks = [kind_of(label)[0] for label in labels[begin:end]]
    if len(marks) == 1:
        return marks[0] in ("S", "U")
    return marks[0] == "B" and marks[-1] in ("E", "L") and set(marks[1:-1]) <= {"I"}


def _figures(kind: str, right: int, given: int, wanted: int) -> LabelFigures:
    return LabelFigures(
        label=kind,
        precision=right / given if given else 0.0,
        recall=right / wanted if wanted else 0.0,
        f1=2 * right / (given + wanted) if given + wanted else 0.0,
        support=wanted,
    )


def normalised(answer: str) -> str:
    """Lowercase an answer and remove articles, punctuation and extra spaces.

    >>> normalised("  The Eiffel-Tower!")
    'eiffeltower'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction is one of the answers, otherwise 0."""
    return float(normalised(predicted) in {normalised(answer) for answer in answers or [""]})


def overlap_f1(predicted: str, answers: Sequence[str]) -> float:
    """Compute the F1 of the words that the prediction shares with the best matching answer.

    >>> overlap_f1("the green house", ["a house", "green garden"])
    0.6666666666666666
    """
    return max(_f1(normalised(predicted).split(), normalised(a).split()) for a in answers or [""])


def answer_scores(predicted: Sequence[str], expected: Sequence[Sequence[str]]) -> dict[str, float]:
    """Compute the mean exact match and the mean F1 over all questions.

    Args:
        predicted: The predicted answer to each question; an empty text for no answer.
        expected: The right answers to each question; an empty list for a question without one.

    Returns:
        `exact_match` and `f1`, both from 0 to 1.

    Raises:
        InputError: There are no questions, or their number differs from that of predictions.
    """
    require_equal_length(predicted, expected)
    pairs = list(zip(predicted, expected, strict=True))
    return {
        "exact_match": sum(exact_match(*pair) for pair in pairs) / len(pairs),
        "f1": sum(overlap_f1(*pair) for pair in pairs) / len(pairs),
    }


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted))
