"""Cutting a long text where the tokenizer would cut it anyway.

The Rust side keeps about a hundred bytes for each character of a text, and works on one text with
one thread. Cut into pieces, a whole book takes a few megabytes and every core.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modernbert.tokenizer.definition import BYTE_LEVEL, NORMALIZER

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
