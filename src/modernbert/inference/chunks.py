"""Late chunking: the vectors of a long text's pieces, from one pass over the whole.

    text -> tokens -> windows that overlap -> a vector for each token -> pooled, piece by piece

Every token attends to the whole text, or to its window of it, before the tokens of each piece are
pooled (arXiv 2409.04701). So a piece that only says "it" still has to do with what "it" is.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.inference.batching import InWindows
from modernbert.inference.inputs import EncodedText
from modernbert.settings import Doc, Settings
from modernbert.tokenizer.texts import Span
from modernbert.tokenizer.tokenizer import Tokenizer

# A full stop or its like, closing quotes, and a space before anything but a small letter.
_CLOSING = "\"'\u201d\u2019\u300d\u300f)\\]"
_WIDE_STOPS = "\u3002\uff01\uff1f"  # of Chinese and Japanese, with no space behind them
_SENTENCE_END = re.compile(
    rf"[.!?\u2026]+[{_CLOSING}]*\s+(?![a-z])|[{_WIDE_STOPS}][{_CLOSING}]*\s*|\n\s*\n\s*"
)


@dataclass(frozen=True, kw_only=True)
class ChunkSettings(Settings):
    """How a text is divided into pieces."""

    by: Annotated[
        Literal["tokens", "sentences"],
        Doc("Divide texts after so many tokens, or between sentences."),
    ] = "tokens"
    num_tokens: Annotated[
        int,
        Ge(1),
        Doc("The most tokens of a piece; a sentence that is longer is a piece of its own."),
    ] = 256


Chunking = ChunkSettings | Sequence[Span]
"""How to divide a text: settings, or the start and end of each piece in characters."""


class Chunks(NamedTuple):
    """The pieces of a text.

    Attributes:
        borders: The start and end of each piece, in characters of the text.
        vectors: (num_pieces, dim) float32.
    """

    borders: list[Span]
    vectors: np.ndarray


@dataclass(frozen=True)
class EncodedChunks(InWindows):
    """A text in windows, and its pieces.

    Attributes:
        kept: The first and the last of the tokens of each window whose vectors are used, so that
            each token of the text is used once.
        places: The same of each piece, among the tokens of the text.
        borders: The start and end of each piece, in characters.
    """

    windows: Sequence[EncodedText]
    kept: list[Span]
    places: list[Span]
    borders: list[Span]


class ChunkEncoder:
    """Encodes texts in windows and divides them into pieces.

    Args:
        tokenizer: The tokenizer of the model.
        max_seqlen: The longest window, in tokens.
        prompt: A text before each window, which belongs to no piece.

    Raises:
        InputError: A window has no room for text beside the prompt.
    """

    def __init__(self, tokenizer: Tokenizer, max_seqlen: int, prompt: str = "") -> None:
        self.tokenizer, self.prompt = tokenizer, prompt
        self._prompt_ids = tokenizer.encode(prompt, special_tokens=False) if prompt else []
        before, after = (
            len(each) for each in (tokenizer.template.before, tokenizer.template.after)
        )
        self._num_before = before + len(self._prompt_ids)
        self._room = max_seqlen - self._num_before - after
        if self._room < 2:
            raise InputError(f"prompt: leaves no room for text in {max_seqlen} tokens; shorten it")

    def __call__(self, items: Sequence[tuple[str, Chunking]]) -> list[EncodedChunks]:
        """Encode texts, each with how it is divided.

        Raises:
            InputError: Something is not a text, or a piece is not within its text.
        """
        return [self._encoded(*item) for item in items]

    def _encoded(self, text: str, chunking: Chunking) -> EncodedChunks:
        encoding = self.tokenizer.encode_with_offsets(text, special_tokens=False)
        places, borders = divided(text, encoding.offsets, chunking)
        windows, kept = [], []
        for begin, first, last in overlapping(len(encoding.token_ids), self._room):
            part = encoding.token_ids[begin : begin + self._room]
            ids = self.tokenizer.template.frame([*self._prompt_ids, *part])
            windows.append(EncodedText(ids, is_truncated=False))
            kept.append((self._num_before + first - begin, self._num_before + last - begin))
        return EncodedChunks(windows, kept, places, borders)


def beside(
    texts: Iterable[str], borders: Iterable[Sequence[Span]]
) -> Iterator[tuple[str, Chunking]]:
    """Yield each text with its pieces.

    Raises:
        InputError: There are more texts than lists of pieces, or fewer.
    """
    pieces = iter(borders)
    for number, text in enumerate(texts):
        if (own := next(pieces, None)) is None:
            raise InputError(f"borders: has the pieces of {number} texts, and there are more texts")
        yield text, own
    if next(pieces, None) is not None:
        raise InputError("borders: has the pieces of more texts than there are")


def overlapping(num_tokens: int, room: int) -> Iterator[tuple[int, int, int]]:
    """Divide tokens into windows that share a quarter of their tokens.

    A token in two windows is used from the one in which it is further from the edge.

    >>> list(overlapping(10, 8))
    [(0, 0, 7), (6, 7, 10)]

    Args:
        num_tokens: The number of tokens.
        room: The most tokens of a window, 2 or more.

    Yields:
        The first token of each window, and the first and the last, exclusive, that is used of it.
    """
    shared = room // 4
    stride = room - shared
    first = 0
    for begin in range(0, max(1, num_tokens - shared), stride):
        is_last = begin + room >= num_tokens
        last = num_tokens if is_last else begin + stride + (shared + 1) // 2
        yield begin, first, last
        first = last


def divided(
    text: str, offsets: Sequence[Span], chunking: Chunking
) -> tuple[list[Span], list[Span]]:
    """Divide a text into pieces.

    Args:
        text: A whole text, of any length.
        offsets: The start and end of each token, in characters.
        chunking: How.

    Returns:
        The first and the last token, exclusive, of each piece; and its start and end in characters.

    Raises:
        InputError: The start and end of a piece are not in the text, or no token begins in it.
    """
    starts = np.maximum.accumulate([start for start, _ in offsets] or [0])[: len(offsets)].tolist()
    if not isinstance(chunking, ChunkSettings):
        places = [_place_of(text, starts, each, number) for number, each in enumerate(chunking)]
        return places, [(start, end) for start, end in chunking]
    if chunking.by == "sentences":
        borders = np.searchsorted(starts, [each.end() for each in _SENTENCE_END.finditer(text)])
        places = list(_joined([*borders.tolist(), len(starts)], chunking.num_tokens))
    else:
        places = list(_cut(starts, chunking.num_tokens))
    ends = (offsets[last - 1][1] for _, last in places)
    return places, [
        _without_blanks(text, starts[first], end)
        for (first, _), end in zip(places, ends, strict=True)
    ]


def _without_blanks(text: str, start: int, end: int) -> Span:
    """The borders of a piece without white space at its ends, unless it is nothing else."""
    piece = text[start:end]
    if not (kept := piece.strip()):
        return start, end
    start += len(piece) - len(piece.lstrip())
    return start, start + len(kept)


def _place_of(text: str, starts: Sequence[int], border: Span, number: int) -> Span:
    """The tokens that begin within a given piece."""
    start, end = border
    if not 0 <= start < end <= len(text):
        raise InputError(
            f"borders[{number}]: got {start} to {end}, expected a start before an end within the "
            f"{len(text)} characters of the text"
        )
    first, last = np.searchsorted(starts, [start, end]).tolist()
    if first == last:
        raise InputError(f"borders[{number}]: no token begins from {start} to {end}")
    return first, last


def _cut(starts: Sequence[int], num_tokens: int) -> Iterator[Span]:
    """Cut after so many tokens, but not between tokens that share one character."""
    first = 0
    while first < len(starts):
        last = min(first + num_tokens, len(starts))
        while last < len(starts) and starts[last] == starts[last - 1]:
            last += 1
        yield first, last
        first = last


def _joined(ends: Sequence[int], num_tokens: int) -> Iterator[Span]:
    """Join neighbouring sentences, given by their ends, up to so many tokens."""
    first = last = 0
    for end in ends:
        if end - first > num_tokens and last > first:
            yield first, last
            first = last
        last = end
    if last > first:
        yield first, last


def pooled_chunks(
    encoded: EncodedChunks,
    hidden: Sequence[Tensor],
    pool: Callable[[Tensor, PackedBatch], np.ndarray],
) -> Chunks:
    """Pool the tokens of each piece.

    Args:
        encoded: The text in its windows, with the borders of its pieces.
        hidden: (num_tokens, hidden_size) for each of its windows.
        pool: Turns the vectors of the tokens of a batch into (num_sequences, dim) float32.
    """
    parts = zip(hidden, encoded.kept, strict=True)
    tokens = torch.cat([window[first:last] for window, (first, last) in parts])
    if not encoded.places:
        batch = PackedBatch.from_sequences([[0]])
        return Chunks([], pool(tokens.new_zeros(1, tokens.shape[1]), batch)[:0])
    pieces = [torch.arange(first, last) for first, last in encoded.places]
    batch = PackedBatch.from_sequences(pieces)  # whose ids are places, and are not looked at
    return Chunks(encoded.borders, pool(tokens[batch.token_ids], batch))
