"""Multi-head self-attention over a flat batch, global or within a window, on every device.

`attend` computes it over back ends that tests compare with each other:

- `local`, in Triton, for local layers on CUDA in half precision;
- `varlen` on CUDA in half precision: `torch.nn.attention.varlen`, from Ampere on;
- `flash3`, FlashAttention 3, on Hoppers where that is installed;
- `flex`, compiled FlexAttention, on CUDA in any precision;
- `blocks` everywhere else: a local layer looks at blocks of rows and their two neighbours, at a
  cost that grows with the tokens and not with their square, and a global layer at one run of
  equally long sequences after another. Neither ever forms a mask of sequences by sequences.

On CPUs the C kernels of `native` stand before these. All of them compute causal attention too,
which only a phase of pretraining has.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.errors import ConfigError
from modernbert.model import flex
from modernbert.model.config import EncoderConfig, LayerKind
from modernbert.model.flash3 import flash3
from modernbert.model.gpu import HALF, HEAD_SIZES, MAX_TOKENS
from modernbert.model.layout import Layout
from modernbert.model.native import functions as native
from modernbert.model.products import linear
from modernbert.model.rope import RotaryTable, rotate


class Attention(nn.Module):
    """`Wo(attend(rotate(Wqkv(x))))`, without biases in the paper (P section 2.1.1).

    Args:
        config: The config of the model.
        kind: In a local layer a token sees `config.window` tokens on either side, in a global one
            the whole sequence.
    """

    matrices: ClassVar = {"Wqkv": 3, "Wo": 1}
    """Its matrices, and how many each is made of; what optimizers of whole matrices ask for."""

    def __init__(self, config: EncoderConfig, kind: LayerKind) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.window = config.window if kind == "local" else None
        width, bias = config.hidden_size, config.attention_bias
        self.Wqkv = nn.Linear(width, 3 * width, bias=bias)
        self.Wo = nn.Linear(width, width, bias=bias)

    def forward(self, hidden: Tensor, table: RotaryTable, layout: Layout) -> Tensor:
        """Compute (total_tokens, hidden_size) to the same shape, each token within its sequence."""
        qkv = linear(hidden, self.Wqkv.weight, self.Wqkv.bias, float8=layout.float8)
        attended = attend_rotated(qkv, table, layout, num_heads=self.num_heads, window=self.window)
        return linear(attended, self.Wo.weight, self.Wo.bias)


def attend_rotated(
    qkv: Tensor, table: RotaryTable, layout: Layout, *, num_heads: int, window: int | None
) -> Tensor:
    """Rotate queries and keys, and let every token attend to its own sequence.

    Args:
        qkv: (total_tokens, 3 x num_heads x head_size), not rotated yet.
        table: The rotary table of the batch.
        layout: The layout of the batch.
        num_heads: The number of attention heads.
        window: How far a token sees on either side; None for the whole sequence.

    Returns:
        (total_tokens, num_heads x head_size).
    """
    if layout.attention == "auto" and native.supports_attention(qkv, num_heads):
        return native.attend(qkv, table, layout, num_heads=num_heads, window=window)
    # (total_tokens, num_heads, head_size) each
    query, key, value = qkv.unflatten(1, (3 * num_heads, -1)).split(num_heads, dim=1)
    suits = qkv.dtype in HALF and query.shape[-1] in HEAD_SIZES
    if layout.fuses and suits and not torch.compiler.is_compiling():
        from modernbert.model.gpu.rotation import turn

        query, key = turn(query, *table, 1.0), turn(key, *table, 1.0)
    else:
        query, key = rotate(query, table), rotate(key, table)
    return attend(query, key, value, layout, window=window).flatten(1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, window: int | None
) -> Tensor:
    """Compute the softmax attention of every token over its own sequence.

    Args:
        query: (total_tokens, num_heads, head_size), rotated already.
        key: (total_tokens, num_heads, head_size), rotated already.
        value: (total_tokens, num_heads, head_size).
        layout: The layout of the batch.
        window: How far a token sees on either side; None for the whole sequence.

    Returns:
        (total_tokens, num_heads, head_size).

    Raises:
        ConfigError: The layout selects a back end that cannot compute these.
    """
    back_end = layout.attention
    if back_end == "auto":
        if window is not None and layout.has_kernels and _suits_local(query):
            return _local(query, key, value, layout, window)
        is_flash = layout.has_varlen and query.dtype in HALF
        back_end = ("flash3" if layout.has_flash3 else "varlen") if is_flash else "blocks"
    if back_end == "flex":
        return flex.attend(query, key, value, layout.flex_mask(window))
    if back_end in ("varlen", "flash3"):
        if query.dtype not in HALF:
            raise ConfigError(
                f'attention: "{back_end}" computes in bfloat16 or float16, got '
                f'{str(query.dtype).removeprefix("torch.")}; use "auto" or compute in bfloat16'
            )
        compute = _flash3 if back_end == "flash3" else _varlen
        return compute(query, key, value, layout, window)
    if window is None:
        return _global_blocks(query, key, value, layout)
    return _local_blocks(query, key, value, layout)


def _suits_local(heads: Tensor) -> bool:
    is_half, size = heads.dtype in HALF, heads.shape[2]
    return is_half and size in HEAD_SIZES and len(heads) <= MAX_TOKENS


def _local(query: Tensor, key: Tensor, value: Tensor, layout: Layout, window: int) -> Tensor:
    from modernbert.model.gpu.local_attention import local_attention

    firsts, ends = layout.borders_each
    ahead = 0 if layout.is_causal else window
    attended: Tensor = local_attention(query, key, value, firsts, ends, window, ahead)[0]
    return attended


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    borders, longest = layout.batch.cu_seqlens, layout.batch.max_seqlen
    reach = _reach(layout, window)
    attended = varlen_attn(query, key, value, borders, borders, longest, longest, window_size=reach)
    assert isinstance(attended, Tensor)
    return attended


def _flash3(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, window: int | None
) -> Tensor:
    batch, reach = layout.batch, _reach(layout, window)
    attended: Tensor = flash3(query, key, value, batch.cu_seqlens, batch.max_seqlen, *reach)[0]
    return attended


def _reach(layout: Layout, window: int | None) -> tuple[int, int]:
    """How far a token sees before it and behind it, -1 for everything."""
    before = -1 if window is None else window
    return before, 0 if layout.is_causal else before


def _global_blocks(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """Make one call for each run of equally long sequences, in which each attends to itself."""
    # Neighbouring sequences of one length are a dense (num_sequences, length) block of the flat
    # row, without a copy and without padding, so torch's dense kernel computes them exactly. Bins
    # hold their sequences by falling length (`data/packing.py`), which makes the runs long
    # (P section 2.1.2: unpadding).
    pieces = []
    for start, num_sequences, length in layout.runs:
        rows = slice(start, start + num_sequences * length)
        heads = [
            x[rows].unflatten(0, (num_sequences, length)).transpose(1, 2)
            for x in (query, key, value)
        ]  # (num_sequences, num_heads, length, head_size)
        attended = functional.scaled_dot_product_attention(
            heads[0], heads[1], heads[2], is_causal=layout.is_causal
        )
        pieces.append(attended.transpose(1, 2).flatten(0, 1))  # (rows, num_heads, head_size)
    return torch.cat(pieces)


def _local_blocks(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """Make one call for all blocks of rows, each with the keys of three blocks and a mask."""
    # A block has as many rows as the window reaches to one side. All keys that a row may see are
    # then in its own block or the two next to it, whatever sequences the blocks cut, and the mask
    # of (block, 3 x block) hides other sequences and keys that are too far away. The cost is
    # linear in the tokens (P section 2.1.2: local attention).
    size, num_tokens = layout.block, len(query)
    filling = layout.num_blocks * size - num_tokens
    queries = functional.pad(query, (0, 0, 0, 0, 0, filling)).unflatten(0, (-1, size))
    attended = functional.scaled_dot_product_attention(
        queries.transpose(1, 2),  # (num_blocks, num_heads, block, head_size)
        _with_neighbours(key, size, filling).transpose(1, 2),
        _with_neighbours(value, size, filling).transpose(1, 2),
        attn_mask=layout.local_mask[:, None],
    )
    return attended.transpose(1, 2).flatten(0, 1)[:num_tokens]


def _with_neighbours(rows: Tensor, size: int, filling: int) -> Tensor:
    """Put each block between its two neighbours: (num_blocks, 3 x size, num_heads, head_size)."""
    blocks = functional.pad(rows, (0, 0, 0, 0, size, filling + size)).unflatten(0, (-1, size))
    return torch.cat((blocks[:-2], blocks[1:-1], blocks[2:]), dim=1)
