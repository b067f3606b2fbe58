"""Labels of words to entities: the B-, I- and O of named-entity data.

O                  no entity
B-NAME             an entity of the kind NAME begins
I-NAME             the entity goes on; after anything else it begins one
anything else      a kind without such marks: equal neighbours are one entity
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

OUTSIDE = "O"


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
    return [_entity(group) for group in _groups(spans)]


def kind_of(label: str) -> tuple[str, str]:
    """The mark of a label, B, I or nothing, and its kind.

    >>> kind_of("B-PER"), kind_of("PER")
    (('B', 'PER'), ('', 'PER'))
    """
    return (label[0], label[2:]) if label[:2] in ("B-", "I-") else ("", label)


def _groups(spans: Iterable[LabelledSpan]) -> Iterator[list[LabelledSpan]]:
    """The spans of each entity, the kind alone as their label."""
    group: list[LabelledSpan] = []
    for span in spans:
        mark, kind = kind_of(span.label)
        if group and (kind != group[-1].label or mark == "B"):
            yield group
            group = []
        if kind != OUTSIDE:
            group.append(replace(span, label=kind))
    if group:
        yield group


def _entity(group: Sequence[LabelledSpan]) -> Entity:
    score = sum(span.score for span in group) / len(group)
    return Entity(group[0].label, score, group[0].start, group[-1].end)
