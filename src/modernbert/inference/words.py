"""The words of a text, or of a list of them, and which token each begins with."""

from collections.abc import Sequence
from dataclasses import dataclass

from modernbert.errors import InputError
from modernbert.tokenizer.tokenizer import Tokenizer

TextOrWords = str | Sequence[str]


@dataclass(frozen=True)
class EncodedWords:
    """A text as tokens and words.

    first_tokens: for each word, the place of its first token; what is cut off has none.
    spans: (start, end) of each of these words, in characters of the text or as its own number.
    """

    token_ids: list[int]
    is_truncated: bool
    first_tokens: list[int]
    spans: list[tuple[int, int]]


def encode(tokenizer: Tokenizer, text: TextOrWords, max_seqlen: int) -> EncodedWords:
    """The tokens and the words of a text or of a list of words, cut to `max_seqlen` tokens.

    Raises:
        InputError: words that are no str.
    """
    if isinstance(text, str):
        return encode_text(tokenizer, text, max_seqlen)
    return encode_words(tokenizer, text, max_seqlen)


def num_characters(text: object) -> int:
    """The size of a text or of a list of words.

    Raises:
        InputError: something else.
    """
    if isinstance(text, str):
        return len(text)
    if not isinstance(text, list | tuple):
        raise InputError(f"texts: got {type(text).__name__}, expected a str or a list of words")
    return sum(len(word) for word in text if isinstance(word, str))


def encode_words(tokenizer: Tokenizer, words: Sequence[str], max_seqlen: int) -> EncodedWords:
    """Words that someone else split; the span of a word is its number and the next."""
    encoding = tokenizer.encode_words(words)
    is_truncated = len(encoding.token_ids) > max_seqlen
    if is_truncated:
        encoding = tokenizer.encode_words(words, max_seqlen=max_seqlen)
    firsts: dict[int, int] = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            firsts.setdefault(word, place)
    spans = [(word, word + 1) for word in firsts]
    return EncodedWords(encoding.token_ids, is_truncated, list(firsts.values()), spans)


def encode_text(tokenizer: Tokenizer, text: str, max_seqlen: int) -> EncodedWords:
    """A text, in which words end where tokens begin after a blank or another kind of character."""
    encoding = tokenizer.encode_with_offsets(text)
    is_truncated = len(encoding.token_ids) > max_seqlen
    if is_truncated:
        encoding = tokenizer.encode_with_offsets(text, max_seqlen=max_seqlen)
    firsts: list[int] = []
    spans: list[tuple[int, int]] = []
    for place, (start, end) in enumerate(encoding.offsets[1:-1], start=1):
        if not text[start:end].strip():
            continue
        if spans and start < spans[-1][1]:  # bytes of one character
            continue
        if spans and start == spans[-1][1] and _goes_on(text, start):
            spans[-1] = spans[-1][0], end
        else:
            firsts.append(place)
            spans.append((start, end))
    return EncodedWords(encoding.token_ids, is_truncated, firsts, spans)


def _goes_on(text: str, place: int) -> bool:
    """Whether a word goes on at a place; punctuation is a word of its own."""
    return text[place - 1].isalnum() and text[place].isalnum()
