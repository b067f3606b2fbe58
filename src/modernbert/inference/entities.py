"""Labels of words to entities with scores; `metrics.entities` says where one begins and ends."""

from collections.abc import Iterable
from dataclasses import dataclass

from modernbert.metrics.entities import entity_spans


@dataclass(frozen=True)
class Entity:
    """A stretch of a text, or of a list of words, that has one label.

    label: the kind, without B- or I-.
    score: the mean of its words' probabilities.
    start, end: the characters of the text, or the words of the list; `end` is exclusive.
    """

    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class LabelledSpan:
    """A word, or another piece of a text, with its label as the model gives it."""

    label: str
    score: float
    start: int
    end: int


def merged(spans: Iterable[LabelledSpan]) -> list[Entity]:
    """The entities of spans that come in the order of the text.

    >>> spans = [("B-PER", 0, 5), ("I-PER", 6, 9), ("O", 10, 13), ("B-LOC", 14, 19)]
    >>> for entity in merged(LabelledSpan(label, 1.0, *span) for label, *span in spans):
    ...     print(entity)
    Entity(label='PER', score=1.0, start=0, end=9)
    Entity(label='LOC', score=1.0, start=14, end=19)
    """
    words = list(spans)
    return [
        Entity(
            label=kind,
            score=sum(word.score for word in words[first:end]) / (end - first),
            start=words[first].start,
            end=words[end - 1].end,
        )
        for kind, first, end in entity_spans([word.label for word in words])
    ]
