"""One vector a sequence from one vector a token."""

from typing import Literal

import torch
from torch import Tensor

from modernbert.batch import PackedBatch

Pooling = Literal["cls", "mean"]


def pool(hidden: Tensor, batch: PackedBatch, pooling: Pooling) -> Tensor:
    """The first token of each sequence, or the mean of all its tokens, [CLS] and [SEP] included.

    hidden: (total_tokens, width).
    Returns (num_sequences, width).
    """
    if pooling == "cls":
        return hidden[batch.cu_seqlens[:-1].long()]
    sums = hidden.new_zeros(batch.num_sequences, hidden.shape[1])
    sums = sums.index_add(0, batch.sequence_ids, hidden)
    return sums / torch.clamp(batch.lengths, min=1)[:, None].to(hidden.dtype)
