"""Pooling: from one vector per token to one per sequence, and the layers that follow."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import ModelFolderError
from modernbert.model.weights import read_headers, read_tensors
from modernbert.settings import Pooling

__all__ = ["Pooling", "Poolings", "TextPooling", "pool"]

TextPooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""What embedding models pool by, in the words of sentence-transformers."""

Poolings = TextPooling | tuple[TextPooling, ...]
"""One, or several whose vectors are joined."""


def pool(
    hidden: Tensor,
    batch: PackedBatch,
    pooling: Poolings,
    *,
    num_left_out: int = 0,
) -> Tensor:
    """Pool the vectors of each sequence's tokens, including [CLS] and [SEP], into one.

    Args:
        hidden: (total_tokens, width).
        batch: The sequences, packed one after another.
        pooling: The first token; the maximum of each number; the mean; the sum divided by the
            square root of the length; the mean weighted by the positions 1, 2, ...; or the last
            token. The vectors of several poolings are concatenated.
        num_left_out: The number of tokens at the beginning of each sequence that are left out, such
            as those of a prompt; the last token is always included.

    Returns:
        (num_sequences, width), times the number of poolings; zeros for a sequence without tokens.
    """
    places = batch.position_ids + 1
    if num_left_out:
        hidden, batch, places = _without_beginnings(hidden, batch, num_left_out)
    kinds = (pooling,) if isinstance(pooling, str) else pooling
    return torch.cat([_pooled(hidden, batch, places, kind) for kind in kinds], dim=1)


def _pooled(hidden: Tensor, batch: PackedBatch, places: Tensor, pooling: TextPooling) -> Tensor:
    if pooling in ("cls", "lasttoken"):
        rows = batch.cu_seqlens[:-1] if pooling == "cls" else batch.cu_seqlens[1:] - 1
        chosen = hidden[rows.long().clamp(0, len(hidden) - 1)]
        return chosen.masked_fill(batch.lengths[:, None] == 0, 0)
    if pooling == "max":
        lowest = hidden.new_full((batch.num_sequences, hidden.shape[1]), -torch.inf)
        index = batch.sequence_ids[:, None].expand_as(hidden)
        largest = lowest.scatter_reduce(0, index, hidden, "amax")
        return largest.masked_fill(batch.lengths[:, None] == 0, 0)
    # Sums of thousands of tokens need more digits than bfloat16 has.
    addends = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    totals = batch.lengths.to(addends.dtype)
    if pooling == "weightedmean":
        weights = places.to(addends.dtype)
        addends = addends * weights[:, None]
        totals = totals.new_zeros(len(totals)).index_add(0, batch.sequence_ids, weights)
    elif pooling == "mean_sqrt_len_tokens":
        totals = totals.sqrt()
    sums = addends.new_zeros(batch.num_sequences, hidden.shape[1])
    sums = sums.index_add(0, batch.sequence_ids, addends)
    return (sums / totals.clamp(min=1)[:, None]).to(hidden.dtype)


def _without_beginnings(
    hidden: Tensor, batch: PackedBatch, num_tokens: int
) -> tuple[Tensor, PackedBatch, Tensor]:
    """Leave out the first tokens of each sequence, but never its last.

    Returns:
        The remaining hidden states and batch, and the positions, from 1, that the tokens had
        before.
    """
    left_out = (batch.lengths - 1).clamp(max=num_tokens)
    keep = batch.position_ids >= left_out[batch.sequence_ids]
    borders = batch.cu_seqlens.clone()
    borders[1:] -= left_out.cumsum(0).to(torch.int32)
    kept = PackedBatch(
        token_ids=batch.token_ids[keep], cu_seqlens=borders, max_seqlen=batch.max_seqlen
    )
    return hidden[keep], kept, (batch.position_ids + 1)[keep]


class Normalize(nn.Module):
    """Scales vectors to length 1; zeros stay zeros."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Scale (rows, width) to the same shape."""
        return functional.normalize(vectors, dim=-1)


def fill_from_folder(layer: nn.Module, folder: Path) -> None:
    """Load a layer's weights from a folder that holds only these.

    Raises:
        ModelFolderError: The weights cannot be read, or belong to another layer.
    """
    expected = {name: tuple(value.shape) for name, value in layer.named_parameters()}
    headers = {header.name: header for header in read_headers(folder)}
    found = {name: header.shape for name, header in headers.items()}
    if found != expected:
        raise ModelFolderError(f"{folder}: holds the tensors {found}, expected {expected}")
    layer.load_state_dict(read_tensors(headers), assign=True)
