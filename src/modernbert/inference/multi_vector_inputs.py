"""Queries and documents to token ids, and which of their tokens have a vector that counts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.inference.inputs import EncodedText, TextEncoder
from modernbert.inference.multi_vector_settings import MultiVectorSettings, Side
from modernbert.tokenizer.tokenizer import Tokenizer


class SideEncoder:
    """Texts of one side to token ids, the marker before each and the expansion behind it.

    limit: the longest sequence that the model reads, in tokens.

    Raises:
        InputError: lengths that the model cannot read.
    """

    def __init__(
        self, tokenizer: Tokenizer, settings: MultiVectorSettings, side: Side, limit: int
    ) -> None:
        longest, prompt = settings.longest(side, limit), settings.prompt(side)
        self._encode = TextEncoder(tokenizer, longest, prompt=prompt, takes_pairs=False)
        self._mask_token_id = tokenizer.mask_token_id
        expansion = settings.expansion if side == "query" else None
        self._length = 0 if expansion is None else expansion.length

    def __call__(self, texts: Sequence[str]) -> list[EncodedText]:
        """The ids of each text."""
        return [self._expanded(each) for each in self._encode(texts)]

    def _expanded(self, text: EncodedText) -> EncodedText:
        missing = self._length - len(text.token_ids)
        if missing <= 0:
            return text
        return EncodedText(text.token_ids + missing * [self._mask_token_id], text.is_truncated)


def skipped_token_ids(tokenizer: Tokenizer, settings: MultiVectorSettings, side: Side) -> list[int]:
    """The ids whose vectors are left out on a side; words that are no token are none of them."""
    if side not in settings.skiplist_sides:
        return []
    found = (tokenizer.token_to_id(word) for word in settings.skiplist)
    return [token_id for token_id in found if token_id is not None]


def counted(batch: PackedBatch, skipped: Tensor) -> Tensor:
    """(total_tokens,) bool. Which tokens have a vector that counts.

    skipped: (num_ids,) int64.
    """
    return ~torch.isin(batch.token_ids, skipped)


def expanded(batch: PackedBatch, sep_token_id: int) -> Tensor:
    """(total_tokens,) bool. Which tokens are expansions: those behind a sequence's last [SEP]."""
    places = torch.arange(batch.total_tokens, device=batch.token_ids.device)
    seps = torch.where(batch.token_ids == sep_token_id, places, -1)
    last = places.new_full((batch.num_sequences,), -1)
    last = last.scatter_reduce(0, batch.sequence_ids, seps, "amax")
    return places > last[batch.sequence_ids]
