"""From the inputs of requests, texts or token ids, to the sequences that a model reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modernbert.errors import InputError
from modernbert.inference.inputs import CutSide, EncodedText, Text, TextEncoder
from modernbert.serving.answers import empty, invalid, too_large
from modernbert.tokenizer.tokenizer import Tokenizer

TextOrIds = str | list[int]


@dataclass(frozen=True)
class Truncation:
    """What happens to a text that is too long.

    Attributes:
        allowed: Whether it is truncated; otherwise the request is refused.
        side: The side on which it is truncated.
    """

    allowed: bool
    side: CutSide = "right"


def as_inputs(inputs: str | list[str | int | list[int]], name: str) -> list[TextOrIds]:
    """Return texts and rows of token ids as a list; a single row of ids is one text.

    Raises:
        Refusal: There is no input, or a list contains both texts and ids.
    """
    if isinstance(inputs, str):
        return [inputs]
    ids = [item for item in inputs if isinstance(item, int)]
    if ids and len(ids) < len(inputs):
        raise invalid(f"{name}: expected texts, or token ids, but not both in one list")
    rows: list[TextOrIds] = [ids] if ids else [item for item in inputs if not isinstance(item, int)]
    if not rows:
        raise empty(name)
    for index, row in enumerate(rows):
        if not row and not isinstance(row, str):
            raise empty(f"{name}[{index}]")
    return rows


def as_pairs(inputs: str | list[str | list[str]], name: str) -> tuple[list[Text], bool]:
    """Return texts and pairs as a list, and whether the request gave a list.

    Raises:
        Refusal: There is no input, or an input has more than two texts.
    """
    if isinstance(inputs, str):
        return [inputs], False
    texts = [item for item in inputs if isinstance(item, str)]
    if texts and len(texts) == len(inputs) <= 2:
        return [_as_text(texts)], False
    if texts:
        raise invalid(f"{name}: expected a text, a pair of texts, or a list of lists of them")
    rows = [item for item in inputs if not isinstance(item, str)]
    if not rows:
        raise empty(name)
    for index, row in enumerate(rows):
        if not 1 <= len(row) <= 2:
            raise invalid(f"{name}[{index}]: got {len(row)} texts, expected one or two")
    return [_as_text(row) for row in rows], True


def _as_text(parts: list[str]) -> Text:
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def encode_ids_too(encoder: TextEncoder) -> Callable[[Sequence[TextOrIds]], list[EncodedText]]:
    """Return an encoder that accepts rows of token ids as well as texts.

    [CLS] and [SEP] around token ids are removed and added again, as around a text.
    """
    tokenizer = encoder.tokenizer

    def encode(inputs: Sequence[TextOrIds]) -> list[EncodedText]:
        encoded = iter(encoder([each for each in inputs if isinstance(each, str)]))
        prompt = tokenizer.encode(encoder.prompt, special_tokens=False) if encoder.prompt else []
        return [
            next(encoded)
            if isinstance(each, str)
            else encoder.framed([prompt + _bare_ids(tokenizer, each)])
            for each in inputs
        ]

    return encode


def _bare_ids(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    if (highest := max(ids)) >= tokenizer.vocab_size:
        raise InputError(f"got the id {highest}, expected 0 to {tokenizer.vocab_size - 1}")
    return tokenizer.template.bare(ids)


def require_fit(encoded: Sequence[Any], truncation: Truncation, max_seqlen: int, name: str) -> None:
    """Refuse inputs that are too long, unless they may be truncated.

    Raises:
        Refusal: An input is too long.
    """
    for index, each in enumerate(encoded):
        if not truncation.allowed and getattr(each, "is_truncated", False):
            raise too_large(
                f"{name}[{index}]: longer than the {max_seqlen:,} tokens that the model reads; "
                "shorten it, or set truncate"
            )
