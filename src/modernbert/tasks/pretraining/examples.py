"""Masked tokens of held-out text beside what a model predicts, for people to look at."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from modernbert.data.collate import MaskedBatch
from modernbert.model.heads import MaskedLanguageModel
from modernbert.tasks.pretraining.vocabulary_loss import predictions
from modernbert.tokenizer.tokenizer import Tokenizer

_MOST_EXAMPLES, _TOP_K = 16, 3
_TOKENS_BEFORE, _TOKENS_AFTER = 24, 16


def held_out_examples(
    model: MaskedLanguageModel, batch: MaskedBatch, tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    """Predict some masked tokens of a batch, spread evenly over it.

    Args:
        model: In evaluation mode, on its device.
        batch: A held-out batch.
        tokenizer: The tokenizer of the batch.

    Returns:
        JSON values: the text `before` and `after` a token as the model saw it, the token that was
        `expected`, and the best `predicted` tokens with their probabilities.
    """
    rows = predictions(model, batch.to(model.decoder_weight.device), None)[: batch.num_masked]
    chosen = np.unique(np.linspace(0, batch.num_masked - 1, _MOST_EXAMPLES).astype(int)).tolist()
    logits = rows[chosen].float() @ model.decoder_weight.float().T + model.decoder_bias.float()
    scores, ids = logits.softmax(-1).topk(_TOP_K)
    return [
        {
            **_around(batch, int(batch.masked_indices[index]), tokenizer),
            "expected": tokenizer.decode([int(batch.labels[index])]),
            "predicted": [
                [tokenizer.decode([token]), round(score, 4)]
                for token, score in zip(ids[place].tolist(), scores[place].tolist(), strict=True)
            ],
        }
        for place, index in enumerate(chosen)
    ]


def _around(batch: MaskedBatch, place: int, tokenizer: Tokenizer) -> dict[str, str]:
    """The text on both sides of a token, within its sequence."""
    cu_seqlens = batch.batch.cu_seqlens
    sequence = int(torch.searchsorted(cu_seqlens, place, right=True)) - 1
    start, end = cu_seqlens[sequence : sequence + 2].tolist()
    token_ids = batch.batch.token_ids
    before = token_ids[max(start + 1, place - _TOKENS_BEFORE) : place]
    after = token_ids[place + 1 : min(end - 1, place + 1 + _TOKENS_AFTER)]
    return {"before": tokenizer.decode(before), "after": tokenizer.decode(after)}


def first_batch(batches: Iterator[MaskedBatch]) -> MaskedBatch | None:
    """Return the first batch with masked tokens."""
    return next((batch for batch in batches if batch.num_masked), None)
