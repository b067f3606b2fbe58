"""Multi-head self-attention over a flat batch; whether it is local or global is data."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from modernbert.model.config import EncoderConfig, LayerKind
from modernbert.model.float8 import linear
from modernbert.model.gpu import HALF, HEAD_SIZES
from modernbert.model.kernels import attend
from modernbert.model.layout import Layout
from modernbert.model.native import functions as native
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
