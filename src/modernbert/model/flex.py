"""FlexAttention: attention over a flat batch by blocks of 128 x 128, compiled on CUDA.

Which blocks hold a pair that may see one another follows from the borders alone, and is found
without a mask of tokens by tokens.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import InputError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128


def block_mask(batch: PackedBatch, window: int | None, *, is_causal: bool = False) -> "BlockMask":
    """Return which pairs of tokens see one another: those of a sequence, `window` apart at most.

    Args:
        batch: The sequences, packed one after another.
        window: How far a token sees on either side; None for the whole sequence.
        is_causal: Whether a token sees only itself and what stands before it.
    """
    from torch.nn.attention.flex_attention import BlockMask

    sequences = batch.sequence_ids.to(torch.int32)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        together = sequences[query] == sequences[key]
        if is_causal:
            together = together & (query >= key)
        return together if window is None else together & ((query - key).abs() <= window)

    touched, full = _blocks(batch, window)
    if is_causal:
        touched, full = touched.tril(), full.tril(-1)
    total = batch.total_tokens
    return BlockMask.from_kv_blocks(
        *_ordered(touched & ~full),
        *_ordered(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(total, total),
    )


def attend(query: Tensor, key: Tensor, value: Tensor, mask: "BlockMask") -> Tensor:
    """Compute attention: (total_tokens, num_heads, head_size) for each input and the result.

    Raises:
        InputError: Gradients on a CPU, where torch has none of this.
    """
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
        raise InputError('attention: "flex" has no gradients on a CPU; use "auto"')
    heads = [x.transpose(0, 1)[None] for x in (query, key, value)]  # (1, num_heads, total, size)
    compiled = query.is_cuda and not torch.compiler.is_compiling()  # or else with all around it
    attended = (_compiled() if compiled else _plain())(*heads, block_mask=mask)
    return attended[0].transpose(0, 1)


def _plain() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return cast(Callable[..., Tensor], flex_attention)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_plain())


def _blocks(batch: PackedBatch, window: int | None) -> tuple[Tensor, Tensor]:
    """(num_blocks, num_blocks) bool twice: blocks with a pair that sees, and with no other."""
    total, device = batch.total_tokens, batch.token_ids.device
    starts = torch.arange(0, total, BLOCK, device=device)  # (num_blocks,) first row of each
    ends = (starts + BLOCK).clamp(max=total)
    firsts, lasts = batch.sequence_ids[starts], batch.sequence_ids[ends - 1]
    borders = batch.cu_seqlens.to(torch.int64)
    low, high = borders[firsts], borders[lasts + 1]  # the rows that any of a block can see
    if window is not None:
        low, high = torch.maximum(low, starts - window), torch.minimum(high, ends + window)
    touched = (starts < high[:, None]) & (ends > low[:, None])
    whole = (firsts == lasts)[:, None] & (starts >= low[:, None]) & (ends <= high[:, None])
    whole &= ((starts + BLOCK) <= total) & ((starts + BLOCK) <= total)[:, None]
    if window is not None:
        whole &= (starts - starts[:, None]).abs() + BLOCK - 1 <= window
    return touched, whole


def _ordered(dense: Tensor) -> tuple[Tensor, Tensor]:
    """The number of blocks of each row, (1, 1, num_blocks) int32, and their places, first those."""
    places = dense.to(torch.int32).argsort(dim=1, descending=True, stable=True)
    counts = dense.sum(dim=1)
    return counts.to(torch.int32)[None, None], places.to(torch.int32)[None, None]
