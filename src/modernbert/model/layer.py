"""One layer: attention and a gated MLP, each after a norm and added to the residual stream."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.model.attention import Attention
from modernbert.model.config import Activation, EncoderConfig, HeadActivation
from modernbert.model.dropout import Draws, drop
from modernbert.model.gpu import HALF
from modernbert.model.layout import Layout
from modernbert.model.native import functions as native
from modernbert.model.products import linear
from modernbert.model.rope import RotaryTable


def relu_squared(values: Tensor) -> Tensor:
    """Square what is positive; everything else is 0."""
    return functional.relu(values).square()


ACTIVATIONS: Mapping[HeadActivation, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "relu": functional.relu,
    "relu2": relu_squared,
    "linear": nn.Identity(),
    "tanh": torch.tanh,
}


class LayerNorm(nn.Module):
    """LayerNorm with a weight and, as in the paper, no bias unless you ask for one.

    It computes in float32 whatever the dtype of its input (P section 2.1.1).
    """

    def __init__(self, width: int, eps: float, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalize (..., width) to the same shape."""
        shape = self.weight.shape
        return functional.layer_norm(hidden, shape, self.weight, self.bias, self.eps)


def norm_for(config: EncoderConfig) -> LayerNorm:
    """Make a norm of a model's width and kind."""
    return LayerNorm(config.hidden_size, config.norm_eps, bias=config.norm_bias)


class GatedMLP(nn.Module):
    """GeGLU: `Wo(gelu(a) * b)`, where `a` and `b` are the halves of `Wi(x)` (P section 2.1.1).

    The GELU is exact and applied to the first half; a config may name another activation.
    """

    matrices: ClassVar = {"Wi": 2, "Wo": 1}
    """As of `Attention`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = config.activation
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.Wi = nn.Linear(width, 2 * inner, bias=bias)
        self.Wo = nn.Linear(inner, width, bias=bias)

    def forward(self, hidden: Tensor, *, has_kernels: bool = False, float8: bool = False) -> Tensor:
        """Compute (total_tokens, hidden_size) to the same shape; the `Layout` has both switches."""
        halves = linear(hidden, self.Wi.weight, self.Wi.bias, float8=float8)
        if has_kernels and halves.dtype in HALF and self.activation == "gelu":
            gated = _gpu_geglu(halves)
        else:
            gated = gate(halves, self.activation)
        return linear(gated, self.Wo.weight, self.Wo.bias, float8=float8)


def gate(halves: Tensor, activation: Activation = "gelu") -> Tensor:
    """Compute `activation(a) * b` of the halves of each row: (rows, 2 x width) to (rows, width)."""
    if activation == "gelu" and native.supports_geglu(halves):
        return native.geglu(halves)
    activated, factors = halves.chunk(2, dim=-1)
    return ACTIVATIONS[activation](activated) * factors


def _gpu_geglu(halves: Tensor) -> Tensor:
    from modernbert.model.gpu.geglu import geglu as on_gpu

    gated: Tensor = on_gpu(halves)
    return gated


class Layer(nn.Module):
    """`x += attn(attn_norm(x))`, then `x += mlp(mlp_norm(x))` (P section 2.1.1).

    The first layer has no attention norm, as there is a norm right before it, after the embedding.
    """

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.attn_norm = norm_for(config) if index else nn.Identity()
        self.attn = Attention(config, config.layer_kinds[index])
        self.mlp_norm = norm_for(config)
        self.mlp = GatedMLP(config)

    def forward(
        self,
        hidden: Tensor,
        added: Tensor | None,
        table: RotaryTable,
        layout: Layout,
        draws: Draws | None,
    ) -> tuple[Tensor, Tensor]:
        """Compute a layer; its last sum is left to the next one, which normalizes it at once.

        Args:
            hidden: (total_tokens, hidden_size), the residual stream.
            added: As `hidden`: what is still to be added to it; None in the first layer.
            table: The rotary table of the batch.
            layout: The layout of the batch.
            draws: What is dropped of the output of the attention.

        Returns:
            The residual stream, and what is still to be added to it.
        """
        if added is None:
            normed = self.attn_norm(hidden)
        else:
            hidden, normed = add_and_norm(hidden, added, self.attn_norm, layout)
        attended = self.attn(normed, table, layout)
        if draws is not None:
            attended = drop(attended, draws)
        hidden, normed = add_and_norm(hidden, attended, self.mlp_norm, layout)
        changed = self.mlp(normed, has_kernels=layout.has_kernels, float8=layout.float8)
        return hidden, changed


def add_and_norm(
    hidden: Tensor, added: Tensor, norm: nn.Module, layout: Layout
) -> tuple[Tensor, Tensor]:
    """Return `hidden + added`, and the same normalized."""
    suits = layout.fuses and added.dtype in HALF and hidden.dtype is torch.float32
    if suits and isinstance(norm, LayerNorm) and norm.bias is None:
        from modernbert.model.gpu.add_norm import add_norm

        total, normed, *_ = add_norm(hidden, added, norm.weight, norm.eps)
        return total, normed
    total = hidden + added
    return total, norm(total)
