"""The pieces of long texts, as `embed --chunks` names and writes them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from modernbert.cli.text_input import InputRow, TextInput

if TYPE_CHECKING:
    from modernbert.inference.chunks import ChunkSettings
    from modernbert.tokenizer.spans import Span
    from modernbert.tokenizer.tokenizer import Tokenizer


class ChunkBy(StrEnum):
    """Where texts are divided."""

    TOKENS = "tokens"
    SENTENCES = "sentences"


class ChunkInput:
    """The pieces of the texts of a file, found anew each time from the beginning.

    Args:
        reader: The texts.
        tokenizer: The tokenizer of the model.
        settings: How the texts are divided.
    """

    def __init__(
        self, reader: TextInput, tokenizer: "Tokenizer", settings: "ChunkSettings"
    ) -> None:
        self._reader, self._tokenizer, self.settings = reader, tokenizer, settings

    def __iter__(self) -> Iterator[InputRow]:
        """Yield each piece with its name."""
        for row in self._reader:
            borders = self._borders(row.text)
            pieces = (row.text[start:end] for start, end in borders)
            for name, piece in zip(names_of(row.id, borders), pieces, strict=True):
                yield replace(row, id=name, given=piece)

    def after(self, num_pieces: int) -> Iterator[InputRow]:
        """Yield the texts after those that have the first pieces."""
        for row in self._reader:
            if num_pieces > 0:
                num_pieces -= len(self._borders(row.text))
            else:
                yield row

    def _borders(self, text: str) -> "list[Span]":
        from modernbert.inference.chunks import divided

        encoding = self._tokenizer.encode_with_offsets(text, special_tokens=False)
        return divided(text, encoding.offsets, self.settings)[1]


def names_of(name: str, borders: "Sequence[Span]") -> list[str]:
    """The ids of the pieces of a text: its own, and their characters as in RFC 5147.

    >>> names_of("a", [(0, 120), (121, 240)])
    ['a#char=0,120', 'a#char=121,240']
    """
    return [f"{name}#char={start},{end}" for start, end in borders]
