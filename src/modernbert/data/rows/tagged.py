"""Words with a tag each: lists of both, or texts with spans, in the forms that are in use.

    tokens, tags               lists, also printed in a cell, or texts with blanks between
    text, entities             spans of characters: {"start", "end", "label"}, or as doccano and
                               spaCy write them [start, end, label]
    tokenized_text, ner        spans of words, the last one included, as GLiNER has them

Spans become BIO tags.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from modernbert.data.rows.cells import as_list, looks_like_list, shown, whole_number
from modernbert.data.rows.table import WORDS, Table
from modernbert.errors import DocumentError
from modernbert.word_splitting import SplitAt, WordSplitting

TAGS = ("tags", "ner_tags", "entities", "spans", "labels", "ner", "pos_tags", "label")

_SPANS = ("entities", "spans")
_OUTSIDE = "O"
_NO_MARK = re.compile(r"[\w\s.'\u2019]")
_STARTS = ("start", "start_offset")
_ENDS = ("end", "end_offset")
_LABELS = ("label", "type", "entity", "entity_group", "tag", "labels")


@dataclass(frozen=True)
class MarkedSpan:
    """A range of characters or words, with its label; `end` is exclusive."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class TaggedColumns:
    """The columns of the words, or of the text, and of the tags, or of the spans."""

    words: str
    tags: str

    @classmethod
    def find(cls, table: Table, words: str | None, tags: str | None) -> "TaggedColumns":
        """Find the columns that are asked for, or those of the usual names.

        Raises:
            DocumentError: There are none.
        """
        label = table.find(TAGS, asked=tags, option="--label")
        if words is None and label.lower() in _SPANS and (text := table.first_of(("text", "data"))):
            return cls(text, label)
        return cls(table.find(WORDS, asked=words, option="--text"), label)

    def read(self, table: Table, splitting: WordSplitting) -> list[tuple[list[str], list[Any]]]:
        """Return the words and the tags of each row; spans become BIO tags.

        Args:
            table: The rows with their columns of words and tags, or of texts and spans.
            splitting: How a text that has spans is split into words.

        Raises:
            DocumentError: A row has no lists, lists of unequal length, or impossible spans.
        """
        words, lists, has_spans = self._columns(table)
        return [
            self._row(word, tag, table.where(index), splitting if has_spans else None)
            for index, (word, tag) in enumerate(zip(words, lists, strict=True))
        ]

    def splitting(self, table: Table, at: SplitAt) -> WordSplitting:
        """How texts that have spans are split: also at the marks at which spans end within words.

        Raises:
            DocumentError: See `read`.
        """
        words, lists, has_spans = self._columns(table)
        usual = WordSplitting(at=at)
        ends = Counter[str]()
        for index, (text, tags) in enumerate(zip(words, lists, strict=True)):
            if has_spans and isinstance(text, str) and not looks_like_list(text):
                spans = [_span(each, table.where(index), 0) for each in tags]
                ends.update(_marks_at_ends(text, spans, usual))
        enough = max(2, sum(map(len, lists)) // 200)  # fewer may be slips of the hand
        return replace(usual, apart=tuple(sorted(m for m in ends if ends[m] >= enough)))

    def _columns(self, table: Table) -> tuple[list[Any], list[list[Any]], bool]:
        """The values of both columns, the tags as lists, and whether these are spans."""
        words = table.values(table.find([], asked=self.words, option="--text"))
        tags = table.values(table.find([], asked=self.tags, option="--label"))
        lists = [
            self._list(value, table.where(index), self.tags) for index, value in enumerate(tags)
        ]
        return words, lists, self.tags.lower() in _SPANS or any(map(_are_spans, lists))

    def _row(
        self, words: Any, tags: list[Any], where: str, splitting: WordSplitting | None
    ) -> tuple[list[str], list[Any]]:
        if splitting is not None and isinstance(words, str) and not looks_like_list(words):
            spans = [_span(each, where, 0) for each in tags]
            return tagged_text(words, spans, where, splitting)
        found = self._list(words, where, self.words)
        for number, word in enumerate(found, start=1):
            if not isinstance(word, str) or not word.strip():
                raise DocumentError(
                    f"{where}: column {self.words!r}: word {number} is {shown(word)}, expected a "
                    "text that is not blank; leave it out, with its tag"
                )
        if splitting is not None:
            spans = [_span(each, where, 1) for each in tags]
            return found, _tags_of(len(found), spans, where)
        if len(found) != len(tags):
            raise DocumentError(
                f"{where}: has {len(found)} words in {self.words!r} and {len(tags)} tags in "
                f"{self.tags!r}; each word needs one"
            )
        return found, tags

    def _list(self, value: Any, where: str, column: str) -> list[Any]:
        try:
            found = as_list(value)
        except DocumentError as error:
            raise DocumentError(f"{where}: column {column!r}: {error}") from None
        if found is None and isinstance(value, str):
            return value.split()
        if found is None:
            raise DocumentError(f"{where}: column {column!r}: got {shown(value)}, expected a list")
        return found


def tagged_text(
    text: str, spans: Sequence[MarkedSpan], where: str, splitting: WordSplitting
) -> tuple[list[str], list[str]]:
    """Return the words of a text, split at the ends of spans too, and their BIO tags.

    >>> spans = [MarkedSpan(0, 3, "PER"), MarkedSpan(14, 17, "LOC")]
    >>> tagged_text("Ada's, in the U.K!", spans, "row 1", WordSplitting())
    (['Ada', "'s", ',', 'in', 'the', 'U.K', '!'], ['B-PER', 'O', 'O', 'O', 'O', 'B-LOC', 'O'])

    Raises:
        DocumentError: A span lies outside the text or holds no word, or two overlap.
    """
    _check(spans, len(text), where)
    borders = {place for span in spans for place in (span.start, span.end)}
    places = [
        place
        for start, end in splitting.spans(text)
        for place in pairwise(sorted({start, end, *(b for b in borders if start < b < end)}))
    ]
    tags = [_OUTSIDE] * len(places)
    for span in spans:
        inside = [i for i, (a, b) in enumerate(places) if a >= span.start and b <= span.end]
        if not inside:
            raise DocumentError(
                f"{where}: the span {span.start} to {span.end} ({span.label}) holds no word but "
                f"{shown(text[span.start : span.end])}; correct it or leave it out"
            )
        for number, place in enumerate(inside):
            tags[place] = f"{'I' if number else 'B'}-{span.label}"
    return [text[a:b] for a, b in places], tags


def _marks_at_ends(
    text: str, spans: Sequence[MarkedSpan], splitting: WordSplitting
) -> Iterator[str]:
    """The marks beside the ends of spans that lie within words; not periods and apostrophes."""
    within = {place for start, end in splitting.spans(text) for place in range(start + 1, end)}
    for place in within.intersection(end for span in spans for end in (span.start, span.end)):
        yield from (mark for mark in text[place - 1 : place + 1] if not _NO_MARK.fullmatch(mark))


def _tags_of(num_words: int, spans: Sequence[MarkedSpan], where: str) -> list[str]:
    _check(spans, num_words, where)
    tags = [_OUTSIDE] * num_words
    for span in spans:
        tags[span.start] = f"B-{span.label}"
        for place in range(span.start + 1, span.end):
            tags[place] = f"I-{span.label}"
    return tags


def _check(spans: Sequence[MarkedSpan], length: int, where: str) -> None:
    """Refuse spans that no row of tags can hold."""
    before = MarkedSpan(0, 0, "")
    for span in sorted(spans, key=lambda each: each.start):
        if not 0 <= span.start < span.end <= length:
            raise DocumentError(
                f"{where}: the span {span.start} to {span.end} ({span.label}) does not lie within "
                f"the text, which ends at {length}; correct it or leave it out"
            )
        if span.start < before.end:
            raise DocumentError(
                f"{where}: the spans {before.start} to {before.end} ({before.label}) and "
                f"{span.start} to {span.end} ({span.label}) overlap; keep one of them"
            )
        before = span


def _are_spans(values: Sequence[Any]) -> bool:
    """Return whether a list contains spans; an empty one does not say."""
    return bool(values) and all(isinstance(each, dict | list | tuple) for each in values)


def _span(value: Any, where: str, last_included: int) -> MarkedSpan:
    """Read a span: an object or a list of three."""
    if isinstance(value, dict):
        parts = [
            next((value[name] for name in names if name in value), None)
            for names in (_STARTS, _ENDS, _LABELS)
        ]
    else:
        parts = list(value) if isinstance(value, list | tuple) else []
    start, end, label = parts if len(parts) == 3 else (None, None, None)
    start, end = whole_number(start), whole_number(end)
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if start is None or end is None or not isinstance(label, str) or not label:
        raise DocumentError(
            f"{where}: got the span {shown(value)}, expected its start, its end and its label"
        )
    return MarkedSpan(start, end + last_included, label)
