"""The special tokens around texts, and how much text fits into a sequence."""

from collections.abc import Sequence
from dataclasses import dataclass

import tokenizers

from modernbert.errors import InputError, TokenizerError

# Any text that has tokens will do, and which text has some depends on the vocabulary.
_PROBES = ("a", "0", ".", "あ", "א")


@dataclass(frozen=True, kw_only=True)
class Template:
    """The ids of the special tokens around a text and around a pair.

    Attributes:
        before: The ids before a single text.
        after: The ids after a single text.
        pair_before: The ids before the first text of a pair.
        between: The ids between the texts of a pair.
        pair_after: The ids after the second text of a pair.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    pair_before: tuple[int, ...]
    between: tuple[int, ...]
    pair_after: tuple[int, ...]

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer) -> "Template":
        """Derive the template from what the tokenizer's own post-processor does.

        Raises:
            TokenizerError: No letter has a token, or special tokens are put inside a text.
        """
        probe = next((text for text in _PROBES if _ids(backend, text)), None)
        if probe is None:
            raise TokenizerError("the vocabulary has no token for any of a, 0, ., あ and א")
        (before, after), (pair_before, between, pair_after) = (
            _around(backend.encode(probe)),
            _around(backend.encode(probe, probe)),
        )
        return cls(
            before=before,
            after=after,
            pair_before=pair_before,
            between=between,
            pair_after=pair_after,
        )

    def frame(self, first: Sequence[int], second: Sequence[int] | None = None) -> list[int]:
        """Return the ids of a text or a pair with the special tokens."""
        if second is None:
            return [*self.before, *first, *self.after]
        return [*self.pair_before, *first, *self.between, *second, *self.pair_after]

    def num_special(self, num_texts: int) -> int:
        """Return the number of special tokens for one text or for two."""
        if num_texts == 1:
            return len(self.before) + len(self.after)
        return len(self.pair_before) + len(self.between) + len(self.pair_after)

    def bare(self, token_ids: Sequence[int]) -> list[int]:
        """Return a text's ids without the special tokens around it, if it has them."""
        ids = list(token_ids)
        if self.before and tuple(ids[: len(self.before)]) == self.before:
            ids = ids[len(self.before) :]
        if self.after and tuple(ids[-len(self.after) :]) == self.after:
            ids = ids[: -len(self.after)]
        return ids


def _ids(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    return list(backend.encode(text, add_special_tokens=False).ids)


def _around(encoding: tokenizers.Encoding) -> list[tuple[int, ...]]:
    """Return the special ids before the first text, between two texts, and after the last."""
    gaps: list[list[int]] = [[]]
    last = None
    for token_id, text in zip(encoding.ids, encoding.sequence_ids, strict=True):
        if text is None:
            gaps[-1].append(token_id)
        elif text != last:
            last = text
            gaps.append([])
        elif gaps[-1]:
            raise TokenizerError("the template puts special tokens inside a text")
    return [tuple(gap) for gap in gaps]


def room_for_text(max_seqlen: int | None, num_special: int) -> int | None:
    """Return how many tokens of text fit beside the special tokens.

    Args:
        max_seqlen: The longest sequence, in tokens; None for no limit.
        num_special: The number of special tokens in the sequence.

    Returns:
        The number of tokens, or None for no limit.

    Raises:
        InputError: There is no room for any text.
    """
    if max_seqlen is None:
        return None
    if max_seqlen <= num_special:
        raise InputError(
            f"max_seqlen: got {max_seqlen}, expected at least {num_special + 1}: "
            f"{num_special} special tokens and one of text"
        )
    return max_seqlen - num_special


def cut_to(
    first: list[int], second: list[int] | None, room: int | None
) -> tuple[list[int], list[int] | None]:
    """Truncate a text or a pair to `room` tokens; of a pair, the longer text is cut first.

    >>> cut_to([1, 2, 3, 4], [5, 6], 5)
    ([1, 2, 3], [5, 6])

    Args:
        first: The token ids of the text.
        second: Those of the second text, if there is one.
        room: The most tokens of both together; None for no limit.

    Returns:
        What remains of both.
    """
    if room is None or second is None:
        return first[:room], second
    shorter = min(len(first), len(second), room // 2)
    if len(first) <= len(second):
        return first[:shorter], second[: room - shorter]
    return first[: room - shorter], second[:shorter]
