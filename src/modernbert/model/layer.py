"""One layer: attention and a gated MLP, each behind a norm and added to the residual stream."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.model.attention import Attention
from modernbert.model.config import EncoderConfig
from modernbert.model.dropout import Draws, drop
from modernbert.model.gpu.support import HALF
from modernbert.model.layout import Layout
from modernbert.model.native import functions as native
from modernbert.model.rope import RotaryTable


class LayerNorm(nn.Module):
    """LayerNorm with a weight and no bias (P section 2.1.1), in float32 whatever comes in."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) to the same."""
        shape = self.weight.shape
        return functional.layer_norm(hidden, shape, self.weight, None, self.eps)


class GatedMLP(nn.Module):
    """GeGLU: `Wo(gelu(a) * b)` with `a, b` the halves of `Wi(x)` (P section 2.1.1).

    The GELU is the exact one, of the first half.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.Wi = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.Wo = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, *, has_kernels: bool = False) -> Tensor:
        """(total_tokens, hidden_size) to the same; `has_kernels` of their `Layout`."""
        halves = functional.linear(hidden, self.Wi.weight)
        gated = _gpu_geglu(halves) if has_kernels and halves.dtype in HALF else geglu(halves)
        return functional.linear(gated, self.Wo.weight)


def geglu(halves: Tensor) -> Tensor:
    """`gelu(a) * b` of the halves a, b: (total_tokens, 2 x width) to (total_tokens, width)."""
    if native.supports_geglu(halves):
        return native.geglu(halves)
    activated, gate = halves.chunk(2, dim=-1)
    return functional.gelu(activated) * gate


def _gpu_geglu(halves: Tensor) -> Tensor:
    from modernbert.model.gpu.geglu import geglu as on_gpu

    gated: Tensor = on_gpu(halves)
    return gated


class Layer(nn.Module):
    """`x += attn(attn_norm(x))`, then `x += mlp(mlp_norm(x))` (P section 2.1.1).

    The first layer has no attention norm: a norm stands right before it, after the embedding.
    """

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.attn_norm = LayerNorm(config.hidden_size, config.norm_eps) if index else nn.Identity()
        self.attn = Attention(config, config.layer_kinds[index])
        self.mlp_norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.mlp = GatedMLP(config)

    def forward(
        self, hidden: Tensor, table: RotaryTable, layout: Layout, draws: Draws | None
    ) -> Tensor:
        """(total_tokens, hidden_size) to the same; `draws` drop of the attention's output."""
        attended = self.attn(self.attn_norm(hidden), table, layout)
        if draws is not None:
            attended = drop(attended, draws)
        hidden = hidden + attended
        changed: Tensor = hidden + self.mlp(self.mlp_norm(hidden), has_kernels=layout.has_kernels)
        return changed
