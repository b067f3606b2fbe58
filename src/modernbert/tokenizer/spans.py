"""Where each token stands in the text that the user gave.

The Rust side counts the space before a word as part of its token, and of a letter composed of
several characters (e and U+0301) only the first. Here a span holds the word without the space and
the whole of every letter.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""Start (inclusive) and end (exclusive), in characters of the original text."""


@dataclass(frozen=True, kw_only=True)
class TextEncoding:
    """A text's token ids, and where each token stands in the text.

    offsets: (start, end) of each token in characters of the text, so that `text[start:end]` is
        the token without the space before it; (0, 0) for [CLS] and [SEP].
    """

    token_ids: list[int]
    offsets: list[Span]


@dataclass(frozen=True, kw_only=True)
class WordEncoding:
    """The token ids of words, and where each token stands in its word.

    word_ids: the index of each token's word; None for [CLS] and [SEP].
    offsets: (start, end) of each token in characters of its word; (0, 0) for [CLS] and [SEP].
    """

    token_ids: list[int]
    word_ids: list[int | None]
    offsets: list[Span]


def token_spans(text: str, offsets: Sequence[Span]) -> list[Span]:
    """The spans of a text's tokens, from the offsets that the Rust side gave.

    A token of nothing but white space keeps its span. Tokens that share one character, such as the
    bytes of an emoji, all have that character's span.

    >>> token_spans("to be", [(0, 2), (2, 5)])
    [(0, 2), (3, 5)]
    """
    if not unicodedata.is_normalized("NFC", text):
        offsets = _with_whole_letters(text, offsets)
    return [_trimmed(text, start, end) for start, end in offsets]


def _with_whole_letters(text: str, offsets: Sequence[Span]) -> list[Span]:
    """Stretch each span over the characters up to the next one, which NFC composed into it."""
    spans: list[Span] = []
    border = following_start = len(text)
    for start, end in reversed(offsets):
        if end <= following_start:  # otherwise both are bytes of one letter and end together
            border = following_start
        spans.append((start, max(end, border)))
        following_start = start
    return spans[::-1]


def _trimmed(text: str, start: int, end: int) -> Span:
    token = text[start:end]
    word = token.strip()
    if not word or len(word) == len(token):
        return start, end
    start += len(token) - len(token.lstrip())
    return start, start + len(word)
