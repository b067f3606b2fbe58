"""Rotary positions (P section 2.1.1; RoFormer, arXiv 2104.09864), in half rotation.

The pair of a head's entry i is entry i + head_size / 2, as in GPT-NeoX. Angles are float32.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class RotaryTable(NamedTuple):
    """Cosines and sines of each token's angles: (total_tokens, head_size / 2) float32 both."""

    cos: Tensor
    sin: Tensor


def rotary_table(position_ids: Tensor, head_size: int, theta: float) -> RotaryTable:
    """The table of tokens at the given positions of their sequences.

    position_ids: (total_tokens,) int64.
    """
    device = position_ids.device
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    frequencies = 1.0 / theta**exponents  # (head_size / 2,)
    angles = torch.outer(position_ids.float(), frequencies)
    return RotaryTable(angles.cos(), angles.sin())


def rotate(heads: Tensor, table: RotaryTable) -> Tensor:
    """Turn queries or keys by their positions.

    heads: (total_tokens, num_heads, head_size), any float type, which the result has too.
    """
    first, second = heads.float().chunk(2, dim=-1)  # (total_tokens, num_heads, head_size / 2)
    cos, sin = table.cos[:, None], table.sin[:, None]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(heads.dtype)
