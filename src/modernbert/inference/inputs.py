"""Texts, and pairs of texts, to the token ids that a model reads; what is too long is cut."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, TypeVar

from modernbert.data.rows.cells import of_library
from modernbert.data.rows.python_objects import is_frame
from modernbert.errors import InputError, TruncationWarning
from modernbert.inference.batching import Observer, Progress
from modernbert.tokenizer.definition import cut_to, room_for_text
from modernbert.tokenizer.tokenizer import Tokenizer

T = TypeVar("T")

Text = str | tuple[str, str]
"""A text, or two that the model sees as `[CLS] A [SEP] B [SEP]`."""

CutSide = Literal["left", "right"]


@dataclass(frozen=True)
class EncodedText:
    """A text's token ids with [CLS] and [SEP], and whether it was longer than they are."""

    token_ids: list[int]
    is_truncated: bool


class TextEncoder:
    """Texts and pairs to token ids of at most `max_seqlen`.

    Of a pair the longer text is cut first.

    Args:
        tokenizer: What makes ids of texts.
        max_seqlen: The longest sequence, in tokens.
        cut: The side on which a text that is too long loses tokens.
        prompt: A text to put before each text, of a pair before the first.
        takes_pairs: Whether a pair of texts is one item; else it is refused.

    Raises:
        InputError: A `max_seqlen` that leaves no room for text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_seqlen: int,
        *,
        cut: CutSide = "right",
        prompt: str = "",
        takes_pairs: bool = True,
    ) -> None:
        room_for_text(max_seqlen, tokenizer.template.num_special(2))
        self.tokenizer, self.max_seqlen, self.cut = tokenizer, max_seqlen, cut
        self.prompt, self.takes_pairs = prompt, takes_pairs

    def __call__(self, texts: Sequence[Text]) -> list[EncodedText]:
        """The ids of each text, tokenized on all cores.

        Raises:
            InputError: What is no text, or no pair of texts.
        """
        parts = [as_parts(text) for text in texts]
        if not self.takes_pairs and not all(isinstance(text, str) for text in texts):
            place = next(at for at, text in enumerate(texts) if not isinstance(text, str))
            raise InputError(f"texts: got {_named(texts[place])} at {place}, expected a str")
        if self.prompt:
            prompted = {first: self.prompt + first for first in {first for first, *_ in parts}}
            parts = [(prompted[first], *others) for first, *others in parts]
        # A query that is paired with many documents is tokenized once.
        different = list(dict.fromkeys(chain.from_iterable(parts)))
        rows = self.tokenizer.encode_batch(different, special_tokens=False)
        ids = dict(zip(different, rows, strict=True))
        return [self.framed([ids[part] for part in each]) for each in parts]

    def framed(self, parts: list[list[int]]) -> EncodedText:
        """Make a sequence that fits of one text or two, given as ids without special ones."""
        template = self.tokenizer.template
        room = self.max_seqlen - template.num_special(len(parts))
        is_truncated = sum(map(len, parts)) > room
        kept = self._cut(parts, room) if is_truncated else parts
        return EncodedText(template.frame(*kept), is_truncated)

    def _cut(self, parts: list[list[int]], room: int) -> list[list[int]]:
        """The parts, of at most `room` tokens together."""
        step = 1 if self.cut == "right" else -1
        # A part may be huge; the longer one stays the longer, by which it is cut.
        longest = max(map(len, parts))
        sizes = (room + (len(part) == longest) for part in parts)
        ends = (
            part[:size] if step == 1 else part[-size:]
            for part, size in zip(parts, sizes, strict=True)
        )
        first, *others = (part[::step] for part in ends)
        kept = cut_to(first, others[0] if others else None, room)
        return [part[::step] for part in kept if part is not None]


def as_parts(text: object) -> tuple[str, ...]:
    """Return one text or two, checked.

    Raises:
        InputError: Something else.
    """
    parts = tuple(text) if isinstance(text, tuple | list) else (text,)
    if not all(isinstance(part, str) for part in parts) or not 1 <= len(parts) <= 2:
        raise InputError(f"texts: got {_named(text)}, expected a str or a pair of them")
    return parts


def num_characters(text: object) -> int:
    """Return the size of a text or of a pair.

    Raises:
        InputError: Something else.
    """
    return sum(map(len, as_parts(text)))


def require_list(texts: Any, name: str) -> None:
    """Refuse what is not a list of texts, even if it can be iterated over.

    Raises:
        InputError: A str, which would be taken for a list of letters; a data frame or a dictionary,
            of which the names of columns would be taken; or nothing to iterate over.
    """
    if is_frame(texts) or isinstance(texts, Mapping):
        names: Iterable[object] = texts if isinstance(texts, Mapping) else texts.columns
        columns = ", ".join(repr(str(each)) for each in islice(names, 8))
        raise InputError(
            f"{name}: got a {type(texts).__name__} with {columns}; pass one column of it, such as "
            f'{name}["text"]'
        )
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InputError(f"{name}: got {type(texts).__name__}, expected a list of texts")


def each_item(items: Iterable[T]) -> Iterator[T]:
    """Yield items one after another, those of arrays and frames as Python's own.

    Raises:
        InputError: None, NaN, or something else that is no text, with its place.
    """
    for index, item in enumerate(items):
        value: Any = of_library(item)
        is_list = isinstance(value, tuple | list)
        for place, part in enumerate(value if is_list else (value,)):
            is_no_text = isinstance(value, bytes | dict | int)  # numbers in a list are token ids
            is_missing = part is None or isinstance(part, float) or type(part).__name__ == "NAType"
            if is_no_text or is_missing:
                where = f"texts[{index}]" + (f"[{place}]" if is_list else "")
                raise InputError(
                    f"{where}: got {part!r}, expected a text; remove it or put a text there"
                )
        yield value


class Watched:
    """An observer that remembers how far the work came, and passes it on."""

    def __init__(self, observer: Observer | None = None) -> None:
        self.last = Progress()
        self._observer = observer

    def __call__(self, progress: Progress) -> None:
        """Take one report."""
        self.last = progress
        if self._observer is not None:
            self._observer(progress)

    def warn_of_truncated(self, max_seqlen: int) -> None:
        """Say once, at the end, how many texts were cut."""
        if self.last.truncated:
            warnings.warn(
                f"{self.last.truncated:,} of {self.last.texts:,} texts are longer than "
                f"{max_seqlen:,} tokens and were cut there; split them to have all of them read",
                TruncationWarning,
                stacklevel=5,
            )


def _named(value: object) -> str:
    kind = type(value).__name__
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list) else kind
