"""A batch with masked tokens and a step of pretraining on it, for whoever times steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.workloads import token_ids
from modernbert.batch import PackedBatch
from modernbert.data.collate import MaskedBatch
from modernbert.model.heads import MaskedLanguageModel
from modernbert.tasks.pretraining.pretrain import masked_token_loss

MASKED_SHARE = 0.31


def masked_batch(
    lengths: Sequence[int], *, seed: int = 0, share: float = MASKED_SHARE, vocab_size: int = 50_368
) -> MaskedBatch:
    """Random ids of these lengths, with a share of them asked for."""
    ids = [[each % vocab_size for each in row] for row in token_ids(lengths, seed=seed)]
    batch = PackedBatch.from_sequences(ids)
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.rand(batch.total_tokens, generator=generator) < share).nonzero().flatten()
    return MaskedBatch(
        batch=batch,
        masked_indices=rows,
        labels=batch.token_ids[rows],
        bin_ids=(0,),
        bin_tokens_each=(batch.total_tokens,),
    )


def masked_step(model: MaskedLanguageModel, batch: MaskedBatch, dtype: torch.dtype) -> Tensor:
    """The mean loss of the masked tokens, with gradients left in the parameters."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss = masked_token_loss(model, batch) / batch.num_masked
    loss.backward()
    return loss.detach()
