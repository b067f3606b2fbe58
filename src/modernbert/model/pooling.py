"""One vector a sequence from one vector a token."""

from typing import Literal

import torch
from torch import Tensor

from modernbert.batch import PackedBatch

Pooling = Literal["cls", "mean"]


def pool(hidden: Tensor, batch: PackedBatch, pooling: Pooling) -> Tensor:
    """The first token of each sequence, or the mean of all its tokens, [CLS] and [SEP] included.

    hidden: (total_tokens, width).
    Returns (num_sequences, width); zeros for a sequence without tokens.
    """
    if pooling == "cls":
        first = batch.cu_seqlens[:-1].long().clamp(max=len(hidden) - 1)
        return hidden[first].masked_fill(batch.lengths[:, None] == 0, 0)
    # Sums of thousands of tokens need more digits than bfloat16 has.
    addends = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    sums = addends.new_zeros(batch.num_sequences, hidden.shape[1])
    sums = sums.index_add(0, batch.sequence_ids, addends)
    return (sums / torch.clamp(batch.lengths, min=1)[:, None]).to(hidden.dtype)
