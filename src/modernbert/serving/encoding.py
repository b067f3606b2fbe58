"""What requests give as texts, to the sequences that a model reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modernbert.errors import InputError
from modernbert.inference.inputs import CutSide, EncodedText, Text, TextEncoder
from modernbert.serving.refusal import empty, invalid, too_large
from modernbert.tokenizer.tokenizer import Tokenizer

TextOrIds = str | list[int]


@dataclass(frozen=True)
class Truncation:
    """What becomes of a text that is too long.

    Attributes:
        allowed: Whether it is cut; else the request is refused.
        side: On which it is cut.
    """

    allowed: bool
    side: CutSide = "right"


def as_inputs(inputs: str | list[str | int | list[int]], name: str) -> list[TextOrIds]:
    """Texts and rows of token ids as a list; one row of ids is one text.

    Raises:
        Refusal: no input at all, or ids beside texts in one list.
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
    """Texts and pairs as a list, and whether it is a list that was given.

    Raises:
        Refusal: no input at all, or more than two texts together.
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
    """An encoder that takes rows of token ids too.

    Token ids are those of a text: [CLS] and [SEP] around them are taken off, and put on anew.
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
    """Refuse what is too long, unless cutting is allowed.

    Raises:
        Refusal: One is too long.
    """
    for index, each in enumerate(encoded):
        if not truncation.allowed and getattr(each, "is_truncated", False):
            raise too_large(
                f"{name}[{index}]: longer than the {max_seqlen:,} tokens that the model reads; "
                "shorten it, or set truncate"
            )
