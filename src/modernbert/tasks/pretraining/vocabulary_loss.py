"""Cross entropy over a vocabulary that never holds more than a set size of logits.

The product with the vocabulary is the dearest part of a small model's training step. Here it is
done three times in all, for the logits and for the gradients of both operands, and never a fourth
time in the backward: each chunk of rows gives its loss and its gradients at once, and its logits
become those gradients in place.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modernbert.data.collate import MaskedBatch
from modernbert.devices import missing_rows, widest_dtype
from modernbert.errors import SettingsError, ShardError
from modernbert.model.dropout import Dropout
from modernbert.model.gpu import is_ready
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.products import product
from modernbert.training.distributed import ALONE, Group

MAX_LOGITS_BYTES = 1 << 29

# Rows of logits that are widened to float32 at a time: on the CPU they must stay in its cache.
# Measured at 1,300 rows of 50,368: twice as fast in bfloat16 as all rows at once.
_CPU_BLOCK_BYTES = 1 << 22
_GPU_BLOCK_BYTES = 1 << 27


def vocabulary_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    *,
    max_logits_bytes: int = MAX_LOGITS_BYTES,
) -> Tensor:
    """Return the sum of the losses of predicting `labels` by `hidden @ weight.T + bias`.

    Args:
        hidden: (num_rows, hidden_size); of rows after the last label nothing is asked.
        weight: (vocab_size, hidden_size).
        bias: (vocab_size,).
        labels: (num_labels,) int64, no more than there are rows; without one the loss is a plain
            zero.
        max_logits_bytes: As float32; there is always at least one row of logits.

    Returns:
        A float32 scalar (float64 for such operands). Products are done in the format of autocast,
        where that is on; each gradient has the format of its tensor. The gradients are made
        with the loss, so that they can be used once only.

    Raises:
        SettingsError: max_logits_bytes below 1.
    """
    if len(labels) and torch.is_grad_enabled():
        arguments = hidden, weight, bias, labels, max_logits_bytes
        loss: Tensor = _LossWithGradients.apply(*arguments)  # type: ignore[no-untyped-call]
        return loss
    return loss_and_hits(hidden, weight, bias, labels, max_logits_bytes=max_logits_bytes)[0]


@torch.no_grad()
def loss_and_hits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    *,
    max_logits_bytes: int = MAX_LOGITS_BYTES,
) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses without gradients, and how many labels have the highest logit.

    The arguments are those of `vocabulary_cross_entropy`.
    """
    operands = _in_compute_format(hidden, weight, bias)
    loss = torch.zeros((), dtype=_wide(operands[0].dtype), device=hidden.device)
    hits = torch.zeros((), dtype=torch.int64, device=hidden.device)
    for rows in _chunks(len(hidden), 4 * len(weight), max_logits_bytes):
        for part, targets in _blocks(_logits(rows, *operands), labels[rows]):
            log_probabilities = part.log_softmax(1, dtype=loss.dtype)
            loss -= log_probabilities.gather(1, targets[:, None]).sum()
            hits += (log_probabilities.argmax(1) == targets).sum()
    return loss, hits


