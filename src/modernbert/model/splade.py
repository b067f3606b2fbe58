"""Weights of the vocabulary's tokens for each text, from a masked language model (SPLADE).

A token's weight is `log(1 + relu(logit))`, pooled over the places of a text (arXiv 2109.10086).
"""

from typing import Literal

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.model.heads import MaskedLanguageModel
from modernbert.settings import SparsePooling

SparseActivation = Literal["relu", "log1p_relu"]

__all__ = ["SparseActivation", "SparsePooling", "token_weights"]

_ROWS_AT_ONCE = 256


def token_weights(
    model: MaskedLanguageModel,
    hidden: Tensor,
    batch: PackedBatch,
    *,
    pooling: SparsePooling = "max",
    activation: SparseActivation = "relu",
) -> Tensor:
    """Compute the weights of all tokens of the vocabulary for each sequence.

    The logits of a few rows at a time are held, and not those of the whole batch; gradients flow.

    Args:
        model: The model, whose head and decoder are used.
        hidden: (total_tokens, hidden_size), what its encoder made of the batch.
        batch: The sequences, packed one after another.
        pooling: The largest weight over the places of a sequence, or their sum.
        activation: `log1p_relu` takes the logarithm twice (arXiv 2504.14839).

    Returns:
        (num_sequences, vocab_size) float32.
    """
    pooled: dict[int, Tensor] = {}
    borders = batch.cu_seqlens.tolist()
    sequence = 0
    for start in range(0, len(hidden), _ROWS_AT_ONCE):
        logits = model.logits(hidden[start : start + _ROWS_AT_ONCE]).float()
        end = start + len(logits)
        while sequence < batch.num_sequences and borders[sequence] < end:
            first, last = max(borders[sequence], start), min(borders[sequence + 1], end)
            rows = logits[first - start : last - start]
            part = rows.amax(0) if pooling == "max" else _activated(rows, activation).sum(0)
            if (before := pooled.get(sequence)) is not None:
                part = torch.maximum(before, part) if pooling == "max" else before + part
            pooled[sequence] = part
            if borders[sequence + 1] > end:
                break
            sequence += 1
    weights = torch.stack([pooled[place] for place in range(batch.num_sequences)])
    # The weight grows with the logit, so that of the largest is the largest.
    return _activated(weights, activation) if pooling == "max" else weights


def _activated(logits: Tensor, activation: SparseActivation) -> Tensor:
    weights = logits.relu().log1p()
    return weights.log1p() if activation == "log1p_relu" else weights
