"""Texts, or lists of words, as the words and the windows that a tagger reads."""

from collections.abc import Sequence
from dataclasses import dataclass

from modernbert.errors import InputError
from modernbert.inference.batching import InWindows
from modernbert.tokenizer.spans import WordEncoding
from modernbert.tokenizer.texts import require_text
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.word_splitting import WordSplitting

TextOrWords = str | Sequence[str]


@dataclass(frozen=True)
class WordWindow:
    """A part of a text's words as one sequence."""

    token_ids: list[int]

    is_truncated = False  # what one window lacks is in another


@dataclass(frozen=True)
class EncodedWords(InWindows):
    """Words as one sequence or several.

    Attributes:
        windows: The sequences; neighbours overlap.
        places: For each word, its window and the place of its first token there.
        spans: The start and the end of each word, in characters of the text or as its own number.
    """

    windows: Sequence[WordWindow]
    places: list[tuple[int, int]]
    spans: list[tuple[int, int]]


def encode(
    tokenizer: Tokenizer,
    text: TextOrWords,
    splitting: WordSplitting,
    *,
    max_seqlen: int,
    stride: int,
) -> EncodedWords:
    """Encode the words of a text, or those of a list.

    Args:
        tokenizer: The model's.
        text: A text, or its words.
        splitting: How a text is split into words.
        max_seqlen: The longest window, in tokens.
        stride: How many tokens two neighbouring windows share.

    Raises:
        InputError: Words that are no str.
    """
    if isinstance(text, str):
        spans = splitting.spans(require_text(text, "text"))
        words = [text[start:end] for start, end in spans]
    else:
        words = list(text)
        spans = [(number, number + 1) for number in range(len(words))]
    encoding = tokenizer.encode_words(words)
    num_before = len(tokenizer.template.before)
    rows, step = _windows(
        tokenizer.template.bare(encoding.token_ids), tokenizer, max_seqlen, stride
    )
    places = []
    for first in (place - num_before for place in first_tokens(encoding)):
        # A word that two windows hold belongs to the one in which more stands around it.
        window = min(max(0, first - stride // 2) // step, len(rows) - 1)
        places.append((window, first - window * step + num_before))
    return EncodedWords([WordWindow(row) for row in rows], places, spans)


def first_tokens(encoding: WordEncoding) -> list[int]:
    """Return the place of the first token of each word that is not cut off."""
    firsts: dict[int, int] = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            firsts.setdefault(word, place)
    return list(firsts.values())


def num_characters(text: object) -> int:
    """Return the size of a text or of a list of words.

    Raises:
        InputError: Something else.
    """
    if isinstance(text, str):
        return len(text)
    if not isinstance(text, list | tuple):
        raise InputError(f"texts: got {type(text).__name__}, expected a str or a list of words")
    return sum(len(word) for word in text if isinstance(word, str))


def _windows(
    token_ids: Sequence[int], tokenizer: Tokenizer, max_seqlen: int, stride: int
) -> tuple[list[list[int]], int]:
    """The windows of the tokens of a text, and by how many tokens each begins after the last."""
    room = max_seqlen - tokenizer.template.num_special(1)
    step = room - stride
    if step < 1:
        raise InputError(
            f"stride: got {stride} with room for {room} tokens in a window; expected less"
        )
    starts = range(0, max(1, len(token_ids) - stride), step)
    return [tokenizer.template.frame(token_ids[start : start + room]) for start in starts], step
