"""Texts that callers pass: checked, and cut where the tokenizer would cut them anyway.

The Rust side keeps about a hundred bytes for each character of a text, and works on one text with
one thread. Cut into pieces, a whole book takes a few megabytes and every core.
"""

import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from modernbert.errors import InputError
from modernbert.tokenizer.definition import BYTE_LEVEL, NORMALIZER


def require_text(text: object, name: str) -> str:
    """The text itself, when it is one that UTF-8 can hold.

    >>> require_text(b"x", "texts[3]")
    Traceback (most recent call last):
    ...
    modernbert.errors.InputError: texts[3]: got bytes, expected a str
    """
    if not isinstance(text, str):
        raise InputError(f"{name}: got {type(text).__name__}, expected a str")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: holds the lone surrogate {text[error.start]!a} at character {error.start}; "
            "decode the bytes as UTF-8 with errors='replace'"
        ) from None
    return text


def require_texts(texts: Iterable[object], name: str) -> list[str]:
    """A list of the texts, each checked; one bare str is a mistake, not a list of letters."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InputError(f"{name}: got {type(texts).__name__}, expected a list of str")
    return [require_text(text, f"{name}[{index}]") for index, text in enumerate(texts)]


def require_token_ids(token_ids: Iterable[object], vocab_size: int, name: str) -> list[int]:
    """A list of the ids, each a whole number of the vocabulary."""
    try:
        ids = [operator.index(token_id) for token_id in token_ids]  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(f"{name}: not a row of token ids: {error}") from None
    if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
        wrong = next(token_id for token_id in ids if not 0 <= token_id < vocab_size)
        raise InputError(f"{name}: got {wrong}, expected an id from 0 to {vocab_size - 1}")
    return ids


PIECE_CHARACTERS = 65_536

# Before the blanks that follow a word, byte-level BPE always has a border, and NFC composes nothing
# across it: the pieces' ids, one after the other, are the text's ids.
_BORDER = re.compile(r"(?<=\S)(?=[ \n])")


def may_cut(definition: Mapping[str, Any]) -> bool:
    """Whether a tokenizer gives the same ids piece by piece: ModernBERT's own pipeline does.

    An added token that stretches across a border forbids it: "New York", say, or one that takes
    the blanks after it.
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
    """Cut a text into pieces of about `piece_characters`; together they are the text.

    A piece is longer where the text offers no safe border, and an empty text is one empty piece.

    >>> list(pieces("one two  three four", piece_characters=2))
    ['one', ' two', '  three', ' four']
    """
    start = 0
    while start + piece_characters < len(text):
        border = _BORDER.search(text, start + piece_characters)
        if border is None:
            break
        yield text[start : border.start()]
        start = border.start()
    yield text[start:]
