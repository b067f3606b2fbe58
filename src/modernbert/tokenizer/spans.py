"""Where each token is in the original text.

The `tokenizers` library counts the space before a word as part of its token, and only the first
character of a letter that is composed of several (e and U+0301). Here a span covers the word
without the space, and every letter as a whole.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""Start (inclusive) and end (exclusive), in characters of the original text."""


@dataclass(frozen=True, kw_only=True)
class TextEncoding:
    """The token ids of a text, and where each token is in the text.

    Attributes:
        token_ids: (num_tokens,).
        offsets: (num_tokens,), the start and end of each token in characters of the text, so that
            `text[start:end]` is the token without the space before it; (0, 0) for special tokens.
    """

    token_ids: list[int]
    offsets: list[Span]


@dataclass(frozen=True, kw_only=True)
class WordEncoding:
    """The token ids of words, and where each token is in its word.

    Attributes:
        token_ids: (num_tokens,).
        word_ids: (num_tokens,), the index of each token's word; None for special tokens.
        offsets: (num_tokens,), the start and end of each token in characters of its word; (0, 0)
            for special tokens.
    """

    token_ids: list[int]
    word_ids: list[int | None]
    offsets: list[Span]


def token_spans(text: str, offsets: Sequence[Span]) -> list[Span]:
    """Correct the offsets that the `tokenizers` library gave for a text's tokens.

    A token that is only white space keeps its span. Tokens that share one character, such as the
    bytes of an emoji, all have that character's span.

    >>> token_spans("to be", [(0, 2), (2, 5)])
    [(0, 2), (3, 5)]

    Args:
        text: The text that was encoded.
        offsets: The library's start and end of each token, in characters.

    Returns:
        The corrected start and end of each token, in characters.
    """
    if not unicodedata.is_normalized("NFC", text):
        offsets = _with_whole_letters(text, offsets)
    return [_trimmed(text, start, end) for start, end in offsets]


def _with_whole_letters(text: str, offsets: Sequence[Span]) -> list[Span]:
    """Extend each span over the characters after it that NFC composed into its last letter."""
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
