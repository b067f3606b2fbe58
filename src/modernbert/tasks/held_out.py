"""How well a model predicts masked tokens that it was not trained on."""

from collections.abc import Iterable

import torch
from torch import Tensor

from modernbert.data.collate import MaskedBatch
from modernbert.errors import ShardError
from modernbert.model.dropout import Dropout
from modernbert.model.heads import MaskedLanguageModel
from modernbert.tasks.vocabulary_loss import MAX_LOGITS_BYTES, loss_and_hits


def held_out_figures(
    model: MaskedLanguageModel,
    batches: Iterable[MaskedBatch],
    *,
    name: str,
    max_logits_bytes: int = MAX_LOGITS_BYTES,
) -> dict[str, float]:
    """Mean loss and accuracy over the masked tokens of all batches.

    model: in evaluation mode, on its device.
    name: of the batches' shards, for an error.

    Raises:
        ShardError: no token is masked, because there are so few.
    """
    device = model.decoder_weight.device
    num_masked = 0
    totals = torch.zeros(2, dtype=torch.float64, device=device)  # loss, hits
    for batch in batches:
        num_masked += batch.num_masked
        there = batch.to(device, non_blocking=True)
        totals += _totals(model, there, max_logits_bytes)
    if not num_masked:
        raise ShardError(f"{name}: so small that no token of it is masked; hold out more documents")
    loss, hits = (totals / num_masked).tolist()
    return {"held_out_loss": loss, "held_out_accuracy": hits}


def predictions(model: MaskedLanguageModel, batch: MaskedBatch, dropout: Dropout | None) -> Tensor:
    """(num_masked, hidden_size). What the head makes of the masked tokens."""
    hidden = model.encoder(batch.batch, dropout=dropout)
    rows: Tensor = model.head(hidden.index_select(0, batch.masked_indices))
    return rows


def _totals(model: MaskedLanguageModel, batch: MaskedBatch, max_logits_bytes: int) -> Tensor:
    """(2,) float64. The sums of the losses and of the hits."""
    totals = loss_and_hits(
        predictions(model, batch, None),
        model.decoder_weight,
        model.decoder_bias,
        batch.labels,
        max_logits_bytes=max_logits_bytes,
    )
    return torch.stack([total.double() for total in totals])
