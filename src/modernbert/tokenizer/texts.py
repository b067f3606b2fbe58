"""Texts that callers pass: checking and cutting them, and where each token is in them.

The `tokenizers` library keeps about a hundred bytes per character of a text and encodes each text
on one thread. Cut into pieces, a whole book needs a few megabytes and uses every core.

It counts the space before a word as part of its token, and only the first character of a letter
that is composed of several (e and U+0301). Here a span covers the word without the space, and every
letter as a whole.
"""

import operator
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modernbert.errors import InputError
from modernbert.tokenizer.definition import BYTE_LEVEL, NORMALIZER

Span = tuple[int, int]
"""Start (inclusive) and end (exclusive), in characters of the original text."""


def require_text(text: object, name: str) -> str:
    """Return a text that is known to be a str that UTF-8 can encode.

    >>> require_text(b"x", "texts[3]")
    Traceback (most recent call last):
    ...
    modernbert.errors.InputError: texts[3]: got bytes, expected a str

    Args:
        text: What the caller passed.
        name: The name of the argument, for the message.

    Raises:
        InputError: It is not a str, or it holds a lone surrogate.
    """
    if not isinstance(text, str):
        raise InputError(f"{name}: got {type(text).__name__}, expected a str")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: lone surrogate {text[error.start]!a} at character {error.start}; "
            "decode the bytes as UTF-8 with errors='replace'"
        ) from None
    return text


def require_texts(texts: Iterable[object], name: str) -> list[str]:
    """Return a list of checked texts; a single str is refused and not taken as a list of letters.

    Raises:
        InputError: It is not a list of str, or one of them is not a valid text.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InputError(f"{name}: got {type(texts).__name__}, expected a list of str")
    return [require_text(text, f"{name}[{index}]") for index, text in enumerate(texts)]


def require_token_ids(token_ids: Iterable[object], vocab_size: int, name: str) -> list[int]:
    """Return a list of token ids that are known to be integers in the vocabulary.

    Raises:
        InputError: An id is not an integer, or it is outside the vocabulary.
    """
    try:
        ids = [operator.index(token_id) for token_id in token_ids]  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(f"{name}: expected a sequence of token ids: {error}") from None
    if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
        wrong = next(token_id for token_id in ids if not 0 <= token_id < vocab_size)
        raise InputError(f"{name}: got {wrong}, expected an id from 0 to {vocab_size - 1}")
    return ids


PIECE_CHARACTERS = 65_536

# Byte-level BPE always splits before the spaces that follow a word, and NFC composes nothing across
# them, so the ids of the pieces, concatenated, are the ids of the text.
_BORDER = re.compile(r"(?<=\S)(?=[ \n])")


def may_cut(definition: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer gives the same ids when a text is encoded in pieces.

    ModernBERT's own pipeline does, unless an added token may span a border, such as "New York" or
    a token that includes the spaces after it.

    Args:
        definition: The content of a tokenizer.json.
    """
    return (
        definition.get("pre_tokenizer") == BYTE_LEVEL
        and definition.get("normalizer") == NORMALIZER
        and not any(
            token["rstrip"] or _BORDER.search(token["content"])
            for token in definition.get("added_tokens", ())
        )
    )


def pieces(text: str, *, piece_characters: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut a text into pieces which, concatenated, are the text.

    An empty text is one empty piece.

    >>> list(pieces("one two  three four", piece_characters=2))
    ['one', ' two', '  three', ' four']

    Args:
        text: A text of any length.
        piece_characters: The least length of a piece but the last, in characters; a piece is
            longer where the text has no safe border.

    Yields:
        Each piece.
    """
    start = 0
    while start + piece_characters < len(text):
        border = _BORDER.search(text, start + piece_characters)
        if border is None:
            break
        yield text[start : border.start()]
        start = border.start()
    yield text[start:]


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
