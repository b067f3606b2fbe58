"""What callers may pass: texts and token ids, each refused with its name and index."""

import operator
from collections.abc import Iterable

from modernbert.errors import InputError


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
