"""The oracle: ModernBERT written as plainly as possible, over padded batches and dense masks.

Made from the paper and not from the package, whose config alone it shares. `weights` are tensors
by the names that the package's masked language model gives them, so that gradients reach them.
Nothing here is fast, and every token sees a mask of all tokens.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from modernbert.model.config import EncoderConfig

Weights = Mapping[str, Tensor]


def padded_logits(
    config: EncoderConfig,
    weights: Weights,
    token_ids: Tensor,
    present: Tensor,
    *,
    is_causal: bool = False,
) -> Tensor:
    """(rows, columns, vocab_size): the score of every token of the vocabulary at every place."""
    hidden = padded_hidden(config, weights, token_ids, present, is_causal=is_causal)
    hidden = gelu(hidden @ weights["head.dense.weight"].T)
    hidden = norm(hidden, weights["head.norm.weight"], config.norm_eps)
    embedding = weights["encoder.embeddings.tok_embeddings.weight"]
    return hidden @ embedding.T + weights["decoder_bias"]


def padded_hidden(
    config: EncoderConfig,
    weights: Weights,
    token_ids: Tensor,
    present: Tensor,
    *,
    is_causal: bool = False,
) -> Tensor:
    """(rows, columns, hidden_size); what stands where `present` is False means nothing.

    token_ids: (rows, columns) int64. present: (rows, columns) bool.
    """
    eps = config.norm_eps
    positions = present.long().cumsum(1) - 1  # a row's tokens may stand anywhere in it
    hidden = weights["encoder.embeddings.tok_embeddings.weight"][token_ids]
    hidden = norm(hidden, weights["encoder.embeddings.norm.weight"], eps)
    for index, kind in enumerate(config.layer_kinds):
        name = f"encoder.layers.{index}"
        window = config.window if kind == "local" else None
        theta = config.local_theta if kind == "local" else config.global_theta
        mask = dense_mask(positions, present, window, is_causal=is_causal)
        normed = norm(hidden, weights[f"{name}.attn_norm.weight"], eps) if index else hidden
        qkv = normed @ weights[f"{name}.attn.Wqkv.weight"].T
        query, key, value = (split_heads(x, config.num_heads) for x in qkv.chunk(3, dim=-1))
        attended = dense_attention(
            rotated(query, positions, theta), rotated(key, positions, theta), value, mask
        )
        hidden = hidden + merge_heads(attended) @ weights[f"{name}.attn.Wo.weight"].T
        normed = norm(hidden, weights[f"{name}.mlp_norm.weight"], eps)
        first, second = (normed @ weights[f"{name}.mlp.Wi.weight"].T).chunk(2, dim=-1)
        hidden = hidden + (gelu(first) * second) @ weights[f"{name}.mlp.Wo.weight"].T
    return norm(hidden, weights["encoder.final_norm.weight"], eps)


def dense_mask(
    positions: Tensor, present: Tensor, window: int | None, *, is_causal: bool = False
) -> Tensor:
    """(rows, 1, columns, columns) bool: whether a token (third) may look at another (last)."""
    mask = present[:, None, None, :].expand(-1, 1, present.shape[1], -1)
    distances = positions[:, None, :, None] - positions[:, None, None, :]
    if is_causal:
        mask = mask & (distances >= 0)
    if window is None:
        return mask
    return mask & (distances.abs() <= window)


def dense_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """(rows, num_heads, columns, head_size), as are query, key and value."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    scores = scores.masked_fill(~mask, -1e30)  # finite: a row may have no token at all
    return scores.softmax(dim=-1) @ value


def rotated(heads: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotary positions: entries i and i + head_size / 2 are turned as one pair.

    heads: (rows, num_heads, columns, head_size). positions: (rows, columns).
    """
    half = heads.shape[-1] // 2
    frequencies = theta ** (-torch.arange(half).float() / half)
    angles = positions[:, None, :, None].float() * frequencies  # (rows, 1, columns, half)
    cos, sin = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    first, second = heads[..., :half], heads[..., half:]
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def split_heads(hidden: Tensor, num_heads: int) -> Tensor:
    """(rows, columns, hidden_size) to (rows, num_heads, columns, head_size)."""
    rows, columns, width = hidden.shape
    return hidden.reshape(rows, columns, num_heads, width // num_heads).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """(rows, num_heads, columns, head_size) to (rows, columns, hidden_size)."""
    return heads.transpose(1, 2).flatten(2)


def norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Layer normalisation without a bias."""
    centred = hidden - hidden.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * weight


def gelu(hidden: Tensor) -> Tensor:
    """The exact Gaussian error linear unit."""
    return hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