class _LossWithGradients(torch.autograd.Function):
    """The loss, and behind it the gradients that only want to be multiplied."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, max_bytes: int
    ) -> Tensor:
        operands = _in_compute_format(hidden, weight, bias)
        loss = torch.zeros((), dtype=_wide(operands[0].dtype), device=hidden.device)
        d_hidden, d_weight = torch.empty_like(hidden), torch.empty_like(weight)
        d_bias = torch.zeros_like(bias, dtype=loss.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in _chunks(len(hidden), 4 * len(weight), max_bytes):
                d_logits = _logits(rows, *operands)
                loss += _become_gradients(d_logits, labels[rows], d_bias)
                _put(d_hidden[rows], d_logits, operands[1].t())
                _put(d_weight, d_logits.t(), operands[0][rows].t(), adds=rows.start > 0)
        ctx.gradients = d_hidden, d_weight, d_bias.to(bias.dtype)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of this loss were used already; compute it again")
        gradients, ctx.gradients = ctx.gradients, None
        return (*(gradient.mul_(d_loss) for gradient in gradients), None, None)


def _become_gradients(logits: Tensor, labels: Tensor, d_bias: Tensor) -> Tensor:
    """Replace (num_rows, vocab_size) logits by the gradients of their losses; the losses' sum.

    Args:
        logits: (num_rows, vocab_size), overwritten.
        labels: (num_labels,) int64; rows after them get gradients of zero.
        d_bias: (vocab_size,), to which the gradients of all rows are added.
    """
    wide = _wide(logits.dtype)
    if is_ready(logits):
        from modernbert.model.gpu.cross_entropy import become_gradients

        logits[len(labels) :].zero_()
        losses = become_gradients(logits[: len(labels)], labels)
        d_bias += logits.sum(0, dtype=wide)
        return losses.sum()
    loss = torch.zeros((), dtype=wide, device=logits.device)
    for part, targets in _blocks(logits, labels):
        columns = targets[:, None]
        probabilities = part.softmax(1, dtype=wide)
        # The normaliser from the two peaks, so that there is one exponential for each logit.
        normaliser = part.amax(1, keepdim=True) - probabilities.amax(1, keepdim=True).log()
        picked = part.gather(1, columns) - normaliser  # log-probabilities of the labels
        loss -= picked.sum()
        gradients = probabilities.scatter_(1, columns, picked.expm1())  # p, and p - 1 at the label
        d_bias += gradients.sum(0)
        part.copy_(gradients)
    logits[len(labels) :].zero_()
    return loss


def _logits(rows: slice, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return product(hidden[rows], weight, added=bias)


def _put(total: Tensor, rows: Tensor, columns: Tensor, *, adds: bool = False) -> None:
    """Make `rows @ columns.T` the total or add it, in the format of the total."""
    if total.dtype is rows.dtype:
        product(rows, columns, added=total if adds else None, out=total)
    elif adds:
        total.add_(product(rows, columns))
    else:
        total.copy_(product(rows, columns))


def _in_compute_format(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The operands in the format of autocast where it is on, else in their widest."""
    device = tensors[0].device.type
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    if torch.is_autocast_enabled(device) and dtype is not torch.float64:
        dtype = torch.get_autocast_dtype(device)
    hidden, weight, bias = (tensor.to(dtype) for tensor in tensors)
    return hidden, weight, bias


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The format of losses: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def _blocks(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A few rows at a time that have labels, as views, with these."""
    block_bytes = _CPU_BLOCK_BYTES if logits.device.type == "cpu" else _GPU_BLOCK_BYTES
    for rows in _chunks(len(labels), 4 * logits.shape[1], block_bytes):
        yield logits[rows], labels[rows]


def _chunks(num_rows: int, row_bytes: int, max_bytes: int) -> Iterator[slice]:
    """The rows in as few and as equal parts as the limit allows, one row at least."""
    if max_bytes < 1:
        raise SettingsError(f"max_logits_bytes: got {max_bytes}, expected 1 or more")
    most = max(1, max_bytes // row_bytes)
    num_chunks = -(-num_rows // most)
    for index in range(num_chunks):
        yield slice(index * num_rows // num_chunks, (index + 1) * num_rows // num_chunks)


def held_out_figures(
    model: MaskedLanguageModel,
    batches: Iterable[MaskedBatch],
    *,
    name: str,
    max_logits_bytes: int = MAX_LOGITS_BYTES,
    group: Group = ALONE,
) -> dict[str, float]:
    """Compute mean loss and accuracy over the masked tokens of all batches of all processes.

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
    totals = torch.zeros(3, dtype=widest_dtype(device), device=device)  # loss, hits, tokens
    for batch in batches:
        there = batch.to(device, non_blocking=device.type == "cuda")
        totals += _totals(model, there, max_logits_bytes)
    group.sum([totals])
    loss, hits, num_masked = totals.tolist()
    if not num_masked:
        raise ShardError(f"{name}: too small, as no token is masked; hold out more documents")
    return {"held_out_loss": loss / num_masked, "held_out_accuracy": hits / num_masked}


def predictions(model: MaskedLanguageModel, batch: MaskedBatch, dropout: Dropout | None) -> Tensor:
    """Return what the head makes of the masked tokens, (num_masked, hidden_size).

    On a CPU a few rows may follow, of which nothing is asked: see `model.cpu_shapes`.
    """
    hidden = model.encoder(batch.batch, dropout=dropout)
    indices = batch.masked_indices
    if hidden.device.type == "cpu":
        indices = torch.cat([indices, indices.new_zeros(missing_rows(len(indices)))])
    rows: Tensor = model.head(hidden.index_select(0, indices))
    return rows


def _totals(model: MaskedLanguageModel, batch: MaskedBatch, max_logits_bytes: int) -> Tensor:
    """(3,) of `widest_dtype`. The sums of losses and hits, and of how many tokens they are."""
    loss, hits = loss_and_hits(
        predictions(model, batch, None),
        model.decoder_weight,
        model.decoder_bias,
        batch.labels,
        max_logits_bytes=max_logits_bytes,
    )
    figures = (loss, hits, torch.full_like(loss, batch.num_masked))
    return torch.stack([each.to(widest_dtype(loss.device)) for each in figures])
