"""Logits to the gradients of their losses, in place: two readings and one writing of each."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4_096


def become_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """Replace logits by the gradients of their losses; the loss of each row.

    Args:
        logits: (num_rows, vocab_size), contiguous; float16 or bfloat16.
        labels: (num_rows,) int64.

    Returns:
        (num_rows,) float32.
    """
    num_rows, vocab_size = logits.shape
    losses = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    if num_rows:
        grid, sizes = (num_rows,), {"BLOCK": _BLOCK, "num_warps": 8}
        with torch.cuda.device_of(logits):
            cross_entropy_kernel[grid](logits, labels, losses, vocab_size, **sizes)
    return losses


@triton.jit
def cross_entropy_kernel(logits, labels, losses, vocab_size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = logits + row * vocab_size
    label = tl.load(labels + row)
    columns = tl.arange(0, BLOCK)
    peak = tl.full((), -float("inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    for start in range(0, vocab_size, BLOCK):
        mask = start + columns < vocab_size
        part = tl.load(at + start + columns, mask=mask, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(peak, tl.max(part, 0))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(part - higher), 0)
        peak = higher
    normaliser = peak + tl.log(total)
    tl.store(losses + row, normaliser - tl.load(at + label).to(tl.float32))
    tl.debug_barrier()  # the label's logit is read before it is replaced
    for start in range(0, vocab_size, BLOCK):
        mask = start + columns < vocab_size
        part = tl.load(at + start + columns, mask=mask, other=-float("inf")).to(tl.float32)
        gradients = tl.exp(part - normaliser) - tl.where(start + columns == label, 1.0, 0.0)
        tl.store(at + start + columns, gradients, mask=mask)
