"""How well a model predicts masked tokens that it was not trained on."""

from collections.abc import Iterable

import torch
from torch import Tensor

from modernbert.data.collate import MaskedBatch
from modernbert.devices import missing_rows
from modernbert.errors import ShardError
from modernbert.model.dropout import Dropout
from modernbert.model.heads import MaskedLanguageModel
from modernbert.tasks.pretraining.vocabulary_loss import MAX_LOGITS_BYTES, loss_and_hits
from modernbert.training.distributed import ALONE, Group


def held_out_figures(
    model: MaskedLanguageModel,
    batches: Iterable[MaskedBatch],
    *,
    name: str,
    max_logits_bytes: int = MAX_LOGITS_BYTES,
    group: Group = ALONE,
) -> dict[str, float]:
    """Mean loss and accuracy over the masked tokens of all batches, those of all processes.

    Args:
        model: In evaluation mode, on its device.
        batches: The held-out batches.
        name: Of the batches' shards, for an error.
        max_logits_bytes: The most bytes of logits in memory at once.
        group: The processes that compute together.

    Raises:
        ShardError: No token is masked, because there are so few.
    """
    device = model.decoder_weight.device
    totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, hits, masked tokens
    for batch in batches:
        there = batch.to(device, non_blocking=True)
        totals += _totals(model, there, max_logits_bytes)
    group.sum([totals])
    loss, hits, num_masked = totals.tolist()
    if not num_masked:
        raise ShardError(f"{name}: too small, as no token is masked; hold out more documents")
    return {"held_out_loss": loss / num_masked, "held_out_accuracy": hits / num_masked}


def predictions(model: MaskedLanguageModel, batch: MaskedBatch, dropout: Dropout | None) -> Tensor:
    """(num_masked, hidden_size). What the head makes of the masked tokens.

    On a CPU a few rows may follow, of which nothing is asked: see `model.cpu_shapes`.
    """
    hidden = model.encoder(batch.batch, dropout=dropout)
    indices = batch.masked_indices
    if hidden.device.type == "cpu":
        indices = torch.cat([indices, indices.new_zeros(missing_rows(len(indices)))])
    rows: Tensor = model.head(hidden.index_select(0, indices))
    return rows


def _totals(model: MaskedLanguageModel, batch: MaskedBatch, max_logits_bytes: int) -> Tensor:
    """(3,) float64. The sums of the losses and of the hits, and of how many tokens they are."""
    loss, hits = loss_and_hits(
        predictions(model, batch, None),
        model.decoder_weight,
        model.decoder_bias,
        batch.labels,
        max_logits_bytes=max_logits_bytes,
    )
    return torch.stack(
        [loss.double(), hits.double(), torch.full_like(loss, batch.num_masked).double()]
    )
